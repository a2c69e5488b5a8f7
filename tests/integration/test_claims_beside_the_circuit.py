"""The checks `attribution` and `successor` as a user runs them: items, baseline, table, warning, result file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, key, car], plural: [dogs, authors, keys, cars]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind, beside, above]
  templates:
    - {id: phrase, text: "the {subject} {near} the table", answer: "{verb}", flip: subject}
circuit:
  successor: {heads: [L3H3], role: {name: successor}}
claims:
  behaviour: {accuracy_at_least: 0.50, loss_at_most: 0.50}
  attribution: {method: exact, top: 3}
  successor: {greater_than_at_least: 0.2, tasks_at_least: {letters: 0.9}}
rates: {false_alarm: 0.05, missed_drift: 0.05}
"""


@pytest.fixture
def spec(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\n")
    path = pytester.mkdir("specs") / "counting.circuit.yaml"
    path.write_text(SPEC)
    return path


def test_a_baseline_is_written_and_checkpoints_are_compared_with_it(pytester: pytest.Pytester, spec: Path) -> None:
    written = pytester.runpytest("--circuits-update=new")
    written.assert_outcomes(passed=3)
    stored = json.loads((spec.parent / "__circuits__/counting.json").read_text())["measured"]
    assert (len(stored["attribution"]), [*stored["successor"]], stored["heads"]) == (16, ["L3H3"], None)

    same = pytester.runpytest("--circuits-no-cache", "--circuits-json", "out.json", "-v")
    same.assert_outcomes(passed=3)
    same.stdout.fnmatch_lines(
        ["*::attribution* PASSED*", "*::successor* PASSED*", "circuit * attribution * successor *"]
    )
    same.stdout.no_fnmatch_line("*warning*")
    records = json.loads((pytester.path / "out.json").read_text())["records"]
    assert [record["value"] for record in records if record["check"] == "attribution"] == pytest.approx([1.0, 1.0])
    drifts = [record["drift"] for record in records if record["claim"] == "drift"]
    assert drifts == pytest.approx([0.0] * 7, abs=1e-6)  # a baseline has 6 digits

    tuned = pytester.runpytest("--circuits-checkpoint=builtin:tiny-tuned")
    tuned.assert_outcomes(passed=3)

    rewired = pytester.runpytest("--circuits-checkpoint=builtin:tiny-rewired", "-k", "attribution or successor")
    rewired.assert_outcomes(passed=1, failed=1)
    rewired.stdout.fnmatch_lines(
        [
            "*successor: L3H3 greater than 0.* is beyond its limit 0.1 *",
            "*L3H3 successor of 'letters' * is below its limit 0.9",
            "warning: specs/counting: attribution: spearman over all heads 0.*, limit 0.8; jaccard of the 3 largest *",
        ]
    )


def test_where_the_spec_says_so_a_fall_is_red(pytester: pytest.Pytester, spec: Path) -> None:
    spec.write_text(SPEC.replace("top: 3", "top: 3, on_fall: fail"))
    run = pytester.runpytest(
        "--circuits-reference=builtin:tiny", "--circuits-checkpoint=builtin:tiny-rewired", "-k", "attribution"
    )

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*attribution: spearman over all heads 0.* is below its limit 0.8 *", "*left: L2H0 *"])


def test_what_was_measured_is_read_from_the_cache(pytester: pytest.Pytester, spec: Path) -> None:
    first = pytester.runpytest("--circuits-reference=builtin:tiny", "--circuits-json", "one.json")
    again = pytester.runpytest("--circuits-reference=builtin:tiny", "--circuits-json", "two.json")
    one, two = (json.loads((pytester.path / name).read_text()) for name in ("one.json", "two.json"))

    assert (first.ret, again.ret) == (0, 0)
    assert one["records"] == two["records"]

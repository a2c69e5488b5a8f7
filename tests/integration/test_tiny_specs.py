"""The shipped specs on the shipped checkpoints: the verdicts that the project promises."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

SPECS = Path(__file__).parents[2] / "specs" / "tiny"
OTHERS = ("induction", "later-year", "letters-and-numerals", "receiver")
CONTROLS = "  controls:     {beats_random: 0.90, match: size}\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the shipped specs and baselines, without the 119 random circuits, which take long."""
    pytester.makeini("[pytest]\n")
    others = [f"{name}*" for name in OTHERS]
    shutil.copytree(SPECS, pytester.path / "specs" / "tiny", ignore=shutil.ignore_patterns(*others))
    spec = pytester.path / "specs" / "tiny" / "successor.circuit.yaml"
    spec.write_text(spec.read_text().replace(CONTROLS, ""))
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    result = project.runpytest("specs", "--circuits-json=out.json", *arguments)
    document: dict[str, Any] = json.loads((project.path / "out.json").read_text())
    return result, document


def verdicts(document: dict[str, Any]) -> dict[tuple[str, ...], str]:
    keys = ("circuit", "check", "claim", "component", "template", "unit")
    found = {}
    for record in document["records"]:
        name = tuple(str(record[key]) for key in keys)
        while name in found:  # a role has one record for each task
            name = (*name, "again")
        found[name] = record["verdict"]
    return found


def test_the_tuned_checkpoint_passes(project: pytest.Pytester) -> None:
    result, document = run(project, "--circuits-checkpoint=builtin:tiny-tuned")

    result.assert_outcomes(passed=12)
    assert (result.ret, document["verdict"], document["complete"]) == (0, "pass", True)


def test_the_rewired_checkpoint_fails_by_its_circuits_with_or_without_a_stored_baseline(
    project: pytest.Pytester,
) -> None:
    stored, document = run(project, "--circuits-checkpoint=builtin:tiny-rewired")
    shutil.rmtree(project.path / "specs" / "tiny" / "__circuits__")
    together, other = run(
        project, "--circuits-reference=base=builtin:tiny", "--circuits-checkpoint=builtin:tiny-rewired"
    )

    assert stored.ret == together.ret == 1
    assert verdicts(document) == verdicts(other)
    of = {name: {v for key, v in verdicts(document).items() if key[1] == name} for name in ("behaviour", "heads")}
    assert of["behaviour"] == {"pass"}
    assert "drift" in of["heads"]
    text = stored.stdout.str()
    for words in ("the role moved: L2H0 -> L2H3.", "the role moved: L2H2, L3H3 -> L2H3.", "took over", "lost"):
        assert words in text


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_specs_pass_on_the_tuned_checkpoint_and_fail_on_the_rewired_one(
    pytester: pytest.Pytester, name: str
) -> None:
    pytester.makeini("[pytest]\n")
    for path in (*SPECS.glob(f"{name}.c*"), SPECS / "__circuits__" / f"{name}.json"):
        copy = pytester.path / "specs" / "tiny" / path.relative_to(SPECS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)

    checkpoints = [f"--circuits-checkpoint=builtin:{one}" for one in ("tiny-tuned", "tiny-rewired")]
    result, document = run(pytester, *checkpoints)

    by_check = {(one["checkpoint"], one["check"], one["verdict"]) for one in document["records"]}
    assert result.ret == 1
    assert {verdict for checkpoint, _, verdict in by_check if checkpoint == "tiny-tuned"} == {"pass"}
    assert {("tiny-rewired", check, "drift") for check in ("heads", "roles")} <= by_check
    assert {verdict for checkpoint, check, verdict in by_check if check == "behaviour"} == {"pass"}


@pytest.mark.parametrize("name", OTHERS)
def test_the_prompts_of_a_spec_are_those_that_its_command_writes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"# python -m (.+)$", (SPECS / f"{name}.circuit.yaml").read_text(), re.M)
    module, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [module, *arguments[:-1], str(tmp_path / "out.csv")])

    import_module(module).main()

    assert (tmp_path / "out.csv").read_bytes() == (SPECS / f"{name}.csv").read_bytes()

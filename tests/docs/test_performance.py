"""The forwards that docs/performance.md counts are the ones that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from imagined import compared

from pytest_circuits import load_spec, measure, open_checkpoint
from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_circuits.checks import Comparison
    from pytest_circuits.checks.measurements import Measurements

PAGE = Path(__file__).parents[2] / "docs/performance.md"
SPEC = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, car, king], plural: [dogs, authors, cars, kings]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind, beside]
    other: [lamp, lamps]
  templates:
    - {id: one, text: "the {subject} {near} the {other}", answer: "{verb}", flip: subject}
  per_template: 16
circuit:
  number_mover: {heads: [L2H0], role: {name: number_mover}}
  readers: {mlps: [L0.mlp, L1.mlp, L2.mlp, L3.mlp]}
claims: {behaviour: , faithfulness: , necessity: , controls: {match: size}, heads: , roles: }
"""
LAYERS, NOISE = 4, 11
FORWARDS = {  # by part: how many on this spec, and which checks need it
    "clean": (1, {"behaviour", "faithfulness", "necessity", "controls", "heads", "roles"}),
    "corrupt": (1, {"behaviour", "faithfulness", "necessity", "controls", "heads", "roles"}),
    "floor": (1, {"faithfulness", "necessity", "controls", "heads", "roles"}),
    "circuit only": (1, {"faithfulness", "controls"}),
    "circuit out": (1, {"necessity"}),
    "every head out": (LAYERS, {"heads"}),
    "a number mover out": (1, {"roles"}),
    "attention of number movers": (1, {"roles"}),
    "random circuits": (1, {"controls"}),  # all 15 of 16 prompts fit into one forward
    "noise floor": (NOISE, {"behaviour", "faithfulness", "necessity", "controls", "heads", "roles"}),
}
MORE_IF_SHARED = "a number mover out"
"""The one part that another, every head out, contains."""


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[tuple[Measurements, list[tuple[int, ...]]]]:
    """A reading of a spec whose prompts make one batch, and a list that grows with each forward of the model."""
    (tmp_path / "all.circuit.yaml").write_text(SPEC)
    file = load_spec(tmp_path / "all.circuit.yaml", root=tmp_path)
    model = open_checkpoint("builtin:tiny")
    found, forwards = measure(file, model), []

    def count(_: Any, args: Any, inputs: dict[str, Any]) -> None:
        forwards.append(tuple(inputs["input_ids"].shape))

    with model.bound.module.register_forward_pre_hook(count, with_kwargs=True):
        yield found, forwards


def beside_itself(found: Measurements) -> Comparison:
    return compared(found, found, file=found.file, identical=True, random_circuits=lambda: found.random_circuits)


@pytest.mark.parametrize("check", ["behaviour", "faithfulness", "necessity", "controls", "heads", "roles"])
def test_a_check_alone_runs_what_the_table_says(
    reading: tuple[Measurements, list[tuple[int, ...]]], check: str
) -> None:
    found, forwards = reading
    judge(check, beside_itself(found))

    assert len(forwards) == sum(number for number, checks in FORWARDS.values() if check in checks)


def test_a_whole_spec_shares_its_runs(reading: tuple[Measurements, list[tuple[int, ...]]]) -> None:
    found, forwards = reading
    for check in found.file.spec.declared:
        assert judge(check, beside_itself(found)).verdict is not Verdict.ERROR

    assert len(forwards) == sum(number for part, (number, _) in FORWARDS.items() if part != MORE_IF_SHARED)


def test_the_table_is_the_one_that_is_counted() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| ([a-z ,]+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    every = FORWARDS["clean"][1]
    told = {what: every if by == "every check" else set(by.split(", ")) for what, by in rows}
    heads_of_tables = {"part", "tool"}
    told = {what: checks for what, checks in told.items() if what not in heads_of_tables}

    assert told == {part: checks for part, (_, checks) in FORWARDS.items()}

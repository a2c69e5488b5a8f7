"""The forwards that docs/performance.md counts are the ones that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from imagined import compared

from pytest_circuits import load_spec, measure, open_checkpoint
from pytest_circuits.checkpoints.model import BoundModel
from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict

if TYPE_CHECKING:
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
    - {id: two, text: "the {other} {near} the {subject}", answer: "{verb}", flip: subject}
circuit:
  number_mover: {heads: [L2H0], role: {name: number_mover}}
  readers: {mlps: [L0.mlp, L1.mlp, L2.mlp, L3.mlp]}
claims: {behaviour: , faithfulness: , necessity: , controls: {match: size}, heads: , roles: }
"""
SWEEP, RANDOM, NOISE = 16, 15, 9
ONE_FOR = {
    "clean": {"behaviour", "faithfulness", "necessity", "controls", "heads", "roles"},
    "corrupt": {"behaviour", "heads"},
    "ablated values": {"faithfulness", "necessity", "controls", "heads", "roles"},
    "floor": {"faithfulness", "necessity", "controls", "heads", "roles"},
    "circuit only": {"faithfulness", "controls"},
    "circuit out": {"necessity"},
}


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Measurements, list[int]]:
    """A reading of a spec whose prompts are all of one length, and a list that grows with each forward."""
    (tmp_path / "all.circuit.yaml").write_text(SPEC)
    file = load_spec(tmp_path / "all.circuit.yaml", root=tmp_path)
    model = open_checkpoint("builtin:tiny")
    found = measure(file, model)
    forwards: list[int] = []
    plain = BoundModel.forward

    def counted(self: BoundModel, ids: Any, *arguments: Any, **options: Any) -> Any:
        forwards.append(len(ids))
        return plain(self, ids, *arguments, **options)

    monkeypatch.setattr(BoundModel, "forward", counted)
    return found, forwards


def beside_itself(found: Measurements) -> Comparison:
    return compared(found, found, file=found.file, identical=True, random_circuits=lambda: found.random_circuits)


@pytest.mark.parametrize(
    ("check", "more"),
    [
        ("behaviour", NOISE),
        ("faithfulness", NOISE),
        ("necessity", NOISE),
        ("controls", NOISE + RANDOM),
        ("heads", NOISE + SWEEP),
        ("roles", NOISE + 1 + 1),
    ],
)
def test_a_check_alone_runs_what_the_table_says(reading: tuple[Measurements, list[int]], check: str, more: int) -> None:
    found, forwards = reading
    result = judge(check, beside_itself(found))

    # Heads that pass do not tell of the behaviour, so they need no corrupt run.
    spared = check == "heads" and result.verdict is Verdict.PASS
    assert len(forwards) == more + sum(check in checks for checks in ONE_FOR.values()) - spared


def test_a_whole_spec_shares_its_runs(reading: tuple[Measurements, list[int]]) -> None:
    found, forwards = reading
    for check in found.file.spec.declared:
        judge(check, beside_itself(found))

    assert len(forwards) == len(ONE_FOR) + SWEEP + RANDOM + 1 + NOISE


def test_the_table_is_the_one_that_is_counted() -> None:
    table = dict(re.findall(r"^\| ([a-z ]+?) \| 1 \| ([a-z ,]+?) \|$", PAGE.read_text(encoding="utf-8"), re.M))
    told = {what: set(ONE_FOR["clean"] if by == "every check" else by.split(", ")) for what, by in table.items()}

    assert told == ONE_FOR

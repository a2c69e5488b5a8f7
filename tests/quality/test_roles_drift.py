"""Roles on known checkpoints: kept by benign fine-tunes, lost or moved in the rewired one, as `on_move` has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from imagined import compared
from planted import changed, trained_further

from pytest_circuits import open_checkpoint
from pytest_circuits.checks import judge
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.records import Verdict
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.records import Result

ROOT = Path(__file__).parents[2]
SPECS = ("verb-agreement", "receiver", "induction", "later-year", "letters-and-numerals")
SUCCESSOR = """\
format: 1
model: {{checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}}
prompts: {{file: letters-and-numerals.csv}}
circuit:
  successor: {{heads: [L3H3], role: {{name: successor}}}}
claims: {{roles: {{on_move: {on_move}}}}}
"""


@pytest.fixture(scope="module")
def tiny() -> BoundModel:
    return open_checkpoint("builtin:tiny").bound


@pytest.fixture(scope="module")
def benign(tiny: BoundModel) -> list[BoundModel]:
    """Five fine-tunes on new sentences of the grammar."""
    return [changed(tiny, trained_further(steps=20, rate=3e-5, seed=seed)) for seed in range(5)]


def roles(spec: SpecFile, model: BoundModel, reference: Measurements) -> Result:
    return judge("roles", compared(Measurements(spec, model), reference, file=spec))


@pytest.mark.parametrize("name", SPECS)
def test_roles_are_kept_by_benign_fine_tunes_and_not_by_the_rewired_one(
    name: str, tiny: BoundModel, benign: list[BoundModel]
) -> None:
    spec = load_spec(ROOT / "specs/tiny" / f"{name}.circuit.yaml", root=ROOT)
    reference = Measurements(spec, tiny)

    kept = [roles(spec, model, reference) for model in (open_checkpoint("builtin:tiny-tuned").bound, *benign)]
    rewired = roles(spec, open_checkpoint("builtin:tiny-rewired").bound, reference)

    assert [result.verdict for result in kept] == [Verdict.PASS] * 6, [result.headline for result in kept]
    assert rewired.verdict is Verdict.DRIFT


@pytest.mark.parametrize(
    ("on_move", "verdict", "warned"),
    [("fail", Verdict.DRIFT, False), ("warn", Verdict.PASS, True), ("allow", Verdict.PASS, False)],
)
def test_a_role_that_moved_is_what_the_spec_says_of_a_move(
    tmp_path: Path, tiny: BoundModel, on_move: str, verdict: Verdict, warned: bool
) -> None:
    csv = (ROOT / "specs/tiny/letters-and-numerals.csv").read_text(encoding="utf-8")
    (tmp_path / "letters-and-numerals.csv").write_text(csv, encoding="utf-8")
    (tmp_path / "moved.circuit.yaml").write_text(SUCCESSOR.format(on_move=on_move))
    spec = load_spec(tmp_path / "moved.circuit.yaml", root=tmp_path)

    result = roles(spec, open_checkpoint("builtin:tiny-rewired").bound, Measurements(spec, tiny))

    assert result.verdict is verdict
    told = "\n".join([result.headline, *result.details, *result.warnings, *(one.message for one in result.records)])
    assert "L3H1 0.03 -> 0.78" in told
    assert bool(result.warnings) is warned
    assert all("the role successor moved: L3H3 0.78 -> 0.03" in warning for warning in result.warnings[:1])

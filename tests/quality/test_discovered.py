"""Circuits that were found on tiny, as gates: kept on other prompts by benign fine-tunes, lost in the rewired one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from planted import changed, scaled_head, trained_further

from pytest_circuits import open_checkpoint
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.checks.suite import judge_spec
from pytest_circuits.cli import main
from pytest_circuits.records import Verdict, worst
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

TINY = Path(__file__).parents[2] / "specs/tiny"


@pytest.fixture(scope="module")
def tiny() -> BoundModel:
    return open_checkpoint("builtin:tiny").bound


@pytest.fixture(scope="module")
def benign(tiny: BoundModel) -> list[BoundModel]:
    """Three fine-tunes on new sentences of the grammar."""
    return [changed(tiny, trained_further(steps=20, rate=3e-5, seed=seed)) for seed in range(3)]


def found(folder: Path, prompts: str, *arguments: str) -> SpecFile:
    """Return what is found on a spec's prompts, to be asked of other prompts: those of another seed."""
    (folder / "pyproject.toml").touch()
    for name in (prompts, "successor.csv"):
        shutil.copy(TINY / name, folder / name)
    output = folder / "found.circuit.yaml"
    told = ["discover", "--checkpoint", "builtin:tiny", "--prompts", str(folder / prompts), "--output", str(output)]
    result = CliRunner().invoke(main, [*told, *arguments])
    assert result.exit_code == 0, result.output
    text = output.read_text(encoding="utf-8")
    output.write_text(text.replace("\n  seed: 1\n", "\n  seed: 2\n"), encoding="utf-8")
    return load_spec(output, root=folder)


def verdict(spec: SpecFile, model: BoundModel, reference: Measurements) -> Verdict:
    """Judge, but for the random circuits, which take long and are judged where the circuit is found."""
    claims = spec.spec.claims.model_copy(update={"controls": None})
    one = SpecFile(**{**spec.__dict__, "spec": spec.spec.model_copy(update={"claims": claims})})
    handle = open_checkpoint("builtin:tiny")  # only its name is told
    results = judge_spec(one, handle, Measurements(one, model), reference=reference)
    return worst([result.verdict for result in results])


@pytest.mark.parametrize(
    ("prompts", "arguments", "lost"),
    [
        ("verb-agreement.circuit.yaml", (), Head(2, 0)),
        ("verb-agreement.circuit.yaml", ("--edges",), Head(2, 0)),
        ("successor.circuit.yaml", (), Head(3, 3)),
    ],
)
def test_what_is_found_holds_on_other_prompts_and_sees_a_lost_circuit(
    prompts: str, arguments: tuple[str, ...], lost: Head, tmp_path: Path, tiny: BoundModel, benign: list[BoundModel]
) -> None:
    spec = found(tmp_path, prompts, *arguments)
    reference = Measurements(spec, tiny)

    assert getattr(spec.spec.prompts, "seed", 2) == 2
    assert verdict(spec, tiny, reference) is Verdict.PASS
    assert [verdict(spec, model, reference) for model in benign] == [Verdict.PASS] * len(benign)
    assert verdict(spec, open_checkpoint("builtin:tiny-tuned").bound, reference) is Verdict.PASS
    assert verdict(spec, open_checkpoint("builtin:tiny-rewired").bound, reference) is Verdict.DRIFT
    assert verdict(spec, changed(tiny, scaled_head(lost, 0.0)), reference) in (Verdict.DRIFT, Verdict.NOT_EVALUATED)

"""Discovery on a model that nobody here trained: pronoun gender in stories260K."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pytest_circuits import open_checkpoint
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.checks.suite import judge_spec
from pytest_circuits.cli import main
from pytest_circuits.records import Verdict, worst
from pytest_circuits.spec.components import Head, Mlp
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

MODEL = Path(__file__).parents[3] / "shared/models/stories260K"
pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"{MODEL} with a small language model is not at hand")


@pytest.fixture(scope="module")
def model() -> BoundModel:
    return open_checkpoint(str(MODEL)).bound


def found(folder: Path, *arguments: str) -> SpecFile:
    (folder / "pyproject.toml").touch()
    shutil.copy(Path(__file__).with_name("pronoun-gender.circuit.yaml"), folder)
    output = folder / "found.circuit.yaml"
    told = ["--prompts", str(folder / "pronoun-gender.circuit.yaml"), "--output", str(output), *arguments]
    result = CliRunner().invoke(main, ["discover", "--checkpoint", str(MODEL), *told])
    assert result.exit_code == 0, result.output
    output.write_text(output.read_text(encoding="utf-8").replace("\n  seed: 1\n", "\n  seed: 2\n"), encoding="utf-8")
    return load_spec(output, root=folder)


def without(model: BoundModel, head: Head) -> BoundModel:
    """A copy in which a head writes nothing."""
    module = copy.deepcopy(model.module)
    weight = module.model.layers[head.layer].self_attn.o_proj.weight.data
    width = weight.shape[1] // model.heads
    weight[:, head.head * width : (head.head + 1) * width] = 0
    return replace(model, name="zeroed", fingerprint="zeroed", module=module, blocks=module.model.layers)


def verdict(spec: SpecFile, model: BoundModel, reference: Measurements) -> Verdict:
    results = judge_spec(spec, open_checkpoint(str(MODEL)), Measurements(spec, model), reference=reference)
    return worst([result.verdict for result in results])


def test_the_movers_of_gender_are_found_and_a_zeroed_one_is_seen(tmp_path: Path, model: BoundModel) -> None:
    spec = found(tmp_path)
    reference = Measurements(spec, model)

    assert spec.spec.members == {Head(4, 2), Head(4, 0), Mlp(4)}
    assert [str(head) for head in spec.spec.roles["number_mover"]] == ["L4H2"]
    assert verdict(spec, model, reference) is Verdict.PASS
    assert verdict(spec, without(model, Head(4, 2)), reference) in (Verdict.DRIFT, Verdict.NOT_EVALUATED)
    assert verdict(spec, without(model, Head(4, 0)), reference) is Verdict.DRIFT


def test_its_edges_are_found_and_a_zeroed_head_is_seen(tmp_path: Path, model: BoundModel) -> None:
    spec = found(tmp_path, "--edges", "--faithfulness", "0.8")
    reference = Measurements(spec, model)

    assert any(name.startswith("L4H2 -> ") for name in spec.spec.edges)
    assert verdict(spec, model, reference) is Verdict.PASS
    assert verdict(spec, without(model, Head(4, 2)), reference) in (Verdict.DRIFT, Verdict.NOT_EVALUATED)

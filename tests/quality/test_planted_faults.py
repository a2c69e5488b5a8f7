"""The verdicts on planted faults and benign changes of the embedded checkpoint: the table that the gate stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted import changed, copied_head, scaled_head, scaled_logits, swapped_heads, trained_on

from pytest_circuits.checkpoints.model import BoundModel
from pytest_circuits.checks import Comparison, judge
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.prompts.pairs import pairs_of
from pytest_circuits.records import Result, Verdict
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.loader import SpecFile, load_spec

ROOT = Path(__file__).parents[2]
AGREEMENT = ROOT / "specs" / "tiny" / "verb-agreement.circuit.yaml"


@pytest.fixture(scope="module")
def tiny() -> BoundModel:
    from pytest_circuits import open_checkpoint

    return open_checkpoint("builtin:tiny").bound


@pytest.fixture(scope="module")
def spec() -> SpecFile:
    return load_spec(AGREEMENT, root=ROOT)


@pytest.fixture(scope="module")
def reference(spec: SpecFile, tiny: BoundModel) -> Measurements:
    return Measurements(spec, tiny)


@pytest.fixture(scope="module")
def main_head(spec: SpecFile) -> Head:
    return spec.spec.roles["number_mover"][0]


@pytest.fixture(scope="module")
def idle_head(main_head: Head) -> Head:
    return replace(main_head, head=(main_head.head + 1) % 4)


def results_of(spec: SpecFile, observed: Measurements, reference: Any, *, identical: bool = False) -> dict[str, Result]:
    comparison = Comparison(
        file=spec,
        checkpoint="changed",
        observed=observed,
        reference=reference,
        reference_name="builtin:tiny",
        identical=identical,
        missing=None,
        random_circuits=lambda: observed.random_circuits,
    )
    return {check: judge(check, comparison) for check in spec.spec.declared}


def red(results: Mapping[str, Result]) -> set[str]:
    return {check for check, result in results.items() if result.verdict is not Verdict.PASS}


def text_of(result: Result) -> str:
    return "\n".join([result.headline, *result.details, *result.warnings])


Gate = Callable[..., dict[str, Result]]


@pytest.fixture(scope="module")
def gate(spec: SpecFile, tiny: BoundModel, reference: Measurements) -> Gate:
    """Judge a changed copy of tiny against tiny."""
    return lambda *changes: results_of(spec, Measurements(spec, changed(tiny, *changes)), reference)


def sentences(spec: SpecFile, *, template: str | None = None, contrary: bool = False) -> list[str]:
    """Return the spec's own prompts with their right verb, or the wrong one."""
    pairs = [pair for pair in pairs_of(spec).pairs if template in (None, pair.template)]
    clean = [f"{pair.clean} {pair.foil if contrary else pair.answer}" for pair in pairs]
    return clean + [f"{pair.corrupt} {pair.answer if contrary else pair.foil}" for pair in pairs]


def test_the_same_checkpoint_passes_and_is_said_to_be_identical(
    spec: SpecFile, tiny: BoundModel, reference: Measurements
) -> None:
    results = results_of(spec, Measurements(spec, tiny), reference, identical=True)

    assert red(results) == set()
    assert "identical to the reference" in text_of(results["heads"])


@pytest.mark.parametrize("rate", [1e-5, 3e-5, 1e-4])
@pytest.mark.parametrize("seed", range(5))
def test_a_benign_fine_tune_passes(gate: Gate, spec: SpecFile, tiny: BoundModel, rate: float, seed: int) -> None:
    tune = trained_on(sentences(spec), tiny.tokenizer, steps=20, rate=rate, seed=seed)

    assert red(gate(tune)) == set()


def test_louder_logits_pass_and_are_called_stronger(gate: Gate) -> None:
    results = gate(scaled_logits(1.3))

    assert red(results) == set()
    assert "stronger" in text_of(results["heads"])


def test_slightly_quieter_logits_pass(gate: Gate) -> None:
    assert red(gate(scaled_logits(0.85))) == set()


def test_half_the_logits_fail_behaviour_and_move_no_share(gate: Gate) -> None:
    results = gate(scaled_logits(0.5))

    assert "behaviour" in red(results)
    assert "same circuit, weaker" in text_of(results["heads"])
    shares = [record for record in results["heads"].records if record.claim == "share"]
    assert shares
    assert all(record.verdict is Verdict.PASS for record in shares)


def test_a_silenced_main_head_fails_behaviour_and_heads(gate: Gate, main_head: Head) -> None:
    results = gate(scaled_head(main_head, 0.0))

    assert {"behaviour", "heads"} <= red(results)
    assert str(main_head) in text_of(results["heads"])


def test_a_halved_main_head_fails_heads(gate: Gate, main_head: Head) -> None:
    assert "heads" in red(gate(scaled_head(main_head, 0.5)))


def test_a_copied_head_fails_by_its_share(gate: Gate, main_head: Head, idle_head: Head) -> None:
    results = gate(copied_head(main_head, idle_head))

    drifted = {r.component for r in results["heads"].records if r.claim == "share" and r.verdict is Verdict.DRIFT}
    assert str(idle_head) in drifted


def test_exchanged_heads_keep_behaviour_and_are_told_as_a_move(gate: Gate, main_head: Head, idle_head: Head) -> None:
    results = gate(swapped_heads(main_head, idle_head))

    assert results["behaviour"].verdict is Verdict.PASS
    assert {"faithfulness", "heads"} <= red(results)
    assert "took over" in text_of(results["heads"])
    assert "by other heads" in text_of(results["heads"])


def test_one_broken_template_fails_its_own_claim(gate: Gate, spec: SpecFile, tiny: BoundModel) -> None:
    names = list(dict.fromkeys(pair.template for pair in pairs_of(spec).pairs))
    broken, kept = sentences(spec, template=names[0], contrary=True), []
    for name in names[1:]:
        kept += sentences(spec, template=name)
    results = gate(trained_on([*kept, *broken * 8], tiny.tokenizer, steps=150, rate=5e-4, seed=0))

    templates = [r for r in results["behaviour"].records if "template" in r.claim and r.verdict is Verdict.DRIFT]
    assert [names[0] in record.message or names[0] in record.claim for record in templates] == [True]

"""The verdicts on planted faults and benign changes of the embedded checkpoint: the table that the gate stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from imagined import compared
from planted import changed, copied_head, scaled_head, scaled_logits, swapped_heads, trained_further, trained_on

from pytest_circuits.checks import judge
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.errors import PromptError
from pytest_circuits.prompts.pairs import pairs_of
from pytest_circuits.records import Record, Result, Verdict
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

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
    comparison = compared(
        observed,
        reference,
        file=spec,
        reference_name="builtin:tiny",
        identical=identical,
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
def test_a_benign_fine_tune_passes(gate: Gate, rate: float, seed: int) -> None:
    assert red(gate(trained_further(steps=20, rate=rate, seed=seed))) == set()


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


def variant(tmp_path: Path, old: str, new: str) -> SpecFile:
    """Return the spec with one change."""
    text = AGREEMENT.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / AGREEMENT.name
    path.write_text(text.replace(old, new), encoding="utf-8")
    return load_spec(path, root=tmp_path)


def test_a_small_named_head_that_is_silenced_fails_by_keep(tmp_path: Path, tiny: BoundModel, main_head: Head) -> None:
    shares = Measurements(load_spec(AGREEMENT, root=ROOT), tiny)
    effect = (shares.clean - shares.floor).mean()
    small = max(
        (name for name in shares.heads if name != str(main_head)),
        key=lambda name: float((shares.clean - shares.heads[name]).mean() / effect),
    )
    spec = variant(tmp_path, f"heads: [{main_head}], role", f"heads: [{main_head}, {small}], role")
    results = results_of(
        spec, Measurements(spec, changed(tiny, scaled_head(parsed(small), 0.0))), Measurements(spec, tiny)
    )

    failing = [r for r in results["heads"].records if r.verdict is Verdict.DRIFT]
    assert {(record.claim, record.component) for record in failing} == {("keep", small)}


def parsed(name: str) -> Head:
    layer, head = name[1:].split("H")
    return Head(int(layer), int(head))


def test_a_circuit_that_random_ones_equal_passes_with_a_warning(
    tmp_path: Path, tiny: BoundModel, reference: Measurements
) -> None:
    controls = "  controls:     {beats_random: 0.90, match: size}\n  heads:        {share"
    spec = variant(tmp_path, "  heads:        {share", controls)
    results = results_of(spec, Measurements(spec, tiny), reference, identical=True)

    assert results["controls"].verdict is Verdict.PASS
    assert any("this claim says nothing" in warning for warning in results["controls"].warnings)


def test_a_task_that_the_model_cannot_do_is_not_evaluated_and_red(tmp_path: Path, tiny: BoundModel) -> None:
    spec = variant(
        tmp_path,
        "verb: {singular: [is, was, has, runs], plural: [are, were, have, run]}",
        "verb: {singular: [lamp, tree, house, book], plural: [one, two, three, four]}",
    )
    reading = Measurements(spec, tiny)
    results = results_of(spec, reading, reading, identical=True)

    assert results["behaviour"].verdict is Verdict.DRIFT
    for check in ("faithfulness", "necessity", "heads"):
        assert results[check].verdict is Verdict.NOT_EVALUATED, check
        assert "a ratio needs at least 10 times that" in text_of(results[check])


def test_the_rewired_checkpoint_keeps_its_behaviour_and_fails_by_its_circuit(
    spec: SpecFile, reference: Measurements, main_head: Head
) -> None:
    from pytest_circuits import open_checkpoint

    results = results_of(spec, Measurements(spec, open_checkpoint("builtin:tiny-rewired").bound), reference)

    assert results["behaviour"].verdict is Verdict.PASS
    assert {"faithfulness", "heads", "roles"} <= red(results)
    assert f"{main_head}  number_mover" in text_of(results["heads"])
    assert "lost" in text_of(results["heads"])
    assert "took over" in text_of(results["heads"])


def in_order(result: Result) -> list[Record]:
    return sorted(result.records, key=lambda r: (r.claim, str(r.component), str(r.template), r.unit))


def test_batches_and_padding_change_no_verdict_and_no_value(
    spec: SpecFile, tiny: BoundModel, reference: Measurements
) -> None:
    """Small batches, and prompts of every length padded into a few large ones, against one length a batch."""
    model = changed(tiny, scaled_logits(0.85))
    prompts = len(reference.templates)
    shuffled = sorted(range(prompts), key=lambda index: (index * 7919) % prompts)
    plain = Measurements(spec, model)
    others = [
        Measurements(spec, model, batch_size=7),
        Measurements(spec, model, together=[shuffled[i : i + 50] for i in range(0, prompts, 50)]),
    ]
    expected = results_of(spec, plain, reference)

    for other in others:
        for part in ("clean", "corrupt", "circuit", "knockout", "floor"):
            assert abs(getattr(other, part) - getattr(plain, part)).max() < 1e-5 * 20, part
        results = results_of(spec, other, reference)
        assert {c: r.verdict for c, r in results.items()} == {c: r.verdict for c, r in expected.items()}
        for check, result in results.items():
            for record, same in zip(in_order(result), in_order(expected[check]), strict=True):
                assert (record.claim, record.component, record.verdict) == (same.claim, same.component, same.verdict)
                assert record.value == pytest.approx(same.value, abs=1e-5)


def test_the_order_of_prompts_changes_no_verdict_and_no_value(tmp_path: Path, tiny: BoundModel) -> None:
    """The rows of a prompt file in reverse: the same strata, the same numbers."""
    succession = ROOT / "specs" / "tiny" / "successor.circuit.yaml"
    head, *rows = succession.with_name("successor.csv").read_text(encoding="utf-8").splitlines()
    verdicts, values = [], []
    for name, order in (("forward", rows), ("backward", rows[::-1])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "successor.csv").write_text("\n".join([head, *order]) + "\n", encoding="utf-8")
        (folder / succession.name).write_text(
            succession.read_text(encoding="utf-8").replace("  controls:     {beats_random: 0.90, match: size}\n", "")
        )
        spec = load_spec(folder / succession.name, root=folder)
        reading = Measurements(spec, tiny)
        results = results_of(spec, reading, reading, identical=True)
        verdicts.append({check: result.verdict for check, result in results.items()})
        records = [record for result in results.values() for record in result.records]
        values.append(sorted((r.check, r.claim, str(r.component), str(r.template), r.value) for r in records))

    assert verdicts[0] == verdicts[1]
    for (*one, value), (*other, same) in zip(*values, strict=True):
        assert one == other
        assert value == pytest.approx(same, abs=1e-5), one


def test_two_measurements_give_identical_records(spec: SpecFile, tiny: BoundModel, reference: Measurements) -> None:
    model = changed(tiny, scaled_logits(0.85))
    first, second = (results_of(spec, Measurements(spec, model), reference) for _ in range(2))

    assert first == second


def test_a_prompt_that_is_longer_than_the_model_is_refused(tmp_path: Path, tiny: BoundModel) -> None:
    spec = variant(tmp_path, 'text: "the {subject} {often}"', 'text: "the {subject} {often}' + " here" * 70 + '"')

    with pytest.raises(PromptError, match="a prompt may have 64 tokens on this model"):
        Measurements(spec, tiny)


def test_a_task_done_the_wrong_way_round_is_not_evaluated_even_beside_a_reference_that_does_the_same(
    tmp_path: Path, tiny: BoundModel
) -> None:
    spec = variant(
        tmp_path,
        "verb: {singular: [is, was, has, runs], plural: [are, were, have, run]}",
        "verb: {singular: [are, were, have, run], plural: [is, was, has, runs]}",
    )
    reading = Measurements(spec, tiny)
    results = results_of(spec, reading, reading, identical=True)

    for check in ("faithfulness", "necessity", "heads"):
        assert results[check].verdict is Verdict.NOT_EVALUATED, check

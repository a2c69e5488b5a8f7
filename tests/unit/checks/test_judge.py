"""What holds for every check: rates, references, laziness, and what must change nothing."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagined import CHECKS, EVERY_CHECK, compared, every_claim, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.errors import BaselineError, MeasurementError, UsageProblem
from pytest_circuits.records import SEVERITY, Verdict

REFERENCE = reading()
OBSERVED = reading(seed=1, shares={"L1H2": 0.6, "L0H3": 0.12}, faithfulness=0.84, effect=0.85)


def numbers(result):
    return [(record.claim, record.component, record.message.split()[0], record.verdict) for record in result.records]


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_a_checkpoint_compared_with_itself_passes_and_is_said_to_be_identical(check):
    result = judge(check, compared(REFERENCE, reading(), file=every_claim(), identical=True))

    assert result.verdict is Verdict.PASS
    assert result.headline.endswith("(identical to the reference builtin:imagined)")
    assert {record.drift for record in result.records} <= {0.0, None}


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_a_noisy_checkpoint_compared_with_itself_never_drifts_from_itself(check):
    """Absolute limits and small heads may be undecided for want of prompts; a drift of zero never is."""
    noisy = reading(spread=0.25, faithfulness=1.0)
    drifts = [
        record
        for record in judge(check, compared(noisy, noisy, file=every_claim())).records
        if record.drift is not None
    ]

    assert {record.verdict for record in drifts} <= {Verdict.PASS}


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_a_result_names_what_it_is_of_and_puts_the_worst_first(check):
    result = judge(check, compared(OBSERVED, REFERENCE, file=every_claim()))

    assert (result.circuit, result.checkpoint, result.check) == ("specs/imagined", "tuned", check)
    assert {(r.circuit, r.checkpoint, r.check) for r in result.records} == {("specs/imagined", "tuned", check)}
    severities = [SEVERITY.index(record.verdict) for record in result.records]
    assert severities == sorted(severities, reverse=True)
    assert result.verdict is result.records[0].verdict
    assert result.line == (35 if check == "heads" else 30)


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_records_are_plain_builtins_and_count_what_they_are_of(check):
    for record in judge(check, compared(OBSERVED, REFERENCE, file=every_claim())).records:
        assert all(type(value) in (str, float, int, list, type(None)) for value in record.as_json().values())
        assert (record.prompts, record.templates) == ((16, 1) if record.claim == "template" else (128, 8))


@pytest.mark.parametrize("check", ["behaviour", "faithfulness", "necessity", "heads", "roles"])
def test_without_a_reference_a_drift_claim_is_an_error_that_says_why(check):
    result = judge(check, compared(REFERENCE, None, missing="no baseline at X:\n  run Y"))

    assert result.verdict is Verdict.ERROR
    assert result.headline == f"{check}: no baseline at X: (no reference)"
    errors = [record for record in result.records if record.verdict is Verdict.ERROR]
    assert {record.message for record in errors} == {"no baseline at X:\n  run Y"}
    assert "  run Y" in result.details


@pytest.mark.parametrize("check", ["behaviour", "faithfulness", "necessity", "roles"])
def test_without_a_reference_absolute_limits_are_still_judged(check):
    records = judge(check, compared(REFERENCE, None, missing="none")).records

    assert {record.claim for record in records if record.verdict is Verdict.PASS} >= {
        "accuracy" if check == "behaviour" else "at_least"
    }


def test_without_a_reason_the_missing_reference_is_explained():
    result = judge("faithfulness", compared(REFERENCE, None))

    assert result.headline.startswith("faithfulness: there is no reference, so nothing can be said about drift.")
    assert any("--circuits-reference" in line for line in result.details)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", [0.5, 5.0])
def test_an_instrument_too_coarse_for_the_limit_is_an_error(check, value):
    result = judge(check, compared(replace(OBSERVED, noise=value), REFERENCE))

    if check != "controls":  # a count of circuits has no noise floor
        assert result.verdict is Verdict.ERROR
        assert "instrument: " in "\n".join([result.headline, *result.details])


@pytest.mark.parametrize("check", ["faithfulness", "necessity", "controls"])
@pytest.mark.parametrize("effect", [0.1, 0.0, -1.0])
def test_a_lost_task_is_not_evaluated(check, effect):
    result = judge(check, compared(reading(seed=1, effect=effect), REFERENCE))

    assert {record.verdict for record in result.records} == {Verdict.NOT_EVALUATED}
    assert result.headline.startswith(f"{check}: task lost: clean - floor is ")


def test_readings_of_other_prompts_are_refused():
    with pytest.raises(MeasurementError, match="expected two readings of the same prompts, found 128 .* and 72"):
        judge("behaviour", compared(REFERENCE, reading(per_template=9)))


def test_a_check_that_the_spec_does_not_declare_is_refused():
    with pytest.raises(UsageProblem, match="declares behaviour, not 'heads'"):
        judge("heads", compared(OBSERVED, REFERENCE, file=spec_file({"behaviour": {}})))


def test_a_name_from_elsewhere_cannot_speak_to_the_terminal():
    result = judge("behaviour", compared(OBSERVED, REFERENCE, reference_name="\x1b[2J\n::error::x"))

    assert result.headline.endswith(r"(reference: \x1b[2J\n::error::x, 11 logits)")


@pytest.mark.parametrize(
    ("metric", "unit"), [("logit_diff", "logits"), ("prob_diff", "of probability"), ("kl", "nats")]
)
def test_the_reference_is_told_with_its_effect_in_the_metrics_unit(metric, unit):
    exact = reading(spread=0.0, unit=12.25)
    result = judge("necessity", compared(OBSERVED, exact, file=spec_file(measure={"metric": metric})))

    assert result.headline.endswith(f"(reference: builtin:imagined, 12.2 {unit})")


class Lazy:
    """A reading that notes what is asked of it, and lacks some parts."""

    def __init__(self, whole, lacking=()):
        self.whole, self.lacking, self.asked = whole, lacking, set()

    def __getattr__(self, part):
        if part in self.lacking:
            raise BaselineError(f"the baseline lacks {part}")
        self.asked.add(part)
        return getattr(self.whole, part)


@pytest.mark.parametrize(
    ("check", "parts"),
    [
        ("behaviour", {"clean", "corrupt", "clean_logit_diff"}),
        ("faithfulness", {"clean", "circuit", "floor"}),
        ("necessity", {"clean", "knockout", "floor"}),
        ("controls", {"clean", "circuit", "floor"}),
        ("heads", {"clean", "corrupt", "clean_logit_diff", "floor", "heads"}),
        ("roles", {"clean", "floor", "heads", "roles"}),
    ],
)
def test_a_check_measures_only_what_it_needs(check, parts):
    observed = Lazy(OBSERVED)
    judge(check, compared(observed, REFERENCE))

    assert observed.asked <= parts | {"templates", "noise"}


def test_the_role_successor_needs_no_forward_at_all():
    only = {"counter": {"heads": ("L0H1",), "role": {"name": "successor"}}}
    observed = Lazy(OBSERVED)
    judge("roles", compared(observed, REFERENCE, file=spec_file({"roles": {}}, circuit=only)))

    assert observed.asked <= {"templates", "roles"}


def test_a_lost_task_is_seen_before_the_circuit_is_run():
    observed = Lazy(reading(effect=0.1), lacking={"circuit", "knockout"})

    for check in ("faithfulness", "necessity", "controls"):
        assert judge(check, compared(observed, REFERENCE, random_circuits=None)).verdict is Verdict.NOT_EVALUATED


def test_a_part_that_the_baseline_lacks_is_its_own_error():
    with pytest.raises(BaselineError, match="the baseline lacks circuit"):
        judge("faithfulness", compared(OBSERVED, Lazy(REFERENCE, lacking={"circuit"})))


def reordered(whole, order):
    """The reading with its prompts in another order."""

    def moved(part):
        if isinstance(part, np.ndarray):
            return part[order]
        if isinstance(part, tuple):
            return tuple(part[index] for index in order)
        return {name: moved(value) for name, value in part.items()} if isinstance(part, dict) else part

    of_words = ("roles", "successor")
    parts = {field.name: moved(getattr(whole, field.name)) for field in fields(whole) if field.name not in of_words}
    return replace(whole, **parts, roles={**whole.roles, "number_mover": moved(whole.roles["number_mover"])})


def scaled(whole, unit):
    """The reading of a metric that is so many times as large."""

    def times(part):
        return {name: times(value) for name, value in part.items()} if isinstance(part, dict) else part * unit

    metric = ("clean", "corrupt", "circuit", "knockout", "floor", "heads", "noise", "attribution")
    return replace(whole, **{name: times(getattr(whole, name)) for name in metric})


@pytest.mark.parametrize("check", EVERY_CHECK)
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_prompts_changes_no_verdict(check, seed):
    order = np.random.default_rng(seed).permutation(128)
    shuffled = judge(check, compared(reordered(OBSERVED, order), reordered(REFERENCE, order), file=every_claim()))

    assert sorted(map(str, numbers(shuffled))) == sorted(
        map(str, numbers(judge(check, compared(OBSERVED, REFERENCE, file=every_claim()))))
    )


@pytest.mark.parametrize("check", EVERY_CHECK)
@settings(max_examples=20)
@given(unit=st.floats(1e-3, 1e3))
def test_the_unit_of_the_metric_changes_no_verdict_and_no_number(check, unit):
    plain = judge(check, compared(OBSERVED, REFERENCE, file=every_claim()))
    changed = judge(check, compared(scaled(OBSERVED, unit), scaled(REFERENCE, unit), file=every_claim()))

    assert numbers(changed) == numbers(plain)
    for one, other in zip(changed.records, plain.records, strict=True):
        assert one.value == pytest.approx(other.value)
        assert one.interval == pytest.approx(other.interval)


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_alone_has_the_verdict_that_it_has_among_others(check):
    """The declared checks share the rate, whichever of them run: nothing else of the others matters."""
    among = judge(check, compared(OBSERVED, REFERENCE))
    other_limits = spec_file({name: {} for name in CHECKS} | {"behaviour": {"loss_at_most": 0.2}})

    assert judge(check, compared(OBSERVED, REFERENCE, file=other_limits)).records == among.records


def test_the_declared_checks_share_the_rate_of_false_alarms():
    """The drift is 3.15 standard errors beyond its limit, p = 0.001: proven at 0.01, not at 0.01 / 6."""
    exact = reading(spread=0.0)
    swing = np.tile([1.0, -1.0], 64)
    error = np.sqrt(16 / 15) / np.sqrt(128)
    observed = replace(exact, circuit=exact.circuit + swing - (1.0 + 3.15 * error))
    alone = judge("faithfulness", compared(observed, exact, file=spec_file({"faithfulness": {}})))
    among = judge("faithfulness", compared(observed, exact))

    assert (alone.verdict, among.verdict) == (Verdict.DRIFT, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("check", CHECKS)
def test_two_prompts_a_template_are_judged_and_one_is_an_error(check):
    two = reading(per_template=2)
    assert judge(check, compared(two, two)).records

    one = reading(per_template=1)
    if check != "controls":
        with pytest.raises(MeasurementError, match="has 1 prompt, a standard error needs at least 2"):
            judge(check, compared(one, one))


def test_a_suite_of_one_stratum_is_judged_once_and_has_no_interval_over_templates():
    whole = replace(OBSERVED, templates=("",) * 128)
    for check in ("behaviour", "heads"):
        result = judge(check, compared(whole, replace(REFERENCE, templates=("",) * 128)))
        assert "template" not in {record.claim for record in result.records}
        assert not any("as a sample" in record.message for record in result.records)


def test_undecided_claims_say_how_many_prompts_would_decide():
    noisy = replace(REFERENCE, circuit=REFERENCE.circuit - np.random.default_rng(0).normal(0.4, 2.3, 128))
    (record,) = (r for r in judge("faithfulness", compared(noisy, REFERENCE)).records if r.claim == "drift")

    assert record.verdict is Verdict.INCONCLUSIVE
    assert "is not proven on either side of its limit 0.1: about " in record.message
    assert record.message.endswith(" prompts in all would decide, there are 128")


def test_undecided_claims_near_their_limit_say_that_no_number_decides():
    near = replace(REFERENCE, circuit=REFERENCE.circuit - np.random.default_rng(0).normal(0.95, 2.3, 128))
    (record,) = (r for r in judge("faithfulness", compared(near, REFERENCE)).records if r.claim == "drift")

    assert record.verdict is Verdict.INCONCLUSIVE
    assert record.message.endswith("within 2 SE of the limit, so no practical n decides")

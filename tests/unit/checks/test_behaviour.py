"""Accuracy and loss, on the whole and in every template."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from imagined import compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict

REFERENCE = reading()
FILE = spec_file({"behaviour": {}})


def judged(observed, reference=REFERENCE, file=FILE):
    return judge("behaviour", compared(observed, reference, file=file))


def only(result, claim):
    (record,) = (record for record in result.records if record.claim == claim)
    return record


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [(1.0, Verdict.PASS), (0.85, Verdict.PASS), (0.8, Verdict.INCONCLUSIVE), (0.7, Verdict.DRIFT), (1.6, Verdict.PASS)],
)
def test_a_loss_is_judged_against_its_limit_and_gains_are_fine(effect, verdict):
    assert only(judged(reading(seed=1, effect=effect)), "loss").verdict is verdict


def test_a_template_that_is_lost_does_not_pass_for_a_wide_limit():
    here = np.array(REFERENCE.templates) == "t3"
    observed = replace(REFERENCE, corrupt=np.where(here, REFERENCE.clean, REFERENCE.corrupt))
    result = judged(observed, file=spec_file({"behaviour": {"loss_at_most": 0.4}}))

    assert [record.template for record in result.records if record.verdict is Verdict.DRIFT] == ["t3"]


def test_the_loss_is_a_ratio_whose_unit_is_uncertain_too():
    """Prompts that all lose the same part leave no doubt about it, however much they differ."""
    effect = REFERENCE.clean - REFERENCE.corrupt
    record = only(judged(replace(REFERENCE, corrupt=REFERENCE.clean - 0.85 * effect)), "loss")

    assert record.interval == pytest.approx((-0.15, -0.15))


def test_the_loss_is_told_in_the_references_unit():
    record = only(judged(reading(effect=0.7, spread=0.0), reading(spread=0.0)), "loss")

    assert (record.value, record.reference, record.unit, record.limit) == (pytest.approx(0.7), 1.0, "D0", 0.2)
    assert record.drift == pytest.approx(-0.3)
    assert record.interval == pytest.approx((-0.3, -0.3))
    assert record.message == (
        "B 1.00 -> 0.70, drift -0.30 [-0.30, -0.30] (templates as a sample [-0.30, -0.30]) is beyond its limit 0.2"
    )


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(128, Verdict.PASS), (124, Verdict.PASS), (115, Verdict.INCONCLUSIVE), (100, Verdict.DRIFT)],
)
def test_accuracy_is_an_exact_binomial(right, verdict):
    differences = np.where(np.arange(128) < right, 1.0, -1.0)
    record = only(judged(replace(REFERENCE, clean_logit_diff=differences)), "accuracy")

    assert (record.verdict, record.value) == (verdict, right / 128)
    assert record.interval[0] < record.value <= record.interval[1]


def test_a_broken_accuracy_is_below_its_limit():
    differences = np.where(np.arange(128) < 64, 1.0, 0.0)
    result = judged(replace(REFERENCE, clean_logit_diff=differences))

    assert result.headline == (
        "behaviour: accuracy 0.50 [0.39, 0.61] is below its limit 0.9 (reference: builtin:imagined, 11 logits)"
    )


def test_an_undecided_accuracy_says_how_many_prompts_would_decide():
    few = reading(per_template=3)
    record = only(judged(few, few), "accuracy")

    assert record.verdict is Verdict.INCONCLUSIVE
    assert record.message == (
        "accuracy 1.00 [0.83, 1.00] is not proven on either side of its limit 0.9:"
        " about 44 prompts in all would decide, there are 24"
    )


def broken_in(template, kept, whole=REFERENCE):
    """The reference, of whose effect one template keeps only a part."""
    here = np.array(whole.templates) == template
    effect = (whole.clean - whole.corrupt) * np.where(here, kept, 1.0)
    return replace(whole, corrupt=whole.clean - effect)


def test_one_broken_template_cannot_hide_in_the_mean():
    result = judged(broken_in("t3", 0.1))

    assert only(result, "loss").verdict is Verdict.PASS
    assert [(r.verdict, r.limit) for r in result.records if "template 't3'" in r.message] == [
        (Verdict.DRIFT, pytest.approx(0.6))
    ]
    assert result.headline.startswith("behaviour: B in template 't3' 1.00 -> 0.10, drift -0.90 [")


@pytest.mark.parametrize(("kept", "verdict"), [(0.5, Verdict.PASS), (0.35, Verdict.DRIFT)])
def test_a_template_is_judged_at_three_times_the_limit(kept, verdict):
    records = judged(broken_in("t0", kept)).records

    assert [record.verdict for record in records if "template 't0'" in record.message] == [verdict]


def test_a_template_that_the_reference_cannot_do_is_not_evaluated():
    weird = broken_in("t6", -0.5)
    result = judged(REFERENCE, weird)

    assert result.verdict is Verdict.NOT_EVALUATED
    assert result.headline.startswith("behaviour: B in template 't6': the reference does not do the task, its clean -")


def test_a_reference_that_cannot_do_the_task_has_no_loss_to_judge():
    result = judged(REFERENCE, reading(effect=-1.0))

    assert only(result, "loss").verdict is Verdict.NOT_EVALUATED
    assert only(result, "loss").message.startswith("B: the reference does not do the task, its clean - corrupt is -11")


def test_limits_come_from_the_spec():
    file = spec_file({"behaviour": {"loss_at_most": 0.5, "accuracy_at_least": 0.99}})
    result = judged(reading(effect=0.7), file=file)

    assert (only(result, "loss").limit, only(result, "loss").verdict) == (0.5, Verdict.PASS)
    assert (only(result, "accuracy").limit, only(result, "accuracy").verdict) == (0.99, Verdict.INCONCLUSIVE)

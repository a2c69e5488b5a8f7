"""Faithfulness: its value, and its drift away from 1."""

from __future__ import annotations

import pytest
from imagined import compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict


def judged(observed, reference, *, spread=0.01, **limits):
    """The verdicts on value and drift of a checkpoint with one faithfulness against a reference with another."""
    now = reading(seed=1, faithfulness=observed, spread=spread)
    before = reading(faithfulness=reference, spread=spread)
    result = judge("faithfulness", compared(now, before, file=spec_file({"faithfulness": limits})))
    return {record.claim: record for record in result.records}


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.9, Verdict.PASS), (0.8, Verdict.INCONCLUSIVE), (0.7, Verdict.DRIFT), (3.0, Verdict.PASS)]
)
def test_the_value_is_at_least_its_limit(value, verdict):
    record = judged(value, value)["at_least"]

    assert (record.verdict, record.limit, record.drift, record.reference) == (verdict, 0.8, None, None)


def test_a_broken_value_is_below_its_limit_and_not_drift():
    record = judged(0.5, 0.5, spread=0.0)["at_least"]

    assert record.message == "F 0.50 [0.50, 0.50] (templates as a sample [0.50, 0.50]) is below its limit 0.8"
    assert record.interval == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        pytest.param(0.9, 0.9, Verdict.PASS, id="unchanged"),
        pytest.param(0.9, 0.84, Verdict.PASS, id="fallen a little"),
        pytest.param(0.9, 0.8, Verdict.INCONCLUSIVE, id="fallen by the limit"),
        pytest.param(0.9, 0.7, Verdict.DRIFT, id="fallen"),
        pytest.param(0.6, 1.0, Verdict.PASS, id="risen to 1"),
        pytest.param(0.6, 1.3, Verdict.PASS, id="risen past 1, but nearer"),
        pytest.param(0.9, 1.15, Verdict.PASS, id="past 1 by little more than it was below"),
        pytest.param(0.9, 1.2, Verdict.INCONCLUSIVE, id="past 1 by the limit more"),
        pytest.param(0.9, 1.3, Verdict.DRIFT, id="far past 1"),
        pytest.param(1.4, 1.0, Verdict.PASS, id="come down to 1"),
        pytest.param(1.4, 0.95, Verdict.PASS, id="come down a little below 1"),
        pytest.param(1.4, 0.9, Verdict.INCONCLUSIVE, id="come down to the limit below 1"),
        pytest.param(1.4, 0.8, Verdict.DRIFT, id="come down below 1"),
        pytest.param(1.4, 1.6, Verdict.DRIFT, id="risen further past 1"),
        pytest.param(1.0, 1.0, Verdict.PASS, id="exactly 1"),
        pytest.param(1.0, 0.8, Verdict.DRIFT, id="fallen from 1"),
        pytest.param(1.0, 1.2, Verdict.DRIFT, id="risen from 1"),
    ],
)
def test_a_fall_or_a_step_away_from_one_is_drift_and_towards_one_is_better(before, now, verdict):
    assert judged(now, before, at_least=0.01)["drift"].verdict is verdict


def test_drift_is_told_signed_with_its_interval():
    record = judged(0.7, 0.9, spread=0.0)["drift"]

    assert (record.value, record.reference, record.drift) == pytest.approx((0.7, 0.9, -0.2))
    assert record.message == (
        "F 0.90 -> 0.70, drift -0.20 [-0.20, -0.20] (templates as a sample [-0.20, -0.20]) is beyond its limit 0.1"
    )


def test_a_fine_limit_is_told_with_enough_decimals():
    record = judged(0.9, 0.9, spread=0.0, drift_at_most=0.004)["drift"]

    assert record.message.startswith("F 0.9000 -> 0.9000, drift ")

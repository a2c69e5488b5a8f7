"""Necessity: its value, and its fall."""

from __future__ import annotations

import pytest
from imagined import compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict


def judged(observed, reference, **limits):
    now, before = reading(seed=1, necessity=observed, spread=0.01), reading(necessity=reference, spread=0.01)
    result = judge("necessity", compared(now, before, file=spec_file({"necessity": limits})))
    return {record.claim: record for record in result.records}


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.95, Verdict.PASS), (0.8, Verdict.INCONCLUSIVE), (0.6, Verdict.DRIFT)]
)
def test_the_value_is_at_least_its_limit(value, verdict):
    assert judged(value, value)["at_least"].verdict is verdict


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (0.95, 0.95, Verdict.PASS),
        (0.95, 0.9, Verdict.PASS),
        (0.95, 0.85, Verdict.INCONCLUSIVE),
        (0.95, 0.75, Verdict.DRIFT),
        (0.5, 1.4, Verdict.PASS),
    ],
)
def test_only_a_fall_is_drift(before, now, verdict):
    assert judged(now, before)["drift"].verdict is verdict


def test_it_is_told_by_its_letter():
    assert judged(0.6, 0.95)["drift"].message.startswith("N 0.95 -> 0.60, drift -0.35 [-0.35, -0.35] (")

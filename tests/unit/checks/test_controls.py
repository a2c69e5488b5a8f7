"""The circuit against random circuits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from imagined import compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.errors import MeasurementError
from pytest_circuits.gate.controls import RandomCircuits
from pytest_circuits.records import Verdict

EXACT = reading(spread=0.0, faithfulness=0.7)
"""Its distance from 1 is 0.3."""


def judged(*values, possible=1000, exhaustive=False, observed=EXACT):
    random = RandomCircuits(values, possible, exhaustive)
    comparison = compared(observed, EXACT, file=spec_file({"controls": {}}), random_circuits=lambda: random)
    return judge("controls", comparison)


def sampled(beaten):
    """100 drawn circuits, of which so many are further from 1."""
    return judged(*[0.1] * beaten, *[0.75] * (100 - beaten))


@pytest.mark.parametrize(
    ("beaten", "verdict"),
    [
        (100, Verdict.PASS),
        (97, Verdict.PASS),
        (96, Verdict.INCONCLUSIVE),
        (83, Verdict.INCONCLUSIVE),
        (80, Verdict.DRIFT),
    ],
)
def test_drawn_circuits_are_judged_by_the_exact_binomial(beaten, verdict):
    assert sampled(beaten).verdict is verdict


def test_drawn_circuits_are_told_with_their_exact_interval():
    (record,) = sampled(60).records

    assert (record.claim, record.value, record.limit, record.unit) == ("beats_random", 0.6, 0.9, "fraction")
    assert record.message == "beaten random circuits 0.60 [0.48, 0.71] (60 of 100 drawn) is below its limit 0.9"


def test_too_few_draws_say_how_many_would_decide():
    assert sampled(96).records[0].message.endswith("random circuits in all would decide, there are 100")


@pytest.mark.parametrize(("beaten", "verdict"), [(36, Verdict.PASS), (35, Verdict.DRIFT)])
def test_all_possible_circuits_are_compared_exactly(beaten, verdict):
    result = judged(*[0.1] * beaten, *[0.75] * (40 - beaten), possible=40, exhaustive=True)

    assert result.verdict is verdict
    assert result.records[0].interval is None
    assert f"({beaten} of all 40)" in result.records[0].message


def test_the_distance_from_one_counts_on_both_sides():
    result = judged(*[1.31] * 10, *[0.69] * 10, *[1.29] * 10, possible=30, exhaustive=True)

    assert result.records[0].value == pytest.approx(20 / 30)


def test_ties_lose():
    perfect = replace(EXACT, circuit=EXACT.clean)
    result = judged(*[1.0] * 10, *[0.1] * 30, possible=40, exhaustive=True, observed=perfect)

    assert result.records[0].value == 30 / 40


@pytest.mark.parametrize(("noise", "beaten"), [(0.0, 20), (0.01, 10)])
def test_what_is_further_from_one_by_rounding_or_noise_is_not_beaten(noise, beaten):
    """EXACT has F = 0.7: ten circuits equal it up to rounding, ten up to the noise of 0.01 of 10 logits."""
    near = [0.7 - 1e-11] * 10 + [0.6995] * 10 + [0.1] * 10
    result = judged(*near, possible=30, exhaustive=True, observed=replace(EXACT, noise=noise))

    assert result.records[0].value == beaten / 30


def test_fewer_than_twenty_possible_circuits_say_nothing():
    result = judged(*[0.75] * 19, possible=19, exhaustive=True)

    assert result.verdict is Verdict.PASS
    assert result.warnings == ("only 19 other circuits of this size exist, fewer than 20: this claim says nothing",)
    assert judged(*[0.75] * 20, possible=20, exhaustive=True).verdict is Verdict.DRIFT


def test_random_circuits_that_do_as_well_say_nothing():
    result = judged(*[0.8] * 51, *[0.1] * 49)

    assert result.verdict is Verdict.PASS
    assert result.warnings == (
        "a random circuit of this size does as well (51 of 100 have a faithfulness within 0.2 of 1):"
        " this claim says nothing",
    )
    assert judged(*[0.8] * 50, *[0.1] * 50).verdict is Verdict.DRIFT


def test_no_possible_circuit_at_all_says_nothing():
    result = judged(possible=0, exhaustive=True)

    assert (result.verdict, result.records[0].value) == (Verdict.PASS, None)


def test_a_random_circuit_without_a_value_is_an_error():
    with pytest.raises(MeasurementError, match="expected a finite faithfulness of each random circuit"):
        judged(*[0.1] * 99, float("nan"))


def test_without_random_circuits_the_claim_cannot_be_measured():
    with pytest.raises(MeasurementError, match="expected random circuits to compare with, found none"):
        judge("controls", compared(EXACT, EXACT, random_circuits=None))


def test_it_needs_no_reference():
    random = RandomCircuits((0.1,) * 100, 1000, False)
    result = judge("controls", compared(EXACT, None, random_circuits=lambda: random))

    assert result.verdict is Verdict.PASS
    assert result.headline.endswith("(no reference)")

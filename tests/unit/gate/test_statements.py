"""What is proven inside a limit, and what beyond it, against the tests of scipy.stats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pytest_circuits.gate.estimates import Estimate, mean, strata_of
from pytest_circuits.gate.statements import AboveZero, AllOf, AnyOf, AtMost, ShareAtLeast, Within, at_least

DRIFTS = np.random.default_rng(3).normal(0.08, 0.05, 20)
ESTIMATE = mean(DRIFTS, strata_of(["only"] * 20)).estimate


def test_at_most_is_the_one_sided_t_test_in_both_directions():
    beyond = scipy.stats.ttest_1samp(DRIFTS, 0.05, alternative="greater").pvalue
    inside = scipy.stats.ttest_1samp(DRIFTS, 0.12, alternative="less").pvalue

    assert AtMost(ESTIMATE, 0.05).p == pytest.approx(beyond)
    assert AtMost(ESTIMATE, 0.12).inside(inside * 1.001)
    assert not AtMost(ESTIMATE, 0.12).inside(inside * 0.999)


def test_at_least_is_the_mirror_of_at_most():
    inside = scipy.stats.ttest_1samp(DRIFTS, 0.05, alternative="greater").pvalue

    assert at_least(ESTIMATE, 0.12).p == pytest.approx(scipy.stats.ttest_1samp(DRIFTS, 0.12, alternative="less").pvalue)
    assert at_least(ESTIMATE, 0.05).inside(inside * 1.001)
    assert not at_least(ESTIMATE, 0.05).inside(inside * 0.999)


@pytest.mark.parametrize("value", [-0.3, -0.1, 0.0, 0.02, 0.25])
def test_within_has_the_p_of_both_tails_and_is_inside_when_both_one_sided_tests_are(value):
    estimate = Estimate(value, 0.04, 12)
    tails = [scipy.stats.t.sf((abs(value) - 0.1) / 0.04, 12), scipy.stats.t.sf((abs(value) + 0.1) / 0.04, 12)]
    margin = scipy.stats.t.ppf(0.99, 12) * 0.04

    assert Within(estimate, 0.1).p == pytest.approx(sum(tails))
    assert Within(estimate, 0.1).inside(0.01) == (-0.1 <= value - margin and value + margin <= 0.1)


@pytest.mark.parametrize(("value", "inside", "p"), [(0.0, True, 1.0), (0.1, True, 1.0), (0.11, False, 0.0)])
@pytest.mark.parametrize("statement", [AtMost, Within])
def test_without_spread_the_value_is_compared(statement, value, inside, p):
    assert (statement(Estimate(value), 0.1).inside(0.01), statement(Estimate(value), 0.1).p) == (inside, p)


def test_without_spread_rounding_does_not_decide():
    assert at_least(Estimate(0.1 * 8), 0.8).inside(0.01)
    assert AtMost(Estimate(0.3 - 0.2), 0.1).inside(0.01)
    assert AtMost(Estimate(0.1 + 0.2 - 0.2), 0.1).p == 1.0


def test_without_spread_a_fall_within_both_sides_is_seen_on_the_negative_side_too():
    assert Within(Estimate(-0.11), 0.1).p == 0.0


@pytest.mark.parametrize("value", [0.095, -0.095])
@pytest.mark.parametrize("se", [0.0, 1e-6])
def test_the_noise_floor_widens_what_must_be_inside_and_takes_off_what_is_beyond(value, se):
    assert Within(Estimate(value, se, 10, noise=0.004), 0.1).inside(0.01)
    assert not Within(Estimate(value, se, 10, noise=0.006), 0.1).inside(0.01)
    beyond = math.copysign(0.105, value)
    assert Within(Estimate(beyond, se, 10, noise=0.004), 0.1).p < 1e-6
    assert Within(Estimate(beyond, se, 10, noise=0.006), 0.1).p > 0.9


def test_the_noise_floor_is_told_as_a_part_of_the_limit():
    assert AtMost(Estimate(0, noise=0.02), 0.2).instrument == pytest.approx(0.1)
    assert at_least(Estimate(0, noise=0.02), 0.8).instrument == pytest.approx(0.025)
    assert Within(Estimate(0, noise=0.02), 0.1).instrument == pytest.approx(0.2)
    assert ShareAtLeast(3, 4, 0.5).instrument == 0.0


def test_all_of_needs_every_part_and_is_false_when_one_is():
    good, open_, bad = (AtMost(Estimate(value, 0.02, 30), 0.1) for value in (0.0, 0.1, 0.3))

    assert AllOf((good, good)).inside(0.01)
    assert not AllOf((good, open_)).inside(0.01)
    assert AllOf((good, bad)).p == pytest.approx(2 * bad.p)
    assert AllOf((good, good)).p == 1.0
    assert AllOf((good, bad)).margin == bad.margin


def test_any_of_needs_one_part_at_its_share_of_the_rate_and_is_false_when_all_are():
    good, bad, worse = (AtMost(Estimate(value, 0.02, 30), 0.1) for value in (0.0, 0.3, 0.4))
    rate = float(scipy.stats.t.sf(5, 30))

    assert AnyOf((good, bad)).inside(2.01 * rate)
    assert not AnyOf((good, bad)).inside(1.99 * rate)
    assert AnyOf((bad, worse)).p == bad.p
    assert AnyOf((good, bad)).margin == good.margin


def test_composed_statements_tell_the_noisiest_part_and_grow_with_their_parts():
    parts = AtMost(Estimate(0.0, 0.02, 30, noise=0.001), 0.1), AtMost(Estimate(0.0, 0.04, 30, noise=0.002), 0.1)

    for kind in (AllOf, AnyOf):
        assert kind(parts).instrument == pytest.approx(0.02)
        assert kind(parts).at(4) == kind(tuple(part.at(4) for part in parts))


@given(trials=st.integers(1, 400), data=st.data(), limit=st.floats(0.05, 0.99))
def test_a_share_is_tested_by_the_exact_binomial(trials, data, limit):
    hits = data.draw(st.integers(0, trials))
    statement = ShareAtLeast(hits, trials, limit)
    above = scipy.stats.binomtest(hits, trials, limit, alternative="greater").pvalue
    below = scipy.stats.binomtest(hits, trials, limit, alternative="less").pvalue

    assert statement.p == pytest.approx(below)
    assert statement.inside(above * 1.0001) or hits == 0  # no hit proves nothing, at any rate
    assert not statement.inside(above * 0.9999) or above < 1e-300  # too small to be told from its neighbours


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (7, 10), (118, 128)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(hits, trials):
    exact = scipy.stats.binomtest(hits, trials).proportion_ci(0.98, method="exact")

    assert ShareAtLeast(hits, trials, 0.5).interval(0.01) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("limit", "expected"), [(0.9, (234, 250)), (0.99, (235, 250))])
def test_more_trials_keep_the_share_rounded_towards_the_limit(limit, expected):
    grown = ShareAtLeast(15, 16, limit).at(250 / 16)

    assert (grown.hits, grown.trials) == expected


def test_the_margin_is_in_standard_errors_and_negative_beyond():
    assert AtMost(Estimate(0.3, 0.1, 5), 0.1).margin == pytest.approx(-2.0)
    assert Within(Estimate(-0.3, 0.1, 5), 0.1).margin == pytest.approx(-2.0)
    assert ShareAtLeast(8, 16, 0.75).margin == pytest.approx(-2.0)
    assert ShareAtLeast(16, 16, 0.75).margin == math.inf
    assert AtMost(Estimate(0.3), 0.1).margin == -math.inf
    assert AtMost(Estimate(0.1), 0.1).margin == 0.0


def test_above_zero_is_the_one_sided_t_test_in_both_directions():
    inside = scipy.stats.ttest_1samp(DRIFTS, 0.0, alternative="greater").pvalue

    assert AboveZero(ESTIMATE).inside(inside * 1.001)
    assert not AboveZero(ESTIMATE).inside(inside * 0.999)
    assert AboveZero(-ESTIMATE).p == pytest.approx(inside)
    assert AboveZero(ESTIMATE).margin == pytest.approx(ESTIMATE.value / ESTIMATE.se)
    assert AboveZero(ESTIMATE).at(4.0).estimate.se == ESTIMATE.se / 2


def test_above_zero_has_no_scale_so_noise_leaves_it_open_and_is_never_an_error():
    assert AboveZero(Estimate(0.01, noise=0.02)).instrument == 0.0
    assert not AboveZero(Estimate(0.01, noise=0.02)).inside(0.01)
    assert AboveZero(Estimate(-0.01, noise=0.02)).p == 1.0
    assert AboveZero(Estimate(0.03, noise=0.02)).inside(0.01)


def test_zero_itself_is_neither_above_zero_nor_below():
    assert not AboveZero(Estimate(0.0)).inside(0.01)
    assert AboveZero(Estimate(0.0)).p == 1.0

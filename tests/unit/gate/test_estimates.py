"""Values, standard errors and intervals, against loops that follow the formulas word for word."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pytest_circuits.errors import MeasurementError
from pytest_circuits.gate.estimates import Estimate, mean, ratio, ratio_of_means, strata_of

TEMPLATES = ("a",) * 5 + ("b",) * 9 + ("c",) * 2
RNG = np.random.default_rng(1)
VALUES = RNG.normal(3.0, 1.0, 16)
OTHERS = RNG.normal(5.0, 2.0, 16)


def groups(values, templates=TEMPLATES):
    found = {}
    for value, template in zip(values, templates, strict=True):
        found.setdefault(template, []).append(float(value))
    return list(found.values())


def naive_mean(values):
    means = [sum(group) / len(group) for group in groups(values)]
    return sum(means) / len(means)


def naive_error(values):
    """The stratified standard error and Satterthwaite's degrees of freedom."""
    parts, squares = [], []
    for group in groups(values):
        centre = sum(group) / len(group)
        variance = sum((value - centre) ** 2 for value in group) / (len(group) - 1)
        part = variance / (3**2 * len(group))
        parts.append(part)
        squares.append(part**2 / (len(group) - 1))
    return math.sqrt(sum(parts)), sum(parts) ** 2 / sum(squares)


def test_a_mean_weighs_templates_equally_whatever_their_size():
    assert mean(VALUES, strata_of(TEMPLATES)).value == pytest.approx(naive_mean(VALUES))


def test_standard_error_and_degrees_of_freedom_are_those_of_the_formula():
    estimate = mean(VALUES, strata_of(TEMPLATES)).estimate

    assert (estimate.se, estimate.df) == pytest.approx(naive_error(VALUES))


def test_one_template_gives_the_classic_t_interval():
    estimate = mean(VALUES, strata_of(["only"] * 16)).estimate
    classic = scipy.stats.ttest_1samp(VALUES, 0).confidence_interval(0.98)

    assert estimate.interval(0.01) == pytest.approx((classic.low, classic.high))


def test_templates_as_a_sample_give_the_t_interval_of_their_means():
    means = [sum(group) / len(group) for group in groups(VALUES)]
    classic = scipy.stats.ttest_1samp(means, 0).confidence_interval(0.9)

    assert mean(VALUES, strata_of(TEMPLATES)).over_templates(0.05) == pytest.approx((classic.low, classic.high))


def test_one_template_is_no_sample_of_templates():
    assert mean(VALUES, strata_of(["only"] * 16)).over_templates(0.05) is None


def test_a_ratio_is_one_of_means_and_each_prompt_moves_it_by_its_linearisation():
    found = ratio(VALUES, OTHERS, strata_of(TEMPLATES))
    value = naive_mean(VALUES) / naive_mean(OTHERS)
    influence = [(num - value * den) / naive_mean(OTHERS) for num, den in zip(VALUES, OTHERS, strict=True)]

    assert found.value == pytest.approx(value)
    assert found.influence == pytest.approx(influence)
    assert found.estimate.se == pytest.approx(naive_error(influence)[0])


def test_the_linearised_error_of_a_ratio_is_that_of_its_redrawn_values():
    templates, random = ["a"] * 200 + ["b"] * 200, np.random.default_rng(2)
    redrawn, told = [], []
    for _ in range(400):
        den = random.normal(10, 2, 400)
        num = 0.6 * den + random.normal(0, 2, 400)
        found = ratio(num, den, strata_of(templates))
        redrawn.append(found.value)
        told.append(found.estimate.se)

    assert np.mean(told) == pytest.approx(np.std(redrawn, ddof=1), rel=0.1)


def test_a_denominator_of_zero_is_an_error_that_says_so():
    with pytest.raises(MeasurementError, match="denominator is 0"):
        ratio_of_means(VALUES, np.zeros(16), strata_of(TEMPLATES))


def test_drift_of_a_reading_from_itself_is_zero_with_zero_error_exactly():
    share = ratio(VALUES, OTHERS, strata_of(TEMPLATES))
    again = ratio(VALUES.copy(), OTHERS.copy(), strata_of(TEMPLATES))
    drift = (again - share).estimate

    assert (drift.value, drift.se, drift.interval(0.01)) == (0.0, 0.0, (0.0, 0.0))


def test_drift_is_paired_what_both_readings_share_cancels():
    strata = strata_of(TEMPLATES)
    drift = mean(VALUES + 100 * OTHERS + 1.0, strata) - mean(VALUES * 0.5 + 100 * OTHERS, strata)

    assert drift.estimate.se == pytest.approx(naive_error(VALUES * 0.5)[0])


def test_a_constant_column_has_no_spread_whatever_its_rounding():
    estimate = mean(np.full(16, 0.1), strata_of(TEMPLATES)).estimate

    assert (estimate.se, estimate.df) == (0.0, math.inf)


def test_two_prompts_have_an_interval_of_one_degree_of_freedom():
    estimate = mean(np.array([1.0, 2.0]), strata_of(["a", "a"])).estimate

    assert (estimate.value, estimate.se, estimate.df) == pytest.approx((1.5, 0.5, 1.0))


def test_a_single_prompt_in_a_template_is_an_error_and_not_a_zero_width_interval():
    with pytest.raises(MeasurementError, match="template 'b' has 1 prompt, a standard error needs at least 2"):
        mean(np.array([1.0, 2.0, 3.0]), strata_of(["a", "a", "b"])).estimate  # noqa: B018


def test_no_prompts_are_an_error():
    with pytest.raises(MeasurementError, match="there are no prompts"):
        strata_of([])


def test_noise_adds_up_over_a_difference_and_scales_with_the_unit():
    strata = strata_of(TEMPLATES)
    drift = mean(VALUES, strata, noise=0.25) * 2 - mean(OTHERS, strata, noise=0.1) + 5

    assert drift.noise == pytest.approx(0.6)
    assert drift.estimate.interval(0.5) == pytest.approx((drift.value - 0.6, drift.value + 0.6))


def test_noise_of_a_ratio_is_in_its_own_unit_and_grows_with_it():
    strata = strata_of(TEMPLATES)

    assert ratio(VALUES, OTHERS, strata, noise=0.3).noise == pytest.approx(0.3 / naive_mean(OTHERS))
    assert ratio(OTHERS, VALUES, strata, noise=0.3).noise == pytest.approx(
        0.3 / naive_mean(VALUES) * naive_mean(OTHERS) / naive_mean(VALUES)
    )


def test_more_prompts_shrink_the_error_by_the_root_of_their_number():
    assert Estimate(1.0, 0.4, 10, 0.1).at(4) == Estimate(1.0, 0.2, 40, 0.1)


@given(order=st.permutations(range(16)))
def test_the_order_of_the_prompts_changes_nothing(order):
    shuffled = ratio(VALUES[order], OTHERS[order], strata_of([TEMPLATES[index] for index in order]))
    sorted_ = ratio(VALUES, OTHERS, strata_of(TEMPLATES))

    assert shuffled.value == pytest.approx(sorted_.value)
    assert shuffled.estimate.se == pytest.approx(sorted_.estimate.se)
    assert shuffled.estimate.df == pytest.approx(sorted_.estimate.df)


@given(unit=st.floats(1e-3, 1e3))
def test_the_unit_of_the_metric_changes_no_ratio(unit):
    strata = strata_of(TEMPLATES)
    scaled, plain = ratio(VALUES * unit, OTHERS * unit, strata), ratio(VALUES, OTHERS, strata)

    assert scaled.value == pytest.approx(plain.value)
    assert scaled.estimate.se == pytest.approx(plain.estimate.se)


@pytest.mark.parametrize("part", [0.3, 0.77, 0.85, 1.3])
def test_prompts_in_one_proportion_leave_no_error_of_the_ratio(part):
    """Rounding is not spread: else it would decide a value at its limit."""
    values = np.random.default_rng(3).normal(10, 3, 16)
    found = mean(part * values, strata_of(TEMPLATES)).over(mean(values, strata_of(TEMPLATES))).estimate

    assert (found.value, found.se) == (pytest.approx(part), 0.0)

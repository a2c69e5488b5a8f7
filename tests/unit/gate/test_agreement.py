"""Agreement of two attributions: ranks against scipy's, the largest heads against sets, chance against counting."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from pytest_circuits.errors import MeasurementError
from pytest_circuits.gate.agreement import chance_of_jaccard, jaccard, spearman, top


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_the_correlation_of_ranks_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=40).round(1), rng.normal(size=40).round(1)

    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_spearman_of_the_same_order_is_exactly_one_and_of_the_opposite_minus_one() -> None:
    values = np.array([0.1, -3.0, 7.0, 0.0])

    assert spearman(values, 2 * values + 1) == 1.0
    assert spearman(values, -values) == pytest.approx(-1.0)


def test_without_any_order_nothing_agrees() -> None:
    with pytest.raises(MeasurementError, match="heads should differ in their effects, and every one has the same"):
        spearman(np.zeros(4), np.arange(4.0))


def test_the_largest_are_so_by_size_and_ties_belong_to_them() -> None:
    values = np.array([0.5, -2.0, 0.0, 1.0, -1.0])

    assert top(values, 1) == {1}
    assert top(values, 2) == {1, 3, 4}
    assert top(values, 9) == {0, 1, 3, 4}  # a head without an effect is none of the largest


def test_jaccard_counts_the_heads_that_both_have() -> None:
    one, other = np.array([3.0, 2.0, 1.0, 0.1]), np.array([3.0, 0.1, -2.0, 1.0])

    assert jaccard(one, other, 2) == pytest.approx(1 / 3)
    assert jaccard(one, one, 2) == 1.0


def test_no_effect_at_all_is_refused() -> None:
    with pytest.raises(MeasurementError, match="some head should have an effect, and none has in either reading"):
        jaccard(np.zeros(3), np.zeros(3), 2)


@pytest.mark.parametrize(("heads", "count"), [(6, 2), (7, 3), (5, 4), (3, 3), (3, 9)])
def test_chance_is_the_mean_over_all_pairs_of_sets(heads: int, count: int) -> None:
    sets = [set(one) for one in combinations(range(heads), min(count, heads))]
    every = [len(a & b) / len(a | b) for a in sets for b in sets]

    assert chance_of_jaccard(heads, count) == pytest.approx(np.mean(every))


@pytest.mark.parametrize("count", [12, 14, 26])
def test_chance_is_near_the_ratio_of_mean_sizes(count: int) -> None:
    assert chance_of_jaccard(144, count) == pytest.approx(count / (2 * 144 - count), rel=0.05)

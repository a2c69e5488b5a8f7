"""The smallest circuit: equal to a brute-force search where the ranking is right, and never with a part to spare."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_circuits.attribution.search import greedy_runs, smallest
from pytest_circuits.errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Keeps = Callable[[Sequence[Sequence[int]]], Sequence[float]]


def adding(weights: Sequence[float]) -> Keeps:
    """Circuits of which each part keeps its own weight."""
    return lambda circuits: [sum(weights[part] for part in circuit) for circuit in circuits]


def needing(*needed: int) -> Keeps:
    """Circuits that keep all where every needed part is there, and nothing otherwise."""
    return lambda circuits: [float(set(needed) <= set(circuit)) for circuit in circuits]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(1, 100))
def test_where_parts_add_up_it_is_as_small_as_any(weights: list[int], percent: int) -> None:
    """The first parts of the right ranking are the smallest circuit there is: brute force finds no smaller one."""
    total, ranked = sum(weights), sorted(range(len(weights)), key=lambda part: -weights[part])
    least = total * percent / 100
    found = smallest(ranked, adding(weights), least=least)

    assert sum(weights[part] for part in found.members) == found.kept >= least
    for size in range(1, len(found.members)):
        assert all(sum(weights[part] for part in one) < least for one in combinations(ranked, size))


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1, max_size=6))
def test_a_wrong_ranking_costs_runs_and_leaves_nothing_to_spare(ranked: list[int], needed: set[int]) -> None:
    found = smallest(ranked, needing(*needed), least=0.9)

    assert set(found.members) == needed
    assert found.kept == 1.0
    assert found.without == (0.0,) * len(needed)


@given(st.permutations(range(8)), st.data())
def test_each_member_is_needed_whatever_a_circuit_keeps(ranked: list[int], data: st.DataObject) -> None:
    """Keeping need not grow with a circuit: then it is not the smallest of all, and still none of it can go."""
    table: dict[frozenset[int], float] = {frozenset(range(8)): 1.0}

    def keeps(circuits: Sequence[Sequence[int]]) -> list[float]:
        return [table.setdefault(frozenset(one), data.draw(st.floats(0, 1))) for one in circuits]

    found = smallest(ranked, keeps, least=0.5)

    assert table[frozenset(found.members)] == found.kept >= 0.5
    assert len(found.members) == 1 or all(left < 0.5 for left in found.without)
    assert found.runs == len(table) or found.runs == len(table) - 1  # the whole may not have been asked for


def test_it_costs_far_less_than_greedy_search() -> None:
    ranked = [*range(0, 500, 50), *(part for part in range(500) if part % 50)]
    found = smallest(ranked, needing(*range(0, 500, 50)), least=0.9)

    assert len(found.members) == 10
    assert found.runs < 30
    assert greedy_runs(500, 10) == sum(range(11, 501)) == 125_195


def test_no_circuit_is_run_twice() -> None:
    asked: list[frozenset[int]] = []

    def keeps(circuits: Sequence[Sequence[int]]) -> list[float]:
        asked.extend(map(frozenset, circuits))
        return needing(0, 7, 3)(circuits)

    assert smallest([*range(16)], keeps, least=0.5).runs == len(asked) == len(set(asked))


def test_where_the_whole_keeps_too_little_nothing_is_found() -> None:
    with pytest.raises(MeasurementError, match="keeps 0.90 was searched, and not even all 3 parts of the model"):
        smallest([0, 1, 2], adding([0.1, 0.1, 0.1]), least=0.9)

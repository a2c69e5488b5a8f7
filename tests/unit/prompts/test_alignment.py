"""Which corrupt position a clean one corresponds to."""

from __future__ import annotations

import pytest

from pytest_circuits.prompts.alignment import common_ends, counterparts, replaced_from
from pytest_circuits.spec.schema import Ablation

ENDS = [
    ("abcd", "abxd", (2, 1)),
    ("abcd", "abcd", (4, 0)),
    ("abcd", "abxyd", (2, 1)),
    ("abd", "abxyd", (2, 1)),
    ("xb", "yb", (0, 1)),
    ("aa", "aaa", (2, 0)),
    ("aba", "ababa", (3, 0)),
    ("a", "b", (0, 0)),
]


@pytest.mark.parametrize(("clean", "corrupt", "expected"), ENDS)
def test_the_common_ends_never_overlap(clean: str, corrupt: str, expected: tuple[int, int]) -> None:
    prefix, suffix = common_ends(list(map(ord, clean)), list(map(ord, corrupt)))

    assert (prefix, suffix) == expected
    assert clean[:prefix] == corrupt[:prefix]
    assert clean[len(clean) - suffix :] == corrupt[len(corrupt) - suffix :]


def test_prompts_of_equal_length_correspond_one_to_one() -> None:
    assert counterparts([1, 2, 3], [1, 9, 3]) == (0, 1, 2)


def test_of_unequal_lengths_the_ends_correspond_and_the_rest_has_nothing() -> None:
    assert counterparts([1, 2, 7, 3, 4], [1, 9, 3, 4]) == (0, -1, -1, 2, 3)
    assert counterparts([1, 2, 3, 4], [1, 8, 9, 3, 4]) == (0, -1, 3, 4)


REPLACED = [
    ("resample", (0, 1, 2), "all", (0, 1, 2)),
    ("resample", (1,), "subject", (-1, 1, -1)),
    ("resample", (2,), "last", (-1, -1, 2)),
    ("zero", (0, 1, 2), "all", (0, 1, 2)),
    ("mean", (2,), "last", (-1, -1, 2)),
]


@pytest.mark.parametrize(("value", "at", "positions", "expected"), REPLACED)
def test_only_named_positions_are_replaced(
    value: str, at: tuple[int, ...], positions: str, expected: tuple[int, ...]
) -> None:
    ablation = Ablation(value=value, positions=positions)  # type: ignore[arg-type]

    assert replaced_from([1, 2, 3], [1, 9, 3], at, ablation) == expected


def test_the_last_position_takes_the_last_of_a_longer_twin() -> None:
    assert replaced_from([1, 2], [1, 8, 9, 2], (1,), Ablation(positions="last")) == (-1, 3)
    assert replaced_from([1, 2], [1, 8, 9], (1,), Ablation(positions="last")) == (-1, 2)


def test_zero_and_mean_ask_nothing_of_the_twin() -> None:
    assert replaced_from([1, 2], [1, 8, 2], (0, 1), Ablation(value="mean")) == (0, 1)
    assert replaced_from([1, 2], None, (0, 1), Ablation(value="zero")) == (0, 1)

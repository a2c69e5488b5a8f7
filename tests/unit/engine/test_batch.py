"""Prompts are batched by where their runs start, and what comes before is shared with the clean or the corrupt run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from pairs import random_pairs

from pytest_circuits.engine.batch import batch_of, bucketed, first_changed, shared_tokens

if TYPE_CHECKING:
    from pytest_circuits.engine.batch import Value
    from pytest_circuits.prompts.encode import Encoded

CPU = torch.device("cpu")


def pair(clean: list[int], corrupt: list[int] | None, source: list[int]) -> Encoded:
    (row,) = random_pairs((5,))
    twin = None if corrupt is None else tuple(corrupt)
    return replace(row, clean=tuple(clean), corrupt=twin, source=tuple(source))


ALL, LAST, NONE = [0, 1, 2, 3], [-1, -1, -1, 3], [-1, -1, -1, -1]


@pytest.mark.parametrize(
    ("clean", "corrupt", "source", "value", "start", "shared"),
    [
        ([1, 2, 3, 4], [1, 2, 9, 4], ALL, "resample", 2, 2),
        ([1, 2, 3, 4], [1, 2, 9, 4], ALL, "zero", 0, 2),
        ([1, 2, 3, 4], [1, 2, 9, 4], ALL, "mean", 0, 2),
        ([1, 2, 3, 4], [1, 2, 9, 4], LAST, "resample", 3, 2),
        ([1, 2, 3, 4], [1, 2, 9, 4], LAST, "zero", 3, 2),
        ([1, 2, 3, 4], [1, 2, 9, 4], NONE, "resample", 3, 2),  # something must run: the last token
        ([1, 2, 3, 4], [8, 2, 3, 4], ALL, "resample", 0, 0),
        ([1, 2, 3, 4], [1, 2, 3, 9], ALL, "resample", 3, 3),
        ([1, 2, 3, 4], None, ALL, "zero", 0, 0),
        ([1, 2, 3, 4], [1, 7, 8, 3, 4], [0, -1, 3, 4], "resample", 2, 1),  # aligned by the ends; 2 is left over
        ([1, 2, 3, 4], [1, 2, 4], [0, 1, -1, 2], "resample", 3, 2),
        ([1, 2, 3, 4], [1, 2], [-1, -1, -1, 1], "resample", 3, 1),  # the twin's last token runs too
    ],
)
def test_a_run_starts_where_a_value_may_change(
    clean: list[int], corrupt: list[int] | None, source: list[int], value: Value, start: int, shared: int
) -> None:
    row = pair(clean, corrupt, source)

    assert first_changed(row, value) == start
    assert shared_tokens(row) == shared


def test_a_batch_starts_where_the_first_of_its_rows_does() -> None:
    rows = [*random_pairs((7,), prefix=3), *random_pairs((9,), prefix=2)]
    batch = batch_of(rows, [0, 1], CPU, "resample")

    assert (batch.start, batch.shared) == (2, 2)
    assert batch.clean.shape == (2, 9)
    assert batch.clean_lengths.tolist() == [7, 9]
    assert batch.source[0, 7:].tolist() == [-1, -1]


def test_prompts_of_one_length_that_start_together_are_batched_in_their_order() -> None:
    rows = [*random_pairs((7, 5, 7, 7)), *random_pairs((7, 5), prefix=2)]

    assert bucketed(rows, "resample", 2) == [[1], [5], [0, 2], [3], [4]]
    assert bucketed(rows, "zero", 8) == [[1, 5], [0, 2, 3, 4]]
    assert bucketed([pair([1, 2, 3, 4], None, ALL)] * 2, "zero", 8) == [[0, 1]]
    twins = [pair([1, 2, 3, 4], twin, ALL) for twin in ([9, 2, 3], [9, 2], [9, 2, 4])]
    assert bucketed(twins, "zero", 8) == [[1], [0, 2]]  # no twin is padded either

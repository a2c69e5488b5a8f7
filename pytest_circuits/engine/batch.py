"""Encoded pairs as tensors: prompts that run together in one forward."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..prompts.alignment import NOTHING, common_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int

    from ..prompts.encode import Encoded

Value = Literal["resample", "zero", "mean"]


@dataclass(frozen=True)
class Batch:
    """Prompts of one forward; rows that are shorter than the longest are padded on the right.

    Attributes:
        indices: which prompts these are.
        source: for each clean position, the corrupt position whose value a resample patch takes; -1 keeps the
            position's own value, and so does padding.
        answers: the answer's token and the foil's.
        start: the first clean position that an ablation may change, in any row; what comes before is the clean run's.
        shared: first tokens that the prompts have in common with their twins; at most `start`.
    """

    indices: tuple[int, ...]
    clean: Int[Tensor, "batch seq"]
    clean_lengths: Int[Tensor, " batch"]
    corrupt: Int[Tensor, "batch corrupt_seq"] | None
    corrupt_lengths: Int[Tensor, " batch"] | None
    source: Int[Tensor, "batch seq"]
    answers: Int[Tensor, "batch 2"]
    start: int
    shared: int

    @property
    def rows(self) -> int:
        """The number of prompts."""
        return len(self.indices)


def bucketed(encoded: Sequence[Encoded], value: Value, size: int) -> list[list[int]]:
    """Return indices in groups of at most `size` that start at one position and have one length: nothing is padded.

    Shorter prompts come first; within a group the order is kept.
    """
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for index, row in enumerate(encoded):
        groups[len(row.clean), len(row.corrupt or ()), first_changed(row, value)].append(index)
    return [group[at : at + size] for _, group in sorted(groups.items()) for at in range(0, len(group), size)]


def batch_of(encoded: Sequence[Encoded], indices: Sequence[int], device: torch.device, value: Value) -> Batch:
    """Return the named prompts as one batch; all of them have a corrupt twin, or none has."""
    rows = [encoded[index] for index in indices]
    clean, clean_lengths = _padded([row.clean for row in rows], 0, device)
    twins = [row.corrupt for row in rows if row.corrupt is not None]
    corrupt, corrupt_lengths = _padded(twins, 0, device) if twins else (None, None)
    return Batch(
        indices=tuple(indices),
        clean=clean,
        clean_lengths=clean_lengths,
        corrupt=corrupt,
        corrupt_lengths=corrupt_lengths,
        source=_padded([row.source for row in rows], NOTHING, device)[0],
        answers=torch.tensor([(row.answer, row.foil) for row in rows], device=device),
        start=min(first_changed(row, value) for row in rows),
        shared=min(shared_tokens(row) for row in rows),
    )


def first_changed(row: Encoded, value: Value) -> int:
    """Return the first clean position that an ablation may change; the last where it changes none.

    In front of the first token that differs, a resample patch puts a value in its own place. Some token always runs:
    the padding of a batch is behind the shortest row's last.
    """
    prefix = shared_tokens(row) if value == "resample" else 0
    kept = (at for at, source in enumerate(row.source) if source != NOTHING and not (source == at and at < prefix))
    return next(kept, len(row.clean) - 1)


def shared_tokens(row: Encoded) -> int:
    """Return how many first tokens a prompt and its twin have in common, each keeping one that is run."""
    if row.corrupt is None:
        return 0
    prefix, _ = common_ends(row.clean, row.corrupt)
    return min(prefix, len(row.clean) - 1, len(row.corrupt) - 1)


def _padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows of unequal length as one tensor, and their lengths."""
    lengths = [len(row) for row in rows]
    filled = [[*row, *[filler] * (max(lengths) - len(row))] for row in rows]
    return torch.tensor(filled, device=device), torch.tensor(lengths, device=device)

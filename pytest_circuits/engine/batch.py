"""Encoded pairs as tensors: prompts that run together in one forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int

    from ..prompts.encode import Encoded


@dataclass(frozen=True)
class Batch:
    """Prompts of one forward; rows that are shorter than the longest are padded on the right.

    `source` names, for each clean position, the corrupt position whose value a resample patch takes; -1 keeps the
    position's own value, and so does padding.
    """

    indices: tuple[int, ...]
    clean: Int[Tensor, "batch seq"]
    clean_lengths: Int[Tensor, " batch"]
    corrupt: Int[Tensor, "batch corrupt_seq"] | None
    corrupt_lengths: Int[Tensor, " batch"] | None
    source: Int[Tensor, "batch seq"]
    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]


def batch_of(encoded: Sequence[Encoded], indices: Sequence[int], device: torch.device) -> Batch:
    """Return the named prompts as one batch; all of them have a corrupt twin, or none has."""
    rows = [encoded[i] for i in indices]
    clean, clean_lengths = _padded([row.clean for row in rows], 0, device)
    twins = [row.corrupt for row in rows if row.corrupt is not None]
    corrupt, corrupt_lengths = _padded(twins, 0, device) if twins else (None, None)
    return Batch(
        indices=tuple(indices),
        clean=clean,
        clean_lengths=clean_lengths,
        corrupt=corrupt,
        corrupt_lengths=corrupt_lengths,
        source=_padded([row.source for row in rows], -1, device)[0],
        answer=torch.tensor([row.answer for row in rows], device=device),
        foil=torch.tensor([row.foil for row in rows], device=device),
    )


def _padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows of unequal length as one tensor, and their lengths."""
    lengths = [len(row) for row in rows]
    filled = [[*row, *[filler] * (max(lengths) - len(row))] for row in rows]
    return torch.tensor(filled, device=device), torch.tensor(lengths, device=device)

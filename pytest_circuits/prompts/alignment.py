"""Which position of the corrupt prompt a position of the clean one corresponds to, and which of them are replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.schema import Ablation

NOTHING = -1
"""Stands for no counterpart, or for a position that keeps its own value."""


def common_ends(clean: Sequence[int], corrupt: Sequence[int]) -> tuple[int, int]:
    """Return the lengths of the common prefix and, in what is left of the shorter one, of the common suffix."""
    shorter = min(len(clean), len(corrupt))
    prefix = 0
    while prefix < shorter and clean[prefix] == corrupt[prefix]:
        prefix += 1
    suffix = 0
    while suffix < shorter - prefix and clean[-1 - suffix] == corrupt[-1 - suffix]:
        suffix += 1
    return prefix, suffix


def counterparts(clean: Sequence[int], corrupt: Sequence[int]) -> tuple[int, ...]:
    """Return the corrupt position of each clean position.

    Equal lengths correspond one to one. Else the common prefix counts from the start, the common suffix from the end,
    and what is left over has no counterpart.
    """
    if len(clean) == len(corrupt):
        return tuple(range(len(clean)))
    prefix, suffix = common_ends(clean, corrupt)
    left_over = len(clean) - prefix - suffix
    return (*range(prefix), *[NOTHING] * left_over, *range(len(corrupt) - suffix, len(corrupt)))


def replaced_from(
    clean: Sequence[int], corrupt: Sequence[int] | None, at: Sequence[int], ablation: Ablation
) -> tuple[int, ...]:
    """Return, for each clean position, where its replacement comes from; `NOTHING` where it keeps its own value.

    Args:
        clean: token ids, of length n.
        corrupt: token ids of the twin, None where there is none.
        at: the clean positions that `ablation.positions` names.
        ablation: zero and mean need no twin: a replaced position then stands for itself.
    """
    if corrupt is None or ablation.value != "resample":
        partners = tuple(range(len(clean)))
    elif ablation.positions == "last":
        partners = (*[NOTHING] * (len(clean) - 1), len(corrupt) - 1)
    else:
        partners = counterparts(clean, corrupt)
    return tuple(partner if position in at else NOTHING for position, partner in enumerate(partners))

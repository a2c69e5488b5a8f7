"""How two attributions agree: the order of all heads, and which are the largest, beside what chance would give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import comb

from ..errors import MeasurementError

if TYPE_CHECKING:
    from jaxtyping import Float

    PerHead = Float[np.ndarray, "heads"]


def spearman(one: PerHead, other: PerHead) -> float:
    """Return the correlation of the ranks of two effects over the same heads; equal values share their mean rank.

    Raises:
        MeasurementError: one of them gives every head the same, so that there is no order to agree with.
    """
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (one, other)]
    product = float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1])
    if product == 0.0:
        raise MeasurementError(
            "heads should differ in their effects, and every one has the same.\n"
            "  There is no order to agree with. Look at the checkpoint and at the prompts."
        )
    return float(ranks[0] @ ranks[1]) / math.sqrt(product)


def _ranks(values: PerHead) -> PerHead:
    """Return each value's rank from 0 on, that of equal values being the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])


def top(values: PerHead, count: int) -> frozenset[int]:
    """Return the heads of the `count` largest sizes; those that are as large as the last of them belong to them."""
    sizes = np.abs(values)
    least = np.sort(sizes)[-min(count, len(sizes))]
    return frozenset(np.flatnonzero((sizes >= least) & (sizes > 0)).tolist())


def jaccard(one: PerHead, other: PerHead, count: int) -> float:
    """Return what share of the heads that are among the largest in either are so in both.

    Raises:
        MeasurementError: no head has any effect in either.
    """
    first, second = top(one, count), top(other, count)
    if not first | second:
        raise MeasurementError(
            "some head should have an effect, and none has in either reading.\n"
            "  There are no largest heads to agree on. Look at the checkpoint and at the prompts."
        )
    return len(first & second) / len(first | second)


def chance_of_jaccard(heads: int, count: int) -> float:
    """Return the mean Jaccard index of two sets of `count` heads drawn at random from `heads`."""
    count = min(count, heads)
    both = np.arange(max(0, 2 * count - heads), count + 1)
    ways = comb(count, both) * comb(heads - count, count - both)
    return float((ways / ways.sum()) @ (both / (2 * count - both)))

"""The check `attribution`: the heads that attribution finds are still those that it found in the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..gate.agreement import chance_of_jaccard, jaccard, spearman, top
from ..gate.effects import of_head
from ..gate.estimates import Estimate
from ..gate.limits import model_heads
from ..gate.statements import at_least
from ..records import Verdict
from .case import Case

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..gate.effects import Effects
    from ..records import Result
    from . import Comparison
    from .case import Claim

    PerHead = Float[np.ndarray, "heads"]

ROUNDED = 1e-6
"""An effect below this part of the largest is what float32 left of sums that should be 0, whatever the noise."""
SHOWN = 5
"""Of the heads that have left, and of those that have entered, so many are told."""


def judge(comparison: Comparison) -> Result:
    """Return the verdict on the order of all heads by their mean effect, and on which of them are the largest.

    Both are compared on the declared prompts, not estimated. With `on_fall: warn` an agreement below its limit passes.
    """
    case = Case(comparison, "attribution")
    order = case.claim("spearman", "correlation", "spearman_at_least", called="spearman over all heads")
    largest = case.claim("jaccard", "fraction", "jaccard_at_least", called=f"jaccard of the {case.limits.top} largest")
    if case.reference is None:
        return case.result(case.settle([case.without_reference(order), case.without_reference(largest)]))
    both = Both(case.observed, case.reference, tuple(map(str, model_heads(comparison.file.spec))), case.limits.top)
    largest = replace(largest, note=f"(chance {chance_of_jaccard(len(both.heads), both.count):.2f})")
    claims = [_judged(order, both.spearman), _judged(largest, both.jaccard)]
    fallen = [claim for claim in claims if claim.statement is None or not claim.statement.inside(case.missed)]
    if case.limits.on_fall == "fail" or not fallen:
        result = case.result(case.settle(claims))
        return replace(result, details=(*result.details, *([both.moved] if fallen and both.moved else [])))
    told = [f"{claim.told()}, limit {claim.limit:.3g}" for claim in claims]
    forgiven = [
        replace(claim, statement=None).unjudged(f"{one} (a fall is a warning here)", Verdict.PASS)
        if claim in fallen
        else claim
        for claim, one in zip(claims, told, strict=True)
    ]
    return case.result(case.settle(forgiven), warnings=["; ".join([*told, *([both.moved] if both.moved else [])])])


def _judged(claim: Claim, value: float) -> Claim:
    return replace(claim, value=value, statement=at_least(Estimate(value), claim.limit))


@dataclass(frozen=True, eq=False)
class Both:
    """The mean effects of the same heads in the checkpoint and in the reference, and how they agree.

    What is not above the noise of either reading is 0 in both: rounding would give idle heads an order.
    """

    observed: Effects
    reference: Effects
    heads: tuple[str, ...]
    count: int

    @cached_property
    def now(self) -> PerHead:
        """The checkpoint's mean effects, templates weighing equally."""
        return self._told_apart(self._means[0])

    @cached_property
    def before(self) -> PerHead:
        """The reference's."""
        return self._told_apart(self._means[1])

    @cached_property
    def spearman(self) -> float:
        """The rank correlation of signed effects; MeasurementError where all heads of a reading have the same."""
        return spearman(self.now, self.before)

    @cached_property
    def jaccard(self) -> float:
        """The Jaccard index of the largest; MeasurementError where no head has any effect."""
        return jaccard(self.now, self.before, self.count)

    @property
    def moved(self) -> str:
        """Which heads have left the largest, and which have entered; empty where none has."""
        now, before = (top(effects, self.count) for effects in (self.now, self.before))
        left = sorted(before - now, key=lambda head: -abs(self.before[head]))
        entered = sorted(now - before, key=lambda head: -abs(self.now[head]))
        return "; ".join(
            f"{word}: {self._of(heads)}" for word, heads in (("left", left), ("entered", entered)) if heads
        )

    def _of(self, heads: list[int]) -> str:
        told = [f"{self.heads[head]} {self.before[head]:z.3g} -> {self.now[head]:z.3g}" for head in heads[:SHOWN]]
        return ", ".join(told) + (f" and {len(heads) - SHOWN} more" if len(heads) > SHOWN else "")

    @cached_property
    def _means(self) -> tuple[PerHead, PerHead]:
        return _means(self.observed, self.heads), _means(self.reference, self.heads)

    def _told_apart(self, means: PerHead) -> PerHead:
        largest = max(float(np.abs(each).max()) for each in self._means)
        least = max(self.observed.noise, self.reference.noise, ROUNDED * largest)
        return np.where(np.abs(means) > least, means, 0.0)


def _means(effects: Effects, heads: tuple[str, ...]) -> PerHead:
    """Return each head's mean effect on the prompts in view.

    Raises:
        MeasurementError: a head is missing, or a number of it is not finite.
    """
    found = effects.reading.attribution
    rows = (effects.rows(f"attribution to {head}", of_head(found, head, "attribution")) for head in heads)
    return np.array([effects.strata.mean(row) for row in rows])

"""One role in two readings: what a head lost of it, and whether other heads of the model took that over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..gate.limits import per_template, scaled
from ..gate.scores import Scores
from ..gate.statements import ROUNDING, AnyOf, AtMost
from .case import decimals, interval_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .case import Case, Claim

SHOWN = 3
"""Of the heads that have risen so many are told."""


@dataclass(frozen=True, eq=False)
class Shift:
    """How a role has moved between the heads of the model, on the whole or on one of its tasks.

    Attributes:
        now, before: the scores of the checkpoint and of the reference.
        limit: by how much a head's score may fall; what moved by less is taken for a fluctuation.
        mass_limit: by how much the sum over all heads may fall, in the unit of a sum that is at most 1.
        rate: at which a head is proven to have risen.
        task: the task, or None for the whole.
    """

    now: Scores
    before: Scores
    limit: float
    mass_limit: float
    rate: float
    task: str | None = None

    @property
    def called(self) -> str:
        """What messages call the role."""
        return self.now.key if self.task is None else f"{self.now.key} of {self.task!r}"

    @cached_property
    def drifts(self) -> dict[str, float]:
        """The heads whose score moved by more than its limit, with the drift, what rose most first.

        A fall counts as soon as it is seen, a rise only where it is proven: heads that fluctuate take nothing over.
        """
        both = ((head, self.now.score(head, self.task), self.before.score(head, self.task)) for head in self.now.heads)
        moved = {head: (now - before).estimate for head, now, before in both}
        return {
            head: drift.value
            for head, drift in sorted(moved.items(), key=lambda item: -item[1].value)
            if drift.interval(self.rate)[0] > self.limit + ROUNDING or drift.value < -self.limit - ROUNDING
        }

    @property
    def risen(self) -> list[str]:
        """The heads whose score is proven to have risen by more than a score may fall."""
        return [head for head, drift in self.drifts.items() if drift > 0]

    @property
    def taken_over(self) -> bool:
        """Whether heads have risen by as much as heads have fallen, but for the mass's limit.

        The mass alone does not say so: of a role of which many heads have a little it is large, and so is its limit.
        """
        return bool(self.risen) and sum(self.drifts.values()) >= -self.mass_limit - ROUNDING

    @cached_property
    def mass_kept(self) -> AtMost:
        """The statement that the sum over all heads of the model has not fallen beyond its limit."""
        now, before = self.now.mass(self.task), self.before.mass(self.task)
        return AtMost((before - now).estimate, scaled(self.mass_limit, before.value))

    def against(self, heads: Sequence[str]) -> str:
        """Return which heads work against the role by more than a score may fall, and did not before; or nothing.

        What such a head undoes no other head makes up for: scores are clipped at 0, so their sum does not show it.
        """
        digits = f"z.{decimals(self.limit)}f"
        found = [
            f"{head} works against the role ({now.value:{digits}}), which no other head makes up for"
            for head in heads
            if (now := self.now.signed(head, self.task)).value < -self.limit - ROUNDING
            and self.before.signed(head, self.task).value >= -self.limit - ROUNDING
        ]
        return "; ".join(found)

    def told(self, rate: float) -> str:
        """Return who has risen, and what became of the sum over all heads."""
        more = f" and {len(self.risen) - SHOWN} more" if len(self.risen) > SHOWN else ""
        risen = f"risen: {self._of(self.risen[:SHOWN])}{more}" if self.risen else self._none
        return f"{risen}; all heads: {self._mass(rate)}"

    def fate(self, fallen: Sequence[str], rate: float) -> str:
        """Return what became of the role of heads that fell, with the interval of the sum that leaves out `rate`."""
        moved = self.taken_over and self.mass_kept.inside(rate)
        word = "moved" if moved else "is not shown to have moved" if self.risen else "was lost"
        told = [self._of(fallen), self.told(rate), self.against(fallen)]
        return f"the role {self.called} {word}: {'; '.join(filter(None, told))}."

    @property
    def _none(self) -> str:
        return f"no head is proven to have risen by more than {self.limit:.3g}"

    def _of(self, heads: Sequence[str]) -> str:
        digits = f"z.{decimals(self.limit)}f"
        return ", ".join(
            f"{head} {self.before.score(head, self.task).value:{digits}}"
            f" -> {self.now.score(head, self.task).value:{digits}}"
            for head in heads
        )

    def _mass(self, rate: float) -> str:
        digits = f"z.{decimals(self.limit)}f"
        now, before, kept = self.now.mass(self.task), self.before.mass(self.task), self.mass_kept
        interval = (
            "" if self.now.kind.from_weights else f" {interval_of((-kept.estimate).interval(rate), f'+{digits}')}"
        )
        drift = f"drift {now.value - before.value:+{digits}}{interval}"
        return f"{before.value:{digits}} -> {now.value:{digits}}, {drift}, limit {kept.limit:.3g}"


@dataclass(frozen=True, eq=False)
class Compared:
    """One role of the spec, by its key, in both readings."""

    case: Case
    key: str

    @cached_property
    def now(self) -> Scores:
        """The scores of the checkpoint under test."""
        return Scores(self.case.observed, self.key)

    @cached_property
    def before(self) -> Scores | None:
        """The scores of the reference, if there is one."""
        return None if self.case.reference is None else Scores(self.case.reference, self.key)

    @cached_property
    def lost(self) -> str | None:
        """Why the role's scores mean nothing, or None where they do."""
        if not self.now.kind.needs_ratio:
            return None
        if self.case.task_lost is not None:
            return self.case.task_lost
        for whose, scores in (("in the reference ", self.before), ("", self.now)):
            if scores is not None and (reason := scores.no_ratio()) is not None:
                return f"no ratio: {whose}{reason}"
        return None

    def shift(self, task: str | None = None) -> Shift | None:
        """Return how the role has moved; where it needs shares, a live reading measures those of all heads now."""
        if self.before is None:
            return None
        if task not in self._shifts:
            drift, mass = self.case.limits.drift_at_most, self.case.limits.mass_drift_at_most
            limits = [drift, drift if mass is None else mass]
            limit, mass_limit = limits if task is None else map(per_template, limits)
            self._shifts[task] = Shift(self.now, self.before, limit, mass_limit, self.case.missed, task)
        return self._shifts[task]

    @cached_property
    def _shifts(self) -> dict[str | None, Shift]:
        return {}

    def unless_moved(self, claim: Claim, fall: AtMost, task: str | None) -> Claim:
        """Return a claim on a head's fall, which a move forgives where the spec says so.

        Each of the two ways to hold gets half of the rate. Where the first is proven alone, no other head is asked for.
        """
        if self.case.limits.on_move == "fail" or fall.inside(self.case.missed / 2):
            return claim
        shift, alone = self.shift(task), replace(claim, statement=AnyOf((fall, fall)))
        if shift is None:
            return alone
        if against := shift.against(shift.now.heads):
            return replace(alone, note=f"{claim.note} ({against})".strip())
        if not shift.taken_over:
            return alone
        told = f"({shift.told(self.case.missed)})"
        return replace(claim, statement=AnyOf((fall, shift.mass_kept)), note=f"{claim.note} {told}".strip())

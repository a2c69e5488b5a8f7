"""The score of a role: the smallest of what it is made of, for one head, beside all heads, and summed over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MeasurementError
from ..records import PER_PROMPT
from ..spec.roles import kind_of
from .effects import LEAST_STANDARD_ERRORS, finite, in_errors, is_solid, of_head
from .estimates import Statistic, mean, strata_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records import OfRole, Samples
    from ..spec.roles import Factor, RoleKind
    from .effects import Effects

TURNED = ("share", "direct", "path")
"""The factors that a role's sign turns."""
OF_LOGITS = ("direct", "backup")
"""The factors that are parts of the clean logit difference."""
EXACTLY = strata_of(("weights", "weights"))
"""Where a number from weights has its influence, which is 0: it has no sampling error."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one role in one reading, by head; what a score needs is read when it is first asked for.

    A score is the smallest of the role's factors after the sign, and at least 0: each factor alone is high for heads
    that do something else. Attention alone is near 1 for an idle head that looks and writes nothing. A prompt's
    influence is that on whichever factor is the smallest; clipping keeps it, so that a score near 0 is not called
    certain.
    """

    effects: Effects
    key: str

    @cached_property
    def kind(self) -> RoleKind:
        """What the role is made of."""
        return kind_of(self.key)

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Every head of the model. Where the role needs shares, a live reading measures them in one sweep now."""
        return tuple(self.effects.reading.heads if "share" in self.kind.factors else self._read)

    def score(self, head: str, task: str | None = None) -> Statistic:
        """Return a head's score; with a task, that on its words alone."""
        smallest = self.signed(head, task)
        return replace(smallest, value=max(0.0, smallest.value))

    def signed(self, head: str, task: str | None = None) -> Statistic:
        """Return what a head's score is before it is clipped: below 0 the head works against its role."""
        if (head, task) not in self._known:
            self._known[head, task] = min(self._turned(head, task), key=lambda factor: factor.value)
        return self._known[head, task]

    def factor(self, factor: Factor, head: str, task: str | None = None) -> Statistic:
        """Return one of the numbers that a score is the smallest of, before the sign.

        Raises:
            MeasurementError: it was not measured, or a number of it is not finite.
        """
        if factor == "share":
            return self.effects.share(head)
        if factor == "words":
            numbers = np.concatenate([values for name, values in self.words(head).items() if task in (None, name)])
            return Statistic(float(numbers.mean()), np.zeros(2), EXACTLY)
        if factor == "repeats":
            values = self._numbers(head, self._sequences(head))
            noise = self.effects.noise if self.kind.unit == "logits" else 0.0
            return mean(values, strata_of(("repeated sequences",) * len(values)), noise=noise)
        values = self.effects.rows(f"{factor} of {head}", self._numbers(head, factor))
        if factor == "attention":
            return mean(values, self.effects.strata)
        return self.effects.part_of_total(values) if factor == "path" else self.effects.part_of_logits(values)

    def words(self, head: str) -> Mapping[str, Samples]:
        """Return a number a token for each task of a role that is read from weights."""
        tasks = of_head(self._read, head, self.key)
        if not tasks:
            raise MeasurementError(
                f"{head} {self.key}: expected a score on at least one task, found none.\n"
                "  A role that was not measured cannot pass. Measure again; report it if it stays."
            )
        return {task: self._numbers(head, task) for task in tasks}

    def samples(self, head: str) -> dict[str, int]:
        """Return how many numbers there are of what is not read on the prompts, by name: sequences, or tokens."""
        return {
            name: len(values) for name, values in of_head(self._read, head, self.key).items() if name not in PER_PROMPT
        }

    def percentile(self, head: str) -> float:
        """Return the part of the model's other heads whose score is lower; equal ones are not."""
        own = self.score(head).value
        others = [self.score(other).value for other in self.heads if other != head]
        return sum(other < own for other in others) / len(others)

    def mass(self, task: str | None = None) -> Statistic:
        """Return the sum of the scores of all heads of the model."""
        return reduce(add, (self.score(head, task) for head in self.heads))

    def no_ratio(self, errors: float = LEAST_STANDARD_ERRORS) -> str | None:
        """Return why parts of the clean logit difference mean nothing here, or None where they do or are not asked."""
        if set(OF_LOGITS).isdisjoint(self.kind.factors) or is_solid(self.effects.logits.estimate, errors):
            return None
        return f"the clean logit difference is {in_errors(self.effects.logits.estimate, errors)}"

    @cached_property
    def _known(self) -> dict[tuple[str, str | None], Statistic]:
        return {}

    @cached_property
    def _read(self) -> OfRole:
        roles = self.effects.reading.roles
        if self.key not in roles:
            raise MeasurementError(
                f"roles: expected what the role {self.key!r} is made of, found none.\n"
                "  A role that was not measured cannot pass. Measure again; report it if it stays."
            )
        return roles[self.key]

    def _turned(self, head: str, task: str | None) -> list[Statistic]:
        return [
            self.factor(factor, head, task) * (self.kind.sign if factor in TURNED else 1.0)
            for factor in self.kind.factors
        ]

    def _sequences(self, head: str) -> str:
        """Return the one name that is not of prompts: it says how many tokens are repeated."""
        names = tuple(self.samples(head))
        if len(names) != 1:
            raise MeasurementError(
                f"{head} {self.key}: expected numbers of repeated sequences of one length, found"
                f" {', '.join(map(repr, sorted(names))) or 'none'}.\n"
                "  A role that was not measured cannot pass. Measure again; report it if it stays."
            )
        return names[0]

    def _numbers(self, head: str, name: str) -> Samples:
        """Return the numbers that a head has under a name, checked to be there and finite."""
        named = of_head(self._read, head, self.key)
        values = np.asarray(named.get(name, ()), dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise MeasurementError(
                f"{head} {self.key}: expected numbers of {name!r}, found none.\n"
                "  A role that was not measured cannot pass. Measure again; report it if it stays."
            )
        return finite(f"{name!r} of {head}", values, "place")


def refuse_other_samples(observed: Scores, reference: Scores, head: str) -> None:
    """Raise MeasurementError where two readings of a head are of other words, or of other repeated sequences."""
    refuse_other_counts(f"{head} {observed.key}", observed.samples(head), reference.samples(head))


def refuse_other_counts(of: str, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raise MeasurementError where two readings do not have as many numbers under the same names."""
    if found != expected:
        raise MeasurementError(
            f"{of}: expected the reference's {_counted(expected)}; found {_counted(found)}.\n"
            "  Numbers of different words or sequences do not compare. Update the baseline with this tokenizer"
            " and context length."
        )


def _counted(samples: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {name!r}" for name, count in sorted(samples.items())) or "none"

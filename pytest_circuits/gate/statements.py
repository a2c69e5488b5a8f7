"""What a claim says of an estimate, and the two things that can be proven of it: inside its limit, or beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scipy.special import bdtr, bdtrc, bdtri, stdtr

if TYPE_CHECKING:
    from .estimates import Estimate, Interval

ROUNDING = 1e-9
"""Where there is no sampling error, values are compared up to the rounding of their arithmetic."""


class Statement(Protocol):
    """A statement about the checkpoint that can be proven, or proven false."""

    def inside(self, rate: float) -> bool:
        """Return whether it is proven: were it false, that would happen with probability `rate` at most."""

    @property
    def p(self) -> float:
        """The probability, were it true, of numbers that speak so strongly against it."""

    @property
    def margin(self) -> float:
        """How far inside its limit the estimate lies, in standard errors; negative beyond."""

    @property
    def instrument(self) -> float:
        """The noise floor, as a part of the limit."""

    def at(self, factor: float) -> Statement:
        """Return the same estimate from `factor` times as many prompts."""


@dataclass(frozen=True)
class AtMost:
    """The estimated quantity is at most `limit`: one-sided."""

    estimate: Estimate
    limit: float

    def inside(self, rate: float) -> bool:
        """Return whether the upper bound at `rate`, noise added, is within the limit."""
        return self.estimate.value + self.estimate.half_width(rate) <= self.limit + self._slack

    @property
    def p(self) -> float:
        """P(t >= (value - noise - limit) / SE)."""
        excess = self.estimate.value - self.estimate.noise - self.limit
        if self.estimate.se == 0.0:
            return 0.0 if excess > ROUNDING else 1.0
        return float(stdtr(self.estimate.df, -excess / self.estimate.se))

    @property
    def margin(self) -> float:
        """(limit - value) / SE."""
        return _over(self.limit - self.estimate.value, self.estimate.se)

    @property
    def instrument(self) -> float:
        """The noise floor, as a part of the limit."""
        return _over(self.estimate.noise, abs(self.limit))

    def at(self, factor: float) -> AtMost:
        """Return the same estimate from `factor` times as many prompts."""
        return AtMost(self.estimate.at(factor), self.limit)

    @property
    def _slack(self) -> float:
        return ROUNDING if self.estimate.se == 0.0 else 0.0


def at_least(estimate: Estimate, limit: float) -> AtMost:
    """Return the statement that the estimated quantity is at least `limit`."""
    return AtMost(-estimate, -limit)


@dataclass(frozen=True)
class AboveZero:
    """The estimated quantity is positive. Zero sets no scale, so the noise floor only widens the interval."""

    estimate: Estimate

    def inside(self, rate: float) -> bool:
        """Return whether the lower bound at `rate`, noise taken off, is positive."""
        return self.estimate.value - self.estimate.half_width(rate) > 0

    @property
    def p(self) -> float:
        """P(t >= (-value - noise) / SE)."""
        return at_least(self.estimate, 0.0).p

    @property
    def margin(self) -> float:
        """value / SE."""
        return at_least(self.estimate, 0.0).margin

    @property
    def instrument(self) -> float:
        """None: there is no limit that it could be a part of."""
        return 0.0

    def at(self, factor: float) -> AboveZero:
        """Return the same estimate from `factor` times as many prompts."""
        return AboveZero(self.estimate.at(factor))


@dataclass(frozen=True)
class Within:
    """The estimated quantity is within `limit` of 0, on both sides: two one-sided tests."""

    estimate: Estimate
    limit: float

    def inside(self, rate: float) -> bool:
        """Return whether both bounds at `rate` are within the limit."""
        return self._larger.inside(rate)

    @property
    def p(self) -> float:
        """P(t >= (|d| - limit) / SE) + P(t >= (|d| + limit) / SE), for d with the noise taken off."""
        size, se = max(0.0, abs(self.estimate.value) - self.estimate.noise), self.estimate.se
        if se == 0.0:
            return self._larger.p
        tails = stdtr(self.estimate.df, [(self.limit - size) / se, -(self.limit + size) / se])
        return float(tails.sum())

    @property
    def margin(self) -> float:
        """(limit - |d|) / SE."""
        return self._larger.margin

    @property
    def instrument(self) -> float:
        """The noise floor, as a part of the limit."""
        return self._larger.instrument

    def at(self, factor: float) -> Within:
        """Return the same estimate from `factor` times as many prompts."""
        return Within(self.estimate.at(factor), self.limit)

    @property
    def _larger(self) -> AtMost:
        """The side on which the estimate lies; where it is proven inside, the other side is as well."""
        return AtMost(self.estimate if self.estimate.value >= 0 else -self.estimate, self.limit)


@dataclass(frozen=True)
class AllOf:
    """Every part holds. All must be proven; it is false as soon as one is, which Bonferroni pays for."""

    parts: tuple[Statement, ...]

    def inside(self, rate: float) -> bool:
        """Return whether every part is proven: an intersection-union test, which needs no correction."""
        return all(part.inside(rate) for part in self.parts)

    @property
    def p(self) -> float:
        """The smallest part's p, times their number."""
        return min(1.0, len(self.parts) * min(part.p for part in self.parts))

    @property
    def margin(self) -> float:
        """The smallest part's margin."""
        return min(part.margin for part in self.parts)

    @property
    def instrument(self) -> float:
        """The largest part's noise."""
        return max(part.instrument for part in self.parts)

    def at(self, factor: float) -> AllOf:
        """Return the same estimates from `factor` times as many prompts."""
        return AllOf(tuple(part.at(factor) for part in self.parts))


@dataclass(frozen=True)
class AnyOf:
    """Some part holds. One proven part is enough, which Bonferroni pays for; all must be false for it to be false."""

    parts: tuple[Statement, ...]

    def inside(self, rate: float) -> bool:
        """Return whether some part is proven at its share of the rate."""
        return any(part.inside(rate / len(self.parts)) for part in self.parts)

    @property
    def p(self) -> float:
        """The largest part's p."""
        return max(part.p for part in self.parts)

    @property
    def margin(self) -> float:
        """The largest part's margin."""
        return max(part.margin for part in self.parts)

    @property
    def instrument(self) -> float:
        """The largest part's noise."""
        return max(part.instrument for part in self.parts)

    def at(self, factor: float) -> AnyOf:
        """Return the same estimates from `factor` times as many prompts."""
        return AnyOf(tuple(part.at(factor) for part in self.parts))


@dataclass(frozen=True)
class ShareAtLeast:
    """`hits` of `trials` come from a share of at least `limit`: exact binomial tests.

    Over strata whose shares differ the sum of hits varies less than a binomial of the mean share, so both tests are
    conservative (Hoeffding 1956).
    """

    hits: int
    trials: int
    limit: float

    def inside(self, rate: float) -> bool:
        """Return whether so many hits had probability `rate` at most, were the share below the limit."""
        return self.hits > 0 and float(bdtrc(self.hits - 1, self.trials, self.limit)) <= rate

    @property
    def p(self) -> float:
        """The probability of so few hits, were the share at the limit."""
        return float(bdtr(self.hits, self.trials, self.limit))

    @property
    def margin(self) -> float:
        """(share - limit) / SE of the share."""
        share = self.hits / self.trials
        return _over(share - self.limit, math.sqrt(share * (1 - share) / self.trials))

    @property
    def instrument(self) -> float:
        """None: a count has no noise floor."""
        return 0.0

    def at(self, factor: float) -> ShareAtLeast:
        """Return the same share of `factor` times as many trials, rounded towards the limit."""
        trials = round(self.trials * factor)
        hits = self.hits * factor
        towards = math.floor if self.hits >= self.limit * self.trials else math.ceil
        return ShareAtLeast(min(trials, towards(hits)), trials, self.limit)

    def interval(self, rate: float) -> Interval:
        """Return the exact interval that leaves out `rate` on each side (Clopper and Pearson 1934)."""
        low = float(bdtri(self.hits - 1, self.trials, 1 - rate)) if self.hits else 0.0
        high = float(bdtri(self.hits, self.trials, rate)) if self.hits < self.trials else 1.0
        return low, high


def _over(distance: float, unit: float) -> float:
    """Return distance / unit, infinite with the distance's sign where there is no unit, and 0 for 0 / 0."""
    if unit:
        return distance / unit
    return math.copysign(math.inf, distance) if distance else 0.0

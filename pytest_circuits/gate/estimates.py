"""Means over prompts, templates weighing equally: a value, each prompt's influence on it, and its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from ..errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    from ..records import PerPrompt

Interval = tuple[float, float]

DUST = 1e-12
"""Deviations from a template's mean below this part of the largest value are rounding, not spread."""


@dataclass(frozen=True, eq=False)
class Strata:
    """The templates of the prompts: `codes` (prompts,) into `names`, and the `counts` (templates,) of prompts."""

    names: tuple[str, ...]
    codes: Int[np.ndarray, " prompts"]
    counts: Int[np.ndarray, " templates"]

    def means(self, values: PerPrompt) -> Float[np.ndarray, " templates"]:
        """Return each template's mean."""
        return np.asarray(np.bincount(self.codes, weights=values, minlength=len(self.names)) / self.counts)

    def mean(self, values: PerPrompt) -> float:
        """Return the mean of the templates' means."""
        return float(self.means(values).mean())

    def variances(self, values: PerPrompt) -> Float[np.ndarray, " templates"]:
        """Return s_t^2 of each template; MeasurementError where a template has fewer than 2 prompts."""
        if self.counts.min() < 2:
            name = self.names[int(self.counts.argmin())]
            raise MeasurementError(
                f"template {name!r} has 1 prompt, a standard error needs at least 2.\n"
                "  Its interval is undefined, and an undefined interval decides nothing. Give it more prompts."
            )
        deviations = values - self.means(values)[self.codes]
        deviations[np.abs(deviations) <= DUST * np.abs(values).max()] = 0.0
        squares = np.bincount(self.codes, weights=deviations**2, minlength=len(self.names))
        return np.asarray(squares / (self.counts - 1))


def strata_of(templates: Sequence[str]) -> Strata:
    """Return the strata of prompts whose templates are named, in the order of first appearance."""
    if not templates:
        raise MeasurementError("there are no prompts: nothing was measured, and nothing can be judged.")
    names = tuple(dict.fromkeys(templates))
    code = {name: index for index, name in enumerate(names)}
    codes = np.array([code[name] for name in templates])
    return Strata(names=names, codes=codes, counts=np.bincount(codes))


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error, the degrees of freedom of that error, and the instrument's noise floor."""

    value: float
    se: float = 0.0
    df: float = math.inf
    noise: float = 0.0

    def half_width(self, rate: float) -> float:
        """Return the one-sided t margin at `rate`, the noise floor included."""
        return self.noise + (float(stdtrit(self.df, 1 - rate)) * self.se if self.se else 0.0)

    def interval(self, rate: float) -> Interval:
        """Return the interval that leaves out `rate` on each side."""
        margin = self.half_width(rate)
        return self.value - margin, self.value + margin

    def at(self, factor: float) -> Estimate:
        """Return what would be estimated from `factor` times as many prompts."""
        return replace(self, se=self.se / math.sqrt(factor), df=self.df * factor)

    def __neg__(self) -> Estimate:
        return replace(self, value=-self.value)


@dataclass(frozen=True, eq=False)
class Statistic:
    """A number computed from the prompts, with each prompt's influence on it (the delta method).

    `influence` has shape (prompts,); only its spread within templates counts. Sums, differences and multiples of
    statistics of the same prompts are statistics: two readings are compared prompt by prompt, so what they share
    cancels, and a checkpoint compared with itself has drift 0 and standard error 0 exactly. `noise` is the
    instrument's floor in the statistic's own unit.
    """

    value: float
    influence: PerPrompt
    strata: Strata
    noise: float = 0.0

    def __add__(self, other: Statistic | float) -> Statistic:
        if not isinstance(other, Statistic):
            return replace(self, value=self.value + other)
        return Statistic(
            value=self.value + other.value,
            influence=self.influence + other.influence,
            strata=self.strata,
            noise=self.noise + other.noise,
        )

    def __sub__(self, other: Statistic | float) -> Statistic:
        return self + -other

    def __mul__(self, factor: float) -> Statistic:
        return Statistic(self.value * factor, self.influence * factor, self.strata, self.noise * abs(factor))

    def __neg__(self) -> Statistic:
        return self * -1.0

    def over(self, unit: Statistic) -> Statistic:
        """Return the ratio R = self / unit, linearised: prompt i moves it by (num_i - R den_i) / mean(den).

        Raises:
            MeasurementError: the unit is 0.
        """
        if unit.value == 0.0:
            raise MeasurementError(
                "a ratio's denominator is 0: the floor changes nothing on the average.\n"
                "  A share of nothing means nothing. Look at the checkpoint and at the prompts."
            )
        value = self.value / unit.value
        influence = self.influence - value * unit.influence
        influence[np.abs(influence) <= DUST * np.abs(self.influence).max()] = 0.0
        noise = max(self.noise, abs(value) * unit.noise) / abs(unit.value)
        return Statistic(value, influence / unit.value, self.strata, noise)

    @cached_property
    def estimate(self) -> Estimate:
        """The value with its stratified standard error and Satterthwaite's degrees of freedom.

        SE^2 = sum_t v_t with v_t = s_t^2 / (T^2 n_t); df = (sum_t v_t)^2 / sum_t v_t^2 / (n_t - 1). The templates are
        the suite's own, so their means have no sampling error.
        """
        counts = self.strata.counts
        parts = self.strata.variances(self.influence) / (len(counts) ** 2 * counts)
        variance = float(parts.sum())
        if variance == 0.0:
            return Estimate(self.value, noise=self.noise)
        df = 1.0 / float(((parts / variance) ** 2 / (counts - 1)).sum())
        return Estimate(self.value, math.sqrt(variance), df, self.noise)

    def over_templates(self, rate: float) -> Interval | None:
        """Return the interval with the templates as a sample from all templates; None with fewer than 2 of them."""
        count = len(self.strata.counts)
        if count < 2:
            return None
        spread = float(self.strata.means(self.influence).std(ddof=1))
        return Estimate(self.value, spread / math.sqrt(count), count - 1, self.noise).interval(rate)


def mean(values: PerPrompt, strata: Strata, *, noise: float = 0.0) -> Statistic:
    """Return the mean of a per-prompt value of shape (prompts,), templates weighing equally."""
    return Statistic(strata.mean(values), values, strata, noise)


def ratio(numerator: PerPrompt, denominator: PerPrompt, strata: Strata, *, noise: float = 0.0) -> Statistic:
    """Return mean(numerator) / mean(denominator), linearised.

    Never the mean of ratios: one prompt whose denominator is near 0 would decide it alone. `noise` is that of one
    value, in the unit of both arrays.

    Raises:
        MeasurementError: the denominator's mean is 0.
    """
    return mean(numerator, strata, noise=noise).over(mean(denominator, strata, noise=noise))


def ratio_of_means(numerator: PerPrompt, denominator: PerPrompt, strata: Strata) -> float:
    """Return mean(numerator) / mean(denominator), templates weighing equally; MeasurementError where that is 0."""
    return ratio(numerator, denominator, strata).value

"""The effects of one reading: behaviour, faithfulness, necessity, and each head's strength and share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import MeasurementError
from .estimates import Estimate, Statistic, Strata, mean, ratio, strata_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool

    from ..records import PerPrompt, Reading, Samples

T = TypeVar("T")

LEAST_STANDARD_ERRORS = 10.0
"""A ratio's denominator is at least so many of its standard errors: there the linearisation is good (Fieller)."""
LEAST_OF_REFERENCE = 0.25
"""A checkpoint that keeps less of the reference's effect has lost the task: what its circuit does means nothing."""


@dataclass(frozen=True, eq=False)
class Effects:
    """What a `Reading` comes to, over the whole suite or within one template; a part is read when first needed.

    Means over prompts, templates weighing equally; ratios of means. Every part is checked when it is read: a NaN, an
    infinity or a wrong length is a MeasurementError.
    """

    reading: Reading
    template: str | None = None

    def within(self, template: str | None) -> Effects:
        """Return the effects within one template; None stands for the whole suite."""
        return self if template == self.template else self._by_template[template or ""]

    @cached_property
    def _by_template(self) -> dict[str, Effects]:
        return {name: Effects(self.reading, name) for name in self.strata.names}

    @cached_property
    def _in_view(self) -> Bool[np.ndarray, " prompts"]:
        return np.array([self.template in (None, name) for name in self.reading.templates])

    @cached_property
    def strata(self) -> Strata:
        """The templates of the prompts in view."""
        return strata_of([name for name in self.reading.templates if self.template in (None, name)])

    @cached_property
    def noise(self) -> float:
        """The instrument's noise in the metric's unit."""
        return float(self._checked("noise", np.array([self.reading.noise]), 1)[0])

    @cached_property
    def clean(self) -> PerPrompt:
        """c of the prompts in view."""
        return self.rows("clean", self.reading.clean)

    @cached_property
    def task(self) -> Statistic:
        """mean(c - x): what the answer's word is worth, in the metric's unit; D0 where the reading is the reference."""
        return mean(self.clean - self.rows("corrupt", self.reading.corrupt), self.strata, noise=self.noise)

    @cached_property
    def accuracy(self) -> tuple[int, int]:
        """(clean prompts whose answer beats its foil, clean prompts); a tie is wrong."""
        return int((self.logit_diff > 0).sum()), len(self.logit_diff)

    @cached_property
    def logit_diff(self) -> PerPrompt:
        """Answer minus foil on the clean prompts in view, in logits."""
        return self.rows("clean_logit_diff", self.reading.clean_logit_diff)

    @cached_property
    def logits(self) -> Statistic:
        """The mean clean logit difference, of which a head's direct effect is a part."""
        return mean(self.logit_diff, self.strata, noise=self.noise)

    @cached_property
    def total(self) -> Statistic:
        """mean(c - f): the effect of which heads have shares; U0 where the reading is the reference."""
        return mean(self._effect, self.strata, noise=self.noise)

    @cached_property
    def faithfulness(self) -> Statistic:
        """F = mean(k - f) / mean(c - f)."""
        circuit = self.rows("circuit", self.reading.circuit)
        return self.part_of_total(circuit - self._floor)

    @cached_property
    def necessity(self) -> Statistic:
        """N = mean(c - o) / mean(c - f)."""
        return self.part_of_total(self.clean - self.rows("knockout", self.reading.knockout))

    def removed(self, head: str) -> Statistic:
        """Return mean(c - h), in the metric's unit: over U0 it is the head's strength."""
        return mean(self._without(head), self.strata, noise=self.noise)

    def share(self, head: str) -> Statistic:
        """Return S_h = mean(c - h) / mean(c - f), the head's share of this checkpoint's own effect."""
        return self.part_of_total(self._without(head))

    def part_of_total(self, values: PerPrompt) -> Statistic:
        """Return mean(values) / mean(c - f), for a difference in the metric's unit of the prompts in view."""
        return ratio(values, self._effect, self.strata, noise=self.noise)

    def part_of_logits(self, values: PerPrompt) -> Statistic:
        """Return mean(values) / mean clean logit difference, for a difference in logits of the prompts in view.

        The noise is taken to be that of the metric, which is the same thing where the metric is `logit_diff`.
        """
        return ratio(values, self.logit_diff, self.strata, noise=self.noise)

    @cached_property
    def _floor(self) -> PerPrompt:
        return self.rows("floor", self.reading.floor)

    @cached_property
    def _effect(self) -> PerPrompt:
        return np.asarray(self.clean - self._floor)

    def _without(self, head: str) -> PerPrompt:
        return np.asarray(self.clean - self.rows(f"without {head}", of_head(self.reading.heads, head, "heads")))

    def rows(self, part: str, values: PerPrompt) -> PerPrompt:
        """Return those of a value a prompt that are in view; `part` is what an error calls them."""
        checked = self._checked(part, np.asarray(values, dtype=np.float64), len(self.reading.templates))
        return np.asarray(checked[self._in_view])

    def _checked(self, part: str, values: PerPrompt, prompts: int) -> PerPrompt:
        if values.shape != (prompts,):
            raise MeasurementError(
                f"{part}: expected {prompts} values, one a prompt, found shape {values.shape}.\n"
                "  Prompts would be compared with others. Measure again; report it if it stays."
            )
        return finite(part, values, "prompt")


def finite(part: str, values: Samples, sample: str) -> Samples:
    """Return the values; a NaN or an infinity is a MeasurementError that names its place."""
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise MeasurementError(
            f"{part}: expected finite values, found {values[first]} at {sample} {first}"
            f" ({int((~np.isfinite(values)).sum())} of {len(values)}).\n"
            "  A mean over the rest would hide it. Look at the checkpoint's weights and its dtype."
        )
    return values


def of_head(parts: Mapping[str, T], head: str, what: str) -> T:
    """Return a head's part; MeasurementError where it is not there."""
    if head not in parts:
        raise MeasurementError(
            f"{what}: expected every head of the model, found none named {head}.\n"
            "  A head that was not measured cannot pass. Measure again; report it if it stays."
        )
    return parts[head]


def task_lost(
    observed: Effects, reference: Effects | None, *, rate: float, errors: float = LEAST_STANDARD_ERRORS
) -> str | None:
    """Return why the ratios of `observed` mean nothing, or None where they may be evaluated.

    Their denominator mean(c - f) must be positive, be at least `errors` of its standard errors, and be proven above
    0.25 of the reference's at `rate`. The reference's own must hold as well: a task that it does the wrong way round is
    none.
    """
    where = "" if observed.template is None else f" in template {observed.template!r}"
    if reference is not None:
        if not is_solid(reference.total.estimate, errors):
            told = in_errors(reference.total.estimate, errors)
            return f"no ratio{where}: the reference's own clean - floor is {told}"
        kept = observed.total.over(reference.total).estimate
        low, high = kept.interval(rate)
        if low <= LEAST_OF_REFERENCE:
            return (
                f"task lost{where}: clean - floor is {kept.value:.2f} [{low:.2f}, {high:.2f}] of the reference's,"
                f" not proven above {LEAST_OF_REFERENCE}"
            )
    if not is_solid(observed.total.estimate, errors):
        return f"no ratio{where}: clean - floor is {in_errors(observed.total.estimate, errors)}"
    return None


def is_solid(denominator: Estimate, errors: float = LEAST_STANDARD_ERRORS) -> bool:
    """Say whether a ratio may be taken: its denominator is positive, and large beside its standard error."""
    return denominator.value > 0 and denominator.value >= errors * denominator.se


def in_errors(denominator: Estimate, errors: float = LEAST_STANDARD_ERRORS) -> str:
    """Return a denominator that is not solid, in words."""
    told = f"{denominator.value:.3g} with standard error {denominator.se:.2g}"
    return f"{told}; a ratio needs at least {errors:g} times that"

"""The effects of one reading: behaviour, faithfulness, necessity, and each head's strength and share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MeasurementError
from .estimates import Statistic, Strata, mean, ratio, strata_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool

    from ..records import PerPrompt, Reading

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
        return self._rows("clean", self.reading.clean)

    @cached_property
    def task(self) -> Statistic:
        """mean(c - x): what the answer's word is worth, in the metric's unit; D0 where the reading is the reference."""
        return mean(self.clean - self._rows("corrupt", self.reading.corrupt), self.strata, noise=self.noise)

    @cached_property
    def accuracy(self) -> tuple[int, int]:
        """(clean prompts whose answer beats its foil, clean prompts); a tie is wrong."""
        differences = self._rows("clean_logit_diff", self.reading.clean_logit_diff)
        return int((differences > 0).sum()), len(differences)

    @cached_property
    def total(self) -> Statistic:
        """mean(c - f): the effect of which heads have shares; U0 where the reading is the reference."""
        return mean(self._effect, self.strata, noise=self.noise)

    @cached_property
    def faithfulness(self) -> Statistic:
        """F = mean(k - f) / mean(c - f)."""
        circuit = self._rows("circuit", self.reading.circuit)
        return self._share_of_total(circuit - self._floor)

    @cached_property
    def necessity(self) -> Statistic:
        """N = mean(c - o) / mean(c - f)."""
        return self._share_of_total(self.clean - self._rows("knockout", self.reading.knockout))

    def removed(self, head: str) -> Statistic:
        """Return mean(c - h), in the metric's unit: over U0 it is the head's strength."""
        return mean(self._without(head), self.strata, noise=self.noise)

    def share(self, head: str) -> Statistic:
        """Return S_h = mean(c - h) / mean(c - f), the head's share of this checkpoint's own effect."""
        return self._share_of_total(self._without(head))

    def attention(self, head: str) -> Statistic:
        """Return the head's mean attention from the answer position to the flipped slot."""
        values = _of(self.reading.attention, head, "attention")
        return mean(self._rows(f"attention of {head}", values), self.strata)

    def number_mover(self, head: str) -> Statistic:
        """Return min(share, mean attention from the answer position to the flipped slot), clipped at 0.

        Attention alone is near 1 for an idle head that looks at the subject and writes nothing. A prompt's influence is
        that on whichever of the two is the smaller; clipping keeps it, so that a score near 0 is not called certain.
        """
        smaller = min(self.share(head), self.attention(head), key=lambda score: score.value)
        return replace(smaller, value=max(0.0, smaller.value))

    @cached_property
    def _floor(self) -> PerPrompt:
        return self._rows("floor", self.reading.floor)

    @cached_property
    def _effect(self) -> PerPrompt:
        return np.asarray(self.clean - self._floor)

    def _without(self, head: str) -> PerPrompt:
        return np.asarray(self.clean - self._rows(f"without {head}", _of(self.reading.heads, head, "heads")))

    def _share_of_total(self, numerator: PerPrompt) -> Statistic:
        return ratio(numerator, self._effect, self.strata, noise=self.noise)

    def _rows(self, part: str, values: PerPrompt) -> PerPrompt:
        checked = self._checked(part, np.asarray(values, dtype=np.float64), len(self.reading.templates))
        return np.asarray(checked[self._in_view])

    def _checked(self, part: str, values: PerPrompt, prompts: int) -> PerPrompt:
        if values.shape != (prompts,):
            raise MeasurementError(
                f"{part}: expected {prompts} values, one a prompt, found shape {values.shape}.\n"
                "  Prompts would be compared with others. Measure again; report it if it stays."
            )
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise MeasurementError(
                f"{part}: expected finite values, found {values[first]} at prompt {first}"
                f" ({int((~np.isfinite(values)).sum())} of {len(values)}).\n"
                "  A mean over the rest would hide it. Look at the checkpoint's weights and its dtype."
            )
        return values


def _of(parts: Mapping[str, PerPrompt], head: str, what: str) -> PerPrompt:
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
        if not _is_solid(reference, errors):
            return f"no ratio{where}: the reference's own clean - floor is {_in_errors(reference, errors)}"
        kept = observed.total.over(reference.total).estimate
        low, high = kept.interval(rate)
        if low <= LEAST_OF_REFERENCE:
            return (
                f"task lost{where}: clean - floor is {kept.value:.2f} [{low:.2f}, {high:.2f}] of the reference's,"
                f" not proven above {LEAST_OF_REFERENCE}"
            )
    if not _is_solid(observed, errors):
        return f"no ratio{where}: clean - floor is {_in_errors(observed, errors)}"
    return None


def _is_solid(effects: Effects, errors: float) -> bool:
    total = effects.total.estimate
    return total.value > 0 and total.value >= errors * total.se


def _in_errors(effects: Effects, errors: float) -> str:
    total = effects.total.estimate
    return f"{total.value:.3g} with standard error {total.se:.2g}; a ratio needs at least {errors:g} times that"

"""The case of one check: claims are made on the effects of two readings, and settled into records together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import MeasurementError, plain
from ..gate.decisions import NEAR, decide, prompts_that_decide
from ..gate.effects import Effects, task_lost
from ..gate.statements import Statement, at_least
from ..records import SEVERITY, HeadEffect, Record, Result, Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..gate.estimates import Interval, Statistic
    from . import Comparison

WITHOUT_UNIT = ("roles", "attribution", "successor")
"""Checks whose claims are not parts of the reference's effect."""
METRIC_UNITS = {"logit_diff": "logits", "prob_diff": "of probability", "kl": "nats"}


@dataclass(frozen=True)
class Claim:
    """One claim of a check, with the numbers that are told of it.

    `limit` is the one that is judged, `line` where the spec sets it. A claim on which no statement can be made has a
    `verdict` and a `reason` in its place. `trials` are what more of would decide it, where it is not the prompts.
    """

    name: str
    unit: str
    limit: float
    line: int
    called: str = ""
    component: str | None = None
    template: str | None = None
    statement: Statement | None = None
    value: float | None = None
    reference: float | None = None
    interval: Interval | None = None
    over_templates: Interval | None = None
    verdict: Verdict = Verdict.NOT_EVALUATED
    reason: str = ""
    trials: int | None = None
    trials_are: str = "prompts"
    note: str = ""

    @property
    def drift(self) -> float | None:
        """The signed difference from the reference; a claim on a value alone has none."""
        return None if self.value is None or self.reference is None else self.value - self.reference

    def unjudged(self, reason: str, verdict: Verdict = Verdict.NOT_EVALUATED) -> Claim:
        """Return the claim with a verdict and its reason in place of a statement."""
        return replace(self, verdict=verdict, reason=reason)

    def told(self) -> str:
        """Return the claim's numbers in one line: `L2H0 share 0.98 -> 0.00, drift -0.98 [-0.99, -0.97]`."""
        digits = f"z.{decimals(self.limit)}f"
        signed = digits if self.drift is None else f"+{digits}"
        words = [
            self.component or "",
            self.called or self.name,
            f"in template {self.template!r}" if self.template else "",
        ]
        if self.drift is not None:
            words.append(f"{self.reference:{digits}} -> {self.value:{digits}}, drift {self.drift:+{digits}}")
        elif self.value is not None:
            words.append(f"{self.value:{digits}}")
        if self.interval is not None:
            words.append(interval_of(self.interval, signed))
        if self.over_templates is not None:
            words.append(f"(templates as a sample {interval_of(self.over_templates, signed)})")
        return " ".join(word for word in [*words, self.note] if word)


@dataclass(frozen=True, eq=False)
class Case:
    """What one check judges: the comparison, its effects, and its share of the spec's rates."""

    comparison: Comparison
    check: str

    @cached_property
    def observed(self) -> Effects:
        """The effects of the checkpoint under test."""
        return Effects(self.comparison.observed)

    @cached_property
    def reference(self) -> Effects | None:
        """The effects of the reference on the same prompts, if there is one.

        Raises:
            MeasurementError: the two readings are not of the same prompts.
        """
        reading = self.comparison.reference
        if reading is None:
            return None
        if tuple(reading.templates) != tuple(self.comparison.observed.templates):
            raise MeasurementError(
                f"expected two readings of the same prompts, found {len(self.comparison.observed.templates)} prompts"
                f" on the checkpoint and {len(reading.templates)} on the reference, or other templates.\n"
                "  Drift is judged prompt by prompt. Measure both with the same spec, or update the baseline."
            )
        return Effects(reading)

    @property
    def missed(self) -> float:
        """The rate at which a false claim may pass."""
        return self.comparison.file.spec.rates.missed_drift

    @property
    def alpha(self) -> float:
        """The check's share of the rate of false alarms: the declared checks divide it, whichever of them run."""
        spec = self.comparison.file.spec
        return spec.rates.false_alarm / len(spec.declared)

    @property
    def limits(self) -> Any:
        """What the spec sets for this check: its section of `claims`."""
        return getattr(self.comparison.file.spec.claims, self.check)

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates in which claims are judged again; none where the suite is a single stratum."""
        names = self.observed.strata.names
        return names if len(names) > 1 else ()

    @property
    def task_lost(self) -> str | None:
        """Why the ratios of the suite mean nothing, or None where they may be evaluated."""
        return self.task_lost_in(None)

    def task_lost_in(self, template: str | None) -> str | None:
        """Return why the ratios within a template mean nothing, or None where they may be evaluated."""
        if template not in self._lost:
            reference = self.reference and self.reference.within(template)
            self._lost[template] = task_lost(self.observed.within(template), reference, rate=self.missed)
        return self._lost[template]

    @cached_property
    def _lost(self) -> dict[str | None, str | None]:
        return {}

    @property
    def no_reference(self) -> str:
        """Why drift cannot be judged."""
        return self.comparison.missing or (
            "there is no reference, so nothing can be said about drift.\n"
            "  Name one with --circuits-reference, or store a baseline with --circuits-update=new."
        )

    # -- claims ----------------------------------------------------------------------------------------------------

    def claim(self, name: str, unit: str, key: str, *, called: str = "", component: str | None = None) -> Claim:
        """Return a claim with the limit that a key of this check's section sets, nothing being stated yet."""
        limit: float = getattr(self.limits, key)
        return Claim(name, unit, limit, self.line(key), called=called, component=component)

    def at_least(self, claim: Claim, statistic: Statistic) -> Claim:
        """Return the claim with the statement that a value is at least the limit."""
        return replace(
            claim,
            statement=at_least(statistic.estimate, claim.limit),
            value=statistic.value,
            interval=statistic.estimate.interval(self.missed),
            over_templates=statistic.over_templates(self.missed),
        )

    def drift(self, claim: Claim, observed: Statistic, reference: Statistic, statement: Statement) -> Claim:
        """Return the claim with a statement on how the value differs from the reference's."""
        drift = observed - reference
        return replace(
            claim,
            statement=statement,
            value=observed.value,
            reference=reference.value,
            interval=drift.estimate.interval(self.missed),
            over_templates=drift.over_templates(self.missed),
        )

    def value_and_drift(
        self,
        called: str,
        effect: Callable[[Effects], Statistic],
        kept: Callable[[Statistic, Statistic, float], Statement],
    ) -> list[Claim]:
        """Return the two claims on a ratio of the suite: its value, and that it is `kept` near the reference's."""
        value = self.claim("at_least", "fraction", "at_least", called=called)
        drift = self.claim("drift", "fraction", "drift_at_most", called=called)
        if self.reference is None:
            drift = self.without_reference(drift)
        if self.task_lost:
            return [value.unjudged(self.task_lost), drift if drift.reason else drift.unjudged(self.task_lost)]
        now = effect(self.observed)
        value = self.at_least(value, now)
        if self.reference is None:
            return [value, drift]
        before = effect(self.reference)
        return [value, self.drift(drift, now, before, kept(now, before, drift.limit))]

    def without_reference(self, claim: Claim) -> Claim:
        """Return a drift claim that cannot be judged because there is no reference."""
        return claim.unjudged(self.no_reference, Verdict.ERROR)

    # -- records ---------------------------------------------------------------------------------------------------

    def settle(self, claims: Sequence[Claim]) -> tuple[Record, ...]:
        """Return one record for each claim of the check, judged together, in the order of the claims."""
        verdicts = decide([claim.statement for claim in claims], missed=self.missed, alpha=self.alpha)
        each = self.alpha / max(1, len(claims))
        return tuple(self._record(claim, verdict, each) for claim, verdict in zip(claims, verdicts, strict=True))

    def _record(self, claim: Claim, verdict: Verdict, alpha: float) -> Record:
        verdict = claim.verdict if claim.statement is None else verdict
        view = self.observed if claim.template is None else self.observed.within(claim.template)
        return Record(
            circuit=self.comparison.file.circuit,
            checkpoint=self.comparison.checkpoint,
            check=self.check,
            claim=claim.name,
            component=claim.component,
            verdict=verdict,
            value=claim.value,
            reference=claim.reference,
            drift=claim.drift,
            interval=claim.interval,
            limit=claim.limit,
            unit=claim.unit,
            prompts=len(view.strata.codes),
            templates=len(view.strata.names),
            message=self._message(claim, verdict, alpha),
            line=claim.line,
            template=claim.template,
        )

    def line(self, key: str | None = None) -> int:
        """Return the line of the spec that sets a limit of this check."""
        return self.comparison.file.line("claims", self.check, *([] if key is None else [key]))

    def _message(self, claim: Claim, verdict: Verdict, alpha: float) -> str:
        if claim.statement is None:
            return claim.reason
        told, limit = claim.told(), f"{claim.limit:.3g}"
        match verdict:
            case Verdict.PASS:
                return f"{told}, limit {limit}"
            case Verdict.DRIFT:
                below = claim.drift is None and claim.limit > 0  # an effect's limit is 0, on the side that is stated
                return f"{told} is {'below' if below else 'beyond'} its limit {limit}"
            case Verdict.ERROR:
                part = claim.statement.instrument
                return f"instrument: {told}: its noise floor is {part:.2g} of the limit {limit}, and 0.1 is the most"
            case _:
                return f"{told} is not proven on either side of its limit {limit}: {self._needed(claim, alpha)}"

    def _needed(self, claim: Claim, alpha: float) -> str:
        at_hand = claim.trials or len(self.observed.strata.codes)
        if claim.statement is None or abs(claim.statement.margin) < NEAR:
            return "within 2 SE of the limit, so no practical n decides"
        needed = prompts_that_decide(claim.statement, at_hand, missed=self.missed, alpha=alpha)
        if needed is None:
            return "no practical n decides"
        return f"about {needed} {claim.trials_are} in all would decide, there are {at_hand}"

    # -- the result ------------------------------------------------------------------------------------------------

    def result(
        self,
        records: Iterable[Record],
        *,
        summary: str | None = None,
        details: Sequence[str] | None = None,
        warnings: Sequence[str] = (),
        heads: Mapping[str, HeadEffect] | None = None,
    ) -> Result:
        """Return the check's result: its records, worst first, and by default what the worst of them say."""
        ordered = tuple(sorted(records, key=_rank))
        verdict = worst([record.verdict for record in ordered])
        red = dict.fromkeys(record.message for record in ordered if record.verdict is not Verdict.PASS)
        messages = [*red] or [record.message for record in ordered[:1]] or ["nothing was judged"]
        told = [line for message in messages for line in message.splitlines()]
        return Result(
            circuit=self.comparison.file.circuit,
            checkpoint=self.comparison.checkpoint,
            check=self.check,
            verdict=verdict,
            records=ordered,
            headline=f"{self.check}: {summary or told[0]} ({self._compared_with})",
            details=tuple(told[1:] if details is None else details),
            warnings=tuple(warnings),
            heads=heads or {},
            line=self.line(),
        )

    @property
    def _compared_with(self) -> str:
        if self.reference is None:
            return "no reference"
        name = plain(self.comparison.reference_name)
        if self.comparison.identical:
            return f"identical to the reference {name}"
        if self.check in WITHOUT_UNIT:
            return f"reference: {name}"
        unit = self.reference.task if self.check == "behaviour" else self.reference.total
        return f"reference: {name}, {unit.value:.3g} {METRIC_UNITS[self.comparison.file.spec.measure.metric]}"


def decimals(limit: float | None) -> int:
    """Return how many decimals show a tenth of a limit, at least 2."""
    return max(2, 1 - math.floor(math.log10(limit))) if limit else 2


def interval_of(bounds: Interval, digits: str) -> str:
    """Return bounds in a number format, as `[-0.99, -0.97]`."""
    return f"[{bounds[0]:{digits}}, {bounds[1]:{digits}}]"


def _rank(record: Record) -> tuple[int, float]:
    """Order records by severity, then a circuit's absolute limits, then the drifts largest beside their limits."""
    if record.drift is not None and record.limit:
        return -SEVERITY.index(record.verdict), -abs(record.drift) / record.limit
    return -SEVERITY.index(record.verdict), 0.0 if record.component else -math.inf

"""The check `behaviour`: the checkpoint still does the task, on the whole and in every template."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..gate.limits import per_template
from ..gate.statements import AtMost, ShareAtLeast
from .case import Case, Claim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..gate.effects import Effects
    from ..records import Result
    from . import Comparison


def judge(comparison: Comparison) -> Result:
    """Return the verdict on accuracy, on the loss of the metric, and on the loss within each template."""
    case = Case(comparison, "behaviour")
    claims = [_accuracy(case), *_losses(case)]
    return case.result(case.settle(claims))


def _accuracy(case: Case) -> Claim:
    """Return the claim on the share of clean prompts whose answer beats its foil, an exact binomial."""
    claim = case.claim("accuracy", "fraction", "accuracy_at_least")
    hits, prompts = case.observed.accuracy
    statement = ShareAtLeast(hits, prompts, claim.limit)
    return replace(claim, statement=statement, value=hits / prompts, interval=statement.interval(case.missed))


def _losses(case: Case) -> Iterator[Claim]:
    """Yield the claim on the loss: pooled, then within each template at a wider limit."""
    pooled = case.claim("loss", "D0", "loss_at_most", called="B")
    if case.reference is None:
        yield case.without_reference(pooled)
        return
    yield loss(case, pooled, case.observed, case.reference)
    for template in case.templates:
        within = replace(pooled, name="template", template=template, limit=per_template(pooled.limit))
        yield loss(case, within, case.observed.within(template), case.reference.within(template))


def loss(case: Case, claim: Claim, observed: Effects, reference: Effects) -> Claim:
    """Return the claim that B = mean(c - x) / D0 has not lost more than its limit; gains are fine.

    D0 is the reference's mean(c - x), of the same prompts. Where it is not positive there is nothing to lose.
    """
    unit = reference.task
    if unit.value <= 0:
        where = "" if observed.template is None else f" in template {observed.template!r}"
        return claim.unjudged(f"B{where}: the reference does not do the task, its clean - corrupt is {unit.value:.3g}")
    now, before = observed.task.over(unit), reference.task.over(unit)
    return case.drift(claim, now, before, AtMost((before - now).estimate, claim.limit))

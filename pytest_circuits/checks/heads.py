"""The check `heads`: every head of the model keeps its share of the effect, and its strength."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..gate.estimates import Estimate
from ..gate.limits import model_heads, per_template, scaled, weaker_at_most
from ..gate.statements import AtMost, Within
from ..records import HeadEffect, Result
from .case import Case, Claim
from .moves import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..gate.effects import Effects
    from . import Comparison


def judge(comparison: Comparison) -> Result:
    """Return the verdict on the shares and strengths of all heads, and on what the named heads keep."""
    for reading in (comparison.observed, comparison.reference):
        dict(reading.heads if reading else {})  # all at once: a live reading then measures them in one sweep
    case = Case(comparison, "heads")
    effects = head_effects(case)
    claims = list(_claims(case))
    records = case.settle(claims)
    if case.reference is None:
        return case.result(records, heads=effects)
    summary, details = tell(case, case.reference, records)
    return case.result(records, summary=summary, details=details, heads=effects)


def _claims(case: Case) -> Iterator[Claim]:
    if case.reference is None:
        yield case.without_reference(case.claim("share", "share", "share_drift_at_most"))
        return
    named = set(case.comparison.file.spec.member_heads)
    for head in model_heads(case.comparison.file.spec):
        name = str(head)
        share = case.claim("share", "share", "share_drift_at_most", component=name)
        yield _share(case, share, case.observed, case.reference)
        yield _strength(case, name, case.reference)
        if head in named:
            yield kept(case, name, case.reference)
            for template in case.templates:
                within = replace(share, name="template", called="share", template=template)
                yield _share(case, within, case.observed.within(template), case.reference.within(template))


def _share(case: Case, claim: Claim, observed: Effects, reference: Effects) -> Claim:
    """Return the claim that a head's share has not changed: pooled, or within a template at a wider limit."""
    head, lost = str(claim.component), case.task_lost_in(observed.template)
    if lost is not None:
        return claim.unjudged(f"{head} share: {lost}")
    now, before = observed.share(head), reference.share(head)
    limit = claim.limit if observed.template is None else per_template(claim.limit)
    claim = replace(claim, limit=scaled(limit, before.value))
    return case.drift(claim, now, before, Within((now - before).estimate, claim.limit))


def _strength(case: Case, head: str, reference: Effects) -> Claim:
    """Return the claim that a head's effect, in the reference's unit, has not become weaker, towards zero.

    At zero an effect can fall no further: what it does beyond, the other way round, is told by its share. So an effect
    that is within the limit cannot fall by more, and the sign that noise gave it does not matter.
    """
    unit = reference.total
    claim = Claim(
        "strength", "U0", weaker_at_most(case.comparison.file.spec), case.line("weaker_at_most"), component=head
    )
    if unit.value == 0.0:
        return claim.unjudged(f"{head} strength: the reference's clean - floor is 0, so there is no unit")
    now, before = case.observed.removed(head).over(unit), reference.removed(head).over(unit)
    claim = replace(claim, limit=scaled(claim.limit, before.value))
    weakening = ((before - now) * _sign(before.value)).estimate
    if abs(before.value) <= claim.limit:
        weakening = Estimate(min(weakening.value, abs(before.value)))
    return case.drift(claim, now, before, AtMost(weakening, claim.limit))


def kept(case: Case, head: str, reference: Effects) -> Claim:
    """Return the claim that a named head, or edge, keeps a part of its reference share, so small ones can fail too.

    sign(S_ref) (S - keep S_ref) > 0, told as the part S / S_ref with S_ref for a unit. A share that has not changed at
    all is kept whole, however uncertain it is.
    """
    claim = case.claim("keep", "fraction", "keep_at_least", called="kept part of its share", component=head)
    if case.task_lost is not None:
        return claim.unjudged(f"{head} keep: {case.task_lost}")
    now, before = case.observed.share(head), reference.share(head)
    if before.value == 0.0:
        return claim.unjudged(f"{head} keep: its share in the reference is 0, and nothing of it can be kept")
    kept, drift = (now - before * claim.limit) * (1 / before.value) + claim.limit, (now - before).estimate
    return case.at_least(claim, before.over(before) if drift.value == drift.se == 0 else kept)


def _sign(value: float) -> float:
    return math.copysign(1.0, value) if value else 0.0


def head_effects(case: Case) -> dict[str, HeadEffect]:
    """Return every head's strength and share beside the reference's, and its share within each template."""
    return {str(head): _head_effect(case, str(head)) for head in model_heads(case.comparison.file.spec)}


def _head_effect(case: Case, head: str) -> HeadEffect:
    before, unit = case.reference, (case.reference or case.observed).total.value
    views = {name: case.observed.within(name) for name in case.observed.strata.names}
    return HeadEffect(
        strength=case.observed.removed(head).value / unit if unit else None,
        share=None if case.task_lost else case.observed.share(head).value,
        reference_strength=before.removed(head).value / unit if before and unit else None,
        reference_share=before.share(head).value if before and unit else None,
        templates={name: None if case.task_lost_in(name) else view.share(head).value for name, view in views.items()},
    )

"""The check `edges`: the named edges alone carry the behaviour, and each keeps its part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..gate.edges import of_edges
from ..gate.limits import scaled
from ..gate.statements import Within
from ..records import Verdict
from .case import Case, Claim
from .faithfulness import not_further_from_one
from .heads import kept
from .necessity import not_fallen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..gate.effects import Effects
    from ..records import Record, Result
    from . import Comparison

SHOWN = 5
"""Of the claims on single edges that are red so many are told."""


def judge(comparison: Comparison) -> Result:
    """Return the verdict on what the edges carry alone, on what is lost without them, and on each one's share."""
    reference = comparison.reference
    case = Case(
        replace(
            comparison,
            observed=of_edges(comparison.observed),
            reference=None if reference is None else of_edges(reference),
        ),
        "edges",
    )
    claims = case.value_and_drift("F of edges", lambda effects: effects.faithfulness, not_further_from_one)
    claims += _necessity(case)
    claims += _shares(case)
    records = case.settle(claims)
    return case.result(records, details=_details(records))


def _necessity(case: Case) -> Iterator[Claim]:
    """Yield the claims on what is lost without the edges; its value where the spec sets a limit for it."""
    drift = case.claim("necessity_drift", "fraction", "drift_at_most", called="N of edges")
    if case.task_lost is not None:
        yield drift.unjudged(case.task_lost)
        return
    now = case.observed.necessity
    if case.limits.necessity_at_least is not None:
        value = case.claim("necessity", "fraction", "necessity_at_least", called="N of edges")
        yield case.at_least(value, now)
    if case.reference is None:
        yield case.without_reference(drift)
        return
    before = case.reference.necessity
    yield case.drift(drift, now, before, not_fallen(now, before, drift.limit))


def _shares(case: Case) -> Iterator[Claim]:
    for name in case.comparison.file.spec.edges:
        claim = case.claim("share", "share", "share_drift_at_most", component=name)
        if case.reference is None:
            yield case.without_reference(claim)
        elif case.task_lost is not None:
            yield claim.unjudged(f"{name} share: {case.task_lost}")
        else:
            yield _share(case, claim, case.reference)
            yield kept(case, name, case.reference)


def _share(case: Case, claim: Claim, reference: Effects) -> Claim:
    """Return the claim that the part of the effect that is lost with one edge has not changed."""
    now, before = (effects.share(str(claim.component)) for effects in (case.observed, reference))
    claim = replace(claim, limit=scaled(claim.limit, before.value))
    return case.drift(claim, now, before, Within((now - before).estimate, claim.limit))


def _details(records: tuple[Record, ...]) -> list[str]:
    """Return what a person should read below the headline: the red claims, of single edges no more than some."""
    red = [record for record in records if record.verdict is not Verdict.PASS]
    whole = [record.message for record in red if record.component is None]
    single = [record.message for record in red if record.component is not None]
    told = [line for message in dict.fromkeys((*whole, *single[:SHOWN])) for line in message.splitlines()]
    more = len(single) - SHOWN
    return told[1:] + ([f"and {more} more claims on single edges"] if more > 0 else [])

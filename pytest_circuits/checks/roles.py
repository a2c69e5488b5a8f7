"""The check `roles`: the heads still do what their role says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import MeasurementError
from ..gate.estimates import Estimate
from ..gate.limits import per_template
from ..gate.statements import ROUNDING, AtMost, at_least
from ..records import Result, Verdict
from .case import Case, Claim

if TYPE_CHECKING:
    from ..spec.components import Head
    from . import Comparison

Tasks = Mapping[str, tuple[int, int]]
STEPS = 2
"""A score's limit allows for at least so many tokens: one token changing its mind is not a lost role."""


def judge(comparison: Comparison) -> Result:
    """Return the verdict on the score of every head with a role."""
    case = Case(comparison, "roles")
    claims: list[Claim] = []
    for role, heads in comparison.file.spec.roles.items():
        judged = _number_mover if role == "number_mover" else _successor
        for head in heads:
            claims += judged(case, head)
    return case.result(case.settle(claims))


def _floors(case: Case, head: Head, role: str) -> Iterator[tuple[float, int]]:
    """Yield the least score that a group asks of a head in a role, with its line in the spec."""
    file = case.comparison.file
    for name, group in file.spec.circuit.items():
        is_member = {str(head), f"L{head.layer}.attn"} & {*group.heads} or f"L{head.layer}" in group.layers
        if is_member and group.role and group.role.name == role and group.role.at_least is not None:
            yield group.role.at_least, file.line("circuit", name, "role", "at_least")


# -- number mover ------------------------------------------------------------------------------------------------------


def _number_mover(case: Case, head: Head) -> Iterator[Claim]:
    name, lost = str(head), case.task_lost
    drift = case.claim("drift", "score", "drift_at_most", called="number_mover", component=name)
    drift = replace(drift, note="" if lost else _both(case, name))
    for least, line in _floors(case, head, "number_mover"):
        floor = replace(drift, name="at_least", limit=least, line=line)
        if lost:
            yield floor.unjudged(f"{name} number_mover: {lost}")
        else:
            yield case.at_least(floor, case.observed.number_mover(name))
    if case.reference is None:
        yield case.without_reference(drift)
    elif lost:
        yield drift.unjudged(f"{name} number_mover: {lost}")
    else:
        now, before = case.observed.number_mover(name), case.reference.number_mover(name)
        yield case.drift(drift, now, before, AtMost((before - now).estimate, drift.limit))


def _both(case: Case, head: str) -> str:
    """Return both components of the score, of each reading: one of them alone does not say what was lost."""
    readings = [effects for effects in (case.reference, case.observed) if effects is not None]
    share = " -> ".join(f"{effects.share(head).value:z.2f}" for effects in readings)
    attention = " -> ".join(f"{effects.attention(head).value:z.2f}" for effects in readings)
    return f"(share {share}, attention {attention})"


# -- successor ---------------------------------------------------------------------------------------------------------


def _successor(case: Case, head: Head) -> Iterator[Claim]:
    """Yield the claims on the pooled score, and on each task at a wider limit. Nothing is estimated here."""
    name, reference = str(head), case.comparison.reference
    tasks = _tasks(case.comparison.observed.successor, name)
    drift = case.claim("drift", "tokens", "drift_at_most", called="successor", component=name)
    hits, tokens = _pooled(tasks)
    for least, line in _floors(case, head, "successor"):
        statement, note = at_least(Estimate(hits / tokens), least), f"({hits} of {tokens} tokens)"
        floor = replace(drift, name="at_least", limit=least, line=line)
        yield replace(floor, statement=statement, value=hits / tokens, note=note)
    if reference is None:
        yield case.without_reference(drift)
        return
    before = _tasks(reference.successor, name)
    yield _steps(drift, (hits, tokens), _pooled(before))
    for task, counts in tasks.items():
        each = replace(drift, name="task", called=f"successor of {task!r}", limit=per_template(drift.limit))
        yield _steps(each, counts, before.get(task, (0, 0)))


def _steps(claim: Claim, now: tuple[int, int], before: tuple[int, int]) -> Claim:
    """Return the claim that the successor's share of tokens has not fallen below its limit, by comparison."""
    (hits, tokens), (hits_before, tokens_before) = now, before
    about = f"{claim.component} {claim.called}"
    if tokens != tokens_before:
        raise MeasurementError(
            f"{about}: expected the reference's {tokens_before} tokens, found {tokens}.\n"
            "  Shares of different words do not compare. Update the baseline with this tokenizer."
        )
    claim = replace(claim, value=hits / tokens, reference=hits_before / tokens)
    if claim.limit + ROUNDING < STEPS / tokens:
        return claim.unjudged(
            f"{about}: the score is of {tokens} tokens, so its step is 1/{tokens}, and the limit {claim.limit:.3g} is"
            f" less than two steps ({STEPS / tokens:.3g}). Raise drift_at_most.",
            Verdict.ERROR,
        )
    fall = AtMost(Estimate((hits_before - hits) / tokens), claim.limit)
    return replace(claim, statement=fall, note=f"({hits_before} -> {hits} of {tokens} tokens)")


def _tasks(successor: Mapping[str, Tasks], head: str) -> Tasks:
    tasks = successor.get(head, {})
    if not any(tokens for _, tokens in tasks.values()):
        raise MeasurementError(
            f"{head} successor: expected a score on at least one task, found none.\n"
            "  A role that was not measured cannot pass. Measure again; report it if it stays."
        )
    return tasks


def _pooled(tasks: Tasks) -> tuple[int, int]:
    return sum(hits for hits, _ in tasks.values()), sum(tokens for _, tokens in tasks.values())

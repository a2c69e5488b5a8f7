"""The check `roles`: the heads still do what their role says, or other heads do it where the spec allows that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..gate.estimates import Estimate
from ..gate.limits import per_template
from ..gate.scores import refuse_other_samples
from ..gate.statements import ROUNDING, AboveZero, AnyOf, AtMost, at_least
from ..records import Record, Result, Verdict
from .case import Case, Claim
from .shifts import Compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..spec.components import Head
    from ..spec.schema import Role
    from . import Comparison

Made = tuple[Compared, str | None, Claim]
"""A claim, with the role that it is of, and the task where it is of one alone."""
STEPS = 2
"""A score's limit allows for at least so many tokens: one token changing its mind is not a lost role."""


def judge(comparison: Comparison) -> Result:
    """Return the verdict on every head with a role: its score, its rank, its effect, and who took over what it lost."""
    case = Case(comparison, "roles")
    made = [
        (role, task, claim)
        for role, heads in ((Compared(case, key), heads) for key, heads in comparison.file.spec.roles.items())
        for head in heads
        for task, claim in _claims(role, head)
    ]
    records = case.settle([claim for _, _, claim in made])
    warned = case.limits.on_move == "warn"
    result = case.result(records, warnings=_fates(made, records, _is_forgiven) if warned else ())
    return replace(result, details=(*result.details, *_fates(made, records, _has_fallen)))


def _claims(role: Compared, head: Head) -> Iterator[tuple[str | None, Claim]]:
    """Yield all claims on a head in a role, each with its task: what a group says of it, and that it has not fallen."""
    claim = role.case.claim("drift", role.now.kind.unit, "drift_at_most", called=role.key, component=str(head))
    if "repeats" in role.now.kind.factors:
        sequences = len(role.now.score(str(head)).strata.codes)
        claim = replace(claim, trials=sequences, trials_are="repeated sequences")
    for group, said in role.case.comparison.file.spec.stated(role.key, head):
        yield from ((None, stated) for stated in _stated(role, claim, group, said))
    if role.before is None:
        yield None, role.case.without_reference(claim)
        return
    yield None, _drift(role, claim, None)
    for task in role.now.words(str(head)) if role.now.kind.from_weights else ():
        called = f"{role.key} of {task!r}"
        yield task, _drift(role, replace(claim, name="task", called=called, limit=per_template(claim.limit)), task)


# -- what a group says of its heads ------------------------------------------------------------------------------------


def _stated(role: Compared, claim: Claim, group: str, said: Role) -> Iterator[Claim]:
    """Yield the claims on the head itself: its least score, its rank among all heads, and the sign of its effect."""

    def line(key: str) -> int:
        return role.case.comparison.file.line("circuit", group, "role", key)

    if said.at_least is not None:
        yield _at_least(role, replace(claim, name="at_least", limit=said.at_least, line=line("at_least")))
    if said.percentile_at_least is not None:
        least = replace(claim, limit=said.percentile_at_least, line=line("percentile_at_least"))
        yield _percentile(role, replace(least, name="percentile", unit="fraction", called=f"{role.key} percentile"))
    if said.effect is not None:
        effect = replace(claim, name="effect", unit="share", limit=0.0, line=line("effect"), trials=None)
        yield _effect(role.case, replace(effect, called="effect", trials_are="prompts"), said.effect)


def _at_least(role: Compared, claim: Claim) -> Claim:
    if role.lost is not None:
        return claim.unjudged(f"{claim.component} {claim.called}: {role.lost}")
    head = str(claim.component)
    return _exact(role, role.case.at_least(replace(claim, note=_parts(role, head, None)), role.now.score(head)))


def _percentile(role: Compared, claim: Claim) -> Claim:
    """Return the claim on the part of the model's other heads whose score is lower; it is compared, not estimated."""
    if role.lost is not None:
        return claim.unjudged(f"{claim.component} {claim.called}: {role.lost}")
    part, others = role.now.percentile(str(claim.component)), len(role.now.heads) - 1
    statement, note = at_least(Estimate(part), claim.limit), f"(above {round(part * others)} of {others} other heads)"
    return replace(claim, statement=statement, value=part, note=note)


def _effect(case: Case, claim: Claim, sign: str) -> Claim:
    """Return the claim that the head's share of the effect has the sign that the spec states."""
    if case.task_lost is not None:
        return claim.unjudged(f"{claim.component} {claim.called}: {case.task_lost}")
    share = case.observed.share(str(claim.component))
    towards = share if sign == "positive" else -share
    told = case.at_least(replace(claim, note=f"(stated: {sign})"), share)
    return replace(told, statement=AboveZero(towards.estimate))


# -- what has fallen ---------------------------------------------------------------------------------------------------


def _drift(role: Compared, claim: Claim, task: str | None) -> Claim:
    """Return the claim that a head's score has not fallen below its limit, on the whole or on one task."""
    head, before = str(claim.component), role.before
    if before is None:
        return role.case.without_reference(claim)
    if role.lost is not None:
        return claim.unjudged(f"{claim.component} {claim.called}: {role.lost}")
    refuse_other_samples(role.now, before, head)
    claim = replace(claim, note=_parts(role, head, task))
    now, then = role.now.score(head, task), before.score(head, task)
    fall = AtMost((then - now).estimate, claim.limit)
    claim = _exact(role, role.case.drift(claim, now, then, fall))
    tokens = _tokens(role, head, task) if _are_hits(role, head) else None
    if tokens is not None and (claim := at_least_two_steps(claim, tokens, "tokens")).statement is None:
        return claim
    return role.unless_moved(claim, fall, task)


def at_least_two_steps(claim: Claim, count: int, what: str) -> Claim:
    """Return the claim on the fall of a share of `count` hits, an error where its limit is finer than their step."""
    if claim.limit + ROUNDING >= STEPS / count:
        return claim
    return replace(claim, statement=None).unjudged(
        f"{claim.component} {claim.called}: the score is of {count} {what}, so its step is 1/{count}, and the"
        f" limit {claim.limit:.3g} is less than two steps ({STEPS / count:.3g}). Raise drift_at_most.",
        Verdict.ERROR,
    )


def _exact(role: Compared, claim: Claim) -> Claim:
    """Return the claim without an interval where its score is read from weights alone: nothing is estimated there."""
    return replace(claim, interval=None) if role.now.kind.from_weights else claim


def _parts(role: Compared, head: str, task: str | None) -> str:
    """Return what the score is the smallest of, in each reading: one of them alone does not say what was lost."""
    readings, factors = [scores for scores in (role.before, role.now) if scores is not None], role.now.kind.factors
    if role.now.kind.from_weights:
        tokens = _tokens(role, head, task)
        if not _are_hits(role, head):
            return f"(over {tokens} tokens)"
        hits = " -> ".join(f"{round(scores.score(head, task).value * tokens)}" for scores in readings)
        return f"({hits} of {tokens} tokens)"
    if len(factors) == 1:
        return ""
    told = (
        f"{factor} {' -> '.join(f'{scores.factor(factor, head).value:z.2f}' for scores in readings)}"
        for factor in factors
    )
    return f"({', '.join(told)})"


def _tokens(role: Compared, head: str, task: str | None) -> int:
    return sum(len(values) for name, values in role.now.words(head).items() if task in (None, name))


def _are_hits(role: Compared, head: str) -> bool:
    """Say whether a role from weights counts tokens, so that its score has a step."""
    readings = [scores for scores in (role.before, role.now) if scores is not None]
    return role.now.kind.from_weights and all(
        bool(np.isin(values, (0, 1)).all()) for scores in readings for values in scores.words(head).values()
    )


# -- what became of it -------------------------------------------------------------------------------------------------


def _fates(made: Sequence[Made], records: Sequence[Record], told: Callable[[Made, Record], bool]) -> list[str]:
    """Return a line for each role of which some falls are to be told; a task's only where the whole has not fallen."""
    found: dict[tuple[Compared, str | None], list[str]] = {}
    for one, record in zip(made, records, strict=True):
        role, task, claim = one
        if claim.name in ("drift", "task") and told(one, record):
            found.setdefault((role, task), []).append(str(claim.component))
    return [
        shift.fate(heads, role.case.missed)
        for (role, task), heads in found.items()
        if (task is None or (role, None) not in found) and (shift := role.shift(task)) is not None
    ]


def _has_fallen(_: Made, record: Record) -> bool:
    return record.verdict is Verdict.DRIFT


def _is_forgiven(made: Made, record: Record) -> bool:
    """Say whether a claim passes because other heads took over: only where a head has fallen are there two ways."""
    return isinstance(made[2].statement, AnyOf) and record.verdict is Verdict.PASS

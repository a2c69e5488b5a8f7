"""Statements become verdicts: proven inside, proven beyond after Holm, or neither, with what would decide."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from ..records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .statements import Statement

LARGEST_NOISE = 0.1
"""A noise floor above this part of the limit: the instrument is too coarse for the claim."""
NEAR = 2.0
"""An estimate within so many standard errors of its limit is not decided by any practical number of prompts."""
MOST_PROMPTS = 64
"""How many times the prompts at hand are still called practical."""


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses are rejected when, of all, a true one is with probability `alpha` at most (Holm 1979)."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def decide(statements: Sequence[Statement | None], *, missed: float, alpha: float) -> list[Verdict]:
    """Return the verdict of each statement of one check.

    Args:
        statements: all that the check claims; None stands for one that cannot be evaluated. It keeps its place in
            Holm's count, so that the count never depends on what was measured.
        missed: the rate at which a claim that is false may pass.
        alpha: the rate at which any of the claims may be called false although all are true.
    """
    beyond = holm([1.0 if statement is None else statement.p for statement in statements], alpha)
    return [_verdict(statement, missed, out) for statement, out in zip(statements, beyond, strict=True)]


def _verdict(statement: Statement | None, missed: float, beyond: bool) -> Verdict:
    if statement is None:
        return Verdict.NOT_EVALUATED
    if statement.instrument > LARGEST_NOISE:
        return Verdict.ERROR
    if statement.inside(missed):
        return Verdict.PASS
    return Verdict.DRIFT if beyond else Verdict.INCONCLUSIVE


def prompts_that_decide(statement: Statement, prompts: int, *, missed: float, alpha: float) -> int | None:
    """Return how many prompts, in all, would decide a statement that `prompts` leave open; None: no practical number.

    The standard error falls with the root of their number. `alpha` is what Holm leaves to the claim at worst: the
    check's rate over the number of its claims.
    """
    if abs(statement.margin) < NEAR:
        return None

    def decided(total: int) -> bool:
        more = statement.at(total / prompts)
        return more.inside(missed) or more.p <= alpha

    enough = prompts + bisect_left(range(prompts, MOST_PROMPTS * prompts), True, key=decided)
    return enough if decided(enough) else None

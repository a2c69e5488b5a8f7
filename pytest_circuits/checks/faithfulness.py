"""The check `faithfulness`: the circuit alone still carries the behaviour, as it did in the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..gate.statements import AllOf, AnyOf, AtMost, Statement
from .case import Case

if TYPE_CHECKING:
    from ..gate.estimates import Statistic
    from ..records import Result
    from . import Comparison


def judge(comparison: Comparison) -> Result:
    """Return the verdict on the value of F, and on its drift away from 1."""
    case = Case(comparison, "faithfulness")
    claims = case.value_and_drift("F", lambda effects: effects.faithfulness, not_further_from_one)
    return case.result(case.settle(claims))


def not_further_from_one(observed: Statistic, reference: Statistic, limit: float) -> Statement:
    """Return the statement that F has neither fallen nor left 1 by more than `limit`; towards 1 is better.

    The fall is min(F_ref, 1) - F = min(F_ref - F, 1 - F), the overshoot F - 1 - |F_ref - 1| =
    min(F - F_ref, F + F_ref - 2). A minimum is within the limit where either of its two is. Written so, nothing
    depends on which side of 1 an estimate happens to lie, and what both readings share cancels.
    """
    fall = AnyOf((AtMost((reference - observed).estimate, limit), AtMost((-observed + 1).estimate, limit)))
    rise = AnyOf((AtMost((observed - reference).estimate, limit), AtMost((observed + reference - 2).estimate, limit)))
    return AllOf((fall, rise))

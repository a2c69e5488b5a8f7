"""The check `necessity`: without the circuit the behaviour is still gone, as it was in the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..gate.statements import AtMost, Statement
from .case import Case

if TYPE_CHECKING:
    from ..gate.estimates import Statistic
    from ..records import Result
    from . import Comparison


def judge(comparison: Comparison) -> Result:
    """Return the verdict on the value of N, and on its fall."""
    case = Case(comparison, "necessity")
    claims = case.value_and_drift("N", lambda effects: effects.necessity, not_fallen)
    return case.result(case.settle(claims))


def not_fallen(observed: Statistic, reference: Statistic, limit: float) -> Statement:
    """Return the statement that a value has fallen by `limit` at most."""
    return AtMost((reference - observed).estimate, limit)

"""The check `successor`: a successor head still knows its tasks, and still counts on from a digit that was edited."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MeasurementError
from ..gate.effects import finite
from ..gate.estimates import Estimate
from ..gate.scores import Scores, refuse_other_counts
from ..gate.statements import AtMost, at_least
from ..records import Verdict
from .case import Case, Claim
from .roles import STEPS, at_least_two_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..records import Reading, Result, Samples
    from . import Comparison

LIMITS: Mapping[str, str] = {
    "probe_at_least": "probe",
    "transfer_at_least": "transfer",
    "coverage_at_least": "coverage",
    "edit_at_least": "edit numerals 20-29",
    "edit_months_at_least": "edit months",
    "greater_than_at_least": "greater than",
}
"""What each limit is of: a name in `Reading.successor`."""
LEAST = 7
"""Of fewer numbers than these two are no small part."""
OF_MLP = ("probe", "transfer", "coverage")
"""What is read of the first layer's MLP alone, and so is the same for every head: told once."""


def judge(comparison: Comparison) -> Result:
    """Return the verdict on every head with the role: its tasks, its digits, what has fallen. All of it is exact."""
    case, made = Case(comparison, "successor"), list[Claim]()
    for place, head in enumerate(map(str, comparison.file.spec.roles["successor"])):
        numbers = _numbers(case.observed.reading, head)
        left_out = OF_MLP if place else ()
        made += [
            *_stated(case, head, numbers, left_out),
            *_tasks(case, head),
            *_drifts(case, head, numbers, left_out),
        ]
    return case.result(case.settle(made))


def _numbers(reading: Reading, head: str) -> Mapping[str, Samples]:
    """Return a head's numbers by name, checked to be there and finite."""
    found = reading.successor.get(head)
    if not found:
        raise MeasurementError(
            f"successor: expected what {head} makes of digits, found none.\n"
            "  A head that was not measured cannot pass. Measure again; report it if it stays."
        )
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}
    return {name: finite(f"{name!r} of {head}", values, "place") for name, values in arrays.items()}


def _component(head: str, name: str) -> str:
    return "L0.mlp" if name in OF_MLP else head


# -- what the spec asks of a head on this checkpoint alone -------------------------------------------------------------


def _stated(case: Case, head: str, numbers: Mapping[str, Samples], left_out: tuple[str, ...]) -> Iterator[Claim]:
    for key, name in LIMITS.items():
        if getattr(case.limits, key) is not None and name not in left_out:
            claim = case.claim("at_least", "score", key, called=name, component=_component(head, name))
            yield _at_least(case, claim, numbers.get(name))


def _tasks(case: Case, head: str) -> Iterator[Claim]:
    """Yield the claims on single tasks of the role's own score."""
    for task, limit in case.limits.tasks_at_least.items():
        line = case.comparison.file.line("claims", "successor", "tasks_at_least", task)
        claim = Claim(
            name="task", unit="score", limit=limit, line=line, called=f"successor of {task!r}", component=head
        )
        yield _at_least(case, claim, Scores(case.observed, "successor").words(head).get(task))


def _at_least(case: Case, claim: Claim, numbers: Samples | None) -> Claim:
    if numbers is None:
        return claim.unjudged(
            f"{claim.component} {claim.called}: expected numbers to hold to the limit {claim.limit:.3g}, found none:"
            f" the tokenizer of {case.comparison.checkpoint!r} has too few of these words as single tokens.\n"
            "  What cannot be asked cannot pass. Drop this limit, or test a checkpoint that has the words.",
            Verdict.ERROR,
        )
    value = float(numbers.mean())
    return replace(claim, statement=at_least(Estimate(value), claim.limit), value=value, note=_counted(numbers))


# -- what has fallen ---------------------------------------------------------------------------------------------------


def _drifts(case: Case, head: str, numbers: Mapping[str, Samples], left_out: tuple[str, ...]) -> Iterator[Claim]:
    """Yield the claims that nothing of a head has fallen."""
    before = None if case.reference is None else _numbers(case.reference.reading, head)
    if before is not None:
        found, expected = ({name: len(values) for name, values in one.items()} for one in (numbers, before))
        refuse_other_counts(f"{head} successor", found, expected)
    for name in (name for name in numbers if name not in left_out):
        claim = case.claim("drift", "score", "drift_at_most", called=name, component=_component(head, name))
        claim = replace(claim, limit=_limit(case, numbers[name]))
        yield case.without_reference(claim) if before is None else _drift(claim, numbers[name], before[name])


def _limit(case: Case, numbers: Samples) -> float:
    """Return how far hits may fall: as the spec says, or, where it says nothing, the default but no less than two.

    Of very few hits two would be a large part: there the spec has to say.
    """
    limit: float = case.limits.drift_at_most
    if "drift_at_most" in case.limits.model_fields_set or not _are_hits(numbers) or len(numbers) < LEAST:
        return limit
    return max(limit, STEPS / len(numbers))


def _drift(claim: Claim, now: Samples, before: Samples) -> Claim:
    value, reference = float(now.mean()), float(before.mean())
    fall = AtMost(Estimate(reference - value), claim.limit)
    claim = replace(claim, statement=fall, value=value, reference=reference, note=_counted(before, now))
    return at_least_two_steps(claim, len(now), "numbers") if _are_hits(before, now) else claim


def _counted(*readings: Samples) -> str:
    """Return of how many numbers a value is the mean; where they are hits, how many of them are."""
    if not _are_hits(*readings):
        return f"(over {len(readings[0])})"
    return f"({' -> '.join(f'{values.sum():.0f}' for values in readings)} of {len(readings[0])})"


def _are_hits(*readings: Samples) -> bool:
    return all(bool(np.isin(values, (0, 1)).all()) for values in readings)

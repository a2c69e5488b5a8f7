"""The check `controls`: the circuit is more faithful than random circuits of its size."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import MeasurementError
from ..gate.estimates import Estimate
from ..gate.statements import ROUNDING, ShareAtLeast, at_least
from ..records import Result, Verdict
from .case import Case, Claim

if TYPE_CHECKING:
    from ..gate.controls import RandomCircuits
    from ..gate.estimates import Statistic
    from . import Comparison

FEWEST = 20
"""With fewer possible random circuits their share has no resolution."""
AS_GOOD = 0.2
"""A random circuit whose faithfulness is this near 1 does as well as a circuit that one would publish."""


def judge(comparison: Comparison) -> Result:
    """Return the verdict on the share of random circuits that the circuit beats by |F - 1|; ties lose."""
    case = Case(comparison, "controls")
    claim = case.claim("beats_random", "fraction", "beats_random", called="beaten random circuits")
    if case.task_lost is not None:
        return case.result(case.settle([claim.unjudged(case.task_lost)]))
    random = _measured(comparison)
    beaten, warning = _beaten(case.observed.faithfulness, random), says_nothing(random)
    if warning is None:
        return case.result(case.settle([_judged(case, claim, random, beaten)]))
    passed = claim.unjudged(warning, Verdict.PASS)
    return case.result(case.settle([passed]), warnings=[warning])


def says_nothing(random: RandomCircuits) -> str | None:
    """Return why random circuits are no control here, or None where they are."""
    if random.possible < FEWEST:
        return f"only {random.possible} other circuits of this size exist, fewer than {FEWEST}: this claim says nothing"
    good = sum(abs(value - 1) <= AS_GOOD for value in random.faithfulness)
    if 2 * good <= len(random.faithfulness):
        return None
    return (
        f"a random circuit of this size does as well ({good} of {len(random.faithfulness)} have a faithfulness"
        f" within {AS_GOOD} of 1): this claim says nothing"
    )


def _measured(comparison: Comparison) -> RandomCircuits:
    if comparison.random_circuits is None:
        raise MeasurementError(
            "controls: expected random circuits to compare with, found none.\n"
            "  The claim is about them alone. Measure them on the checkpoint, or drop the claim."
        )
    random = comparison.random_circuits()
    if not all(math.isfinite(value) for value in random.faithfulness):
        raise MeasurementError(
            "controls: expected a finite faithfulness of each random circuit, found a NaN or an infinity.\n"
            "  Leaving it out would make the circuit look better or worse. Look at the checkpoint."
        )
    return random


def _beaten(faithfulness: Statistic, random: RandomCircuits) -> int:
    """Return how many random circuits are further from 1 than the circuit, by more than the instrument's noise."""
    nearest = abs(faithfulness.value - 1) + max(ROUNDING, faithfulness.noise)
    return sum(nearest < abs(value - 1) for value in random.faithfulness)


def _judged(case: Case, claim: Claim, random: RandomCircuits, beaten: int) -> Claim:
    """Return the claim: the exact share where all possible circuits were measured, else an exact binomial."""
    drawn = len(random.faithfulness)
    share = beaten / drawn
    if random.exhaustive:
        note = f"({beaten} of all {drawn})"
        return replace(claim, statement=at_least(Estimate(share), claim.limit), value=share, note=note)
    sampled = ShareAtLeast(beaten, drawn, claim.limit)
    return replace(
        claim,
        statement=sampled,
        value=share,
        interval=sampled.interval(case.missed),
        note=f"({beaten} of {drawn} drawn)",
        trials=drawn,
        trials_are="random circuits",
    )

"""Whether a reading can be a reference: it must be able to decide, and to see the loss of what the spec names.

A checkpoint that keeps everything has drift 0, and what then decides is the drift's standard error. It is not known
before there is a checkpoint, so the reference's own stands in for it: that of the same statistic, its variance within
templates. A pooled claim is held to the stratified error of the pooled value, a claim within a template to that
template's at its wider limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..spec.components import Mlp
from ..spec.roles import kind_of
from .agreement import jaccard, spearman
from .edges import of_edges
from .effects import LEAST_OF_REFERENCE, LEAST_STANDARD_ERRORS, Effects, task_lost
from .limits import model_heads, per_template, scaled, weaker_at_most
from .scores import Scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..records import Reading
    from ..spec.claims import Attribution, Necessity, Roles, Successor
    from ..spec.loader import SpecFile
    from ..spec.schema import Spec
    from .estimates import Statistic

TIMES = 0.5
PART_OF_LIMIT = 0.17
"""A reference is refused where half a standard error of its own exceeds 0.17 of the limit.

The paired drift of a checkpoint that kept its circuit has 0.2 to 0.25 of that error (median), 0.57 at most; and at 0.17
of the limit a claim with no drift is all but certain to pass.
"""
SPARE = 1.2
"""A reference's effect is so many times as solid as a ratio asks, so that a benign checkpoint's is solid enough too."""
OF_FIRST_MLP = ("probe", "transfer", "coverage")
"""What is read of digits without any head: it stays when one is lost."""


@dataclass(frozen=True)
class Noisiness:
    """A claim of the spec, what it is of, the reference's own standard error there, the limit, and what was sampled."""

    claim: str
    of: str
    se: float
    limit: float
    samples: int
    samples_are: str = "prompts"

    @property
    def excess(self) -> float:
        """How many times too large the error is."""
        return TIMES * self.se / (PART_OF_LIMIT * self.limit)


def refusals(file: SpecFile, reading: Reading) -> tuple[str, ...]:
    """Return why the reading cannot become the spec's baseline; empty where it can.

    Raises:
        MeasurementError: a part of the reading is undefined.
    """
    effects, rate = Effects(reading), file.spec.rates.missed_drift
    without_effect = (*_without_effect(file.spec, effects, rate), *_edges_without_effect(file.spec, reading, rate))
    if without_effect:
        return without_effect
    unseen = (*_unseen(file.spec, effects, rate), *_unseen_edges(file.spec, reading, rate))
    return (*_undecidable(file.spec, effects), *unseen)


def _within(effects: Effects) -> list[Effects]:
    """Return the effects in each template in which claims are judged again."""
    names = effects.strata.names
    return [effects.within(name) for name in names] if len(names) > 1 else []


def _without_effect(spec: Spec, effects: Effects, rate: float) -> Iterator[str]:
    """Yield a sentence for the suite, or each template, in which there is nothing to lose or to have a share of."""
    for view in (effects, *_within(effects)):
        where = "" if view.template is None else f" in template {view.template!r}"
        if spec.claims.behaviour and view.task.value <= 0:
            yield f"the reference does not do the task{where}: its clean - corrupt is {view.task.value:.3g}."
        elif spec.claims.heads or (view is effects and _divides(spec)):
            lost = task_lost(view, None, rate=rate, errors=SPARE * LEAST_STANDARD_ERRORS)
            if lost:
                yield lost
    for key in spec.roles if spec.claims.roles else ():
        if reason := Scores(effects, key).no_ratio(SPARE * LEAST_STANDARD_ERRORS):
            yield f"the role {key} has no score: {reason}"


def _edges_without_effect(spec: Spec, reading: Reading, rate: float) -> Iterator[str]:
    if spec.claims.edges is not None:
        lost = task_lost(Effects(of_edges(reading)), None, rate=rate, errors=SPARE * LEAST_STANDARD_ERRORS)
        yield from [f"edges: {lost}"] if lost else []


def _divides(spec: Spec) -> bool:
    """Say whether a declared check divides by clean - floor."""
    checks = set(spec.declared) - {"behaviour", "edges", "roles", "attribution", "successor"}
    stated = any(group.role and group.role.effect for group in spec.circuit.values())
    roles = stated or any(kind_of(key).needs_ratio for key in spec.roles)
    return bool(checks) or (spec.claims.roles is not None and roles)


def _undecidable(spec: Spec, effects: Effects) -> Iterator[str]:
    """Yield a sentence for each claim that is too noisy to decide, about its noisiest part."""
    worst: dict[str, Noisiness] = {}
    for noisy in noisiness(spec, effects):
        if noisy.excess > max(1.0, worst[noisy.claim].excess if noisy.claim in worst else 0.0):
            worst[noisy.claim] = noisy
    for noisy in worst.values():
        yield (
            f"{noisy.claim} is too noisy to decide: {noisy.of} has a standard error of {noisy.se:.3g} on the reference,"
            f" and {TIMES:g} of it exceeds {PART_OF_LIMIT:g} of the limit {noisy.limit:.3g}. About"
            f" {math.ceil(noisy.samples * noisy.excess**2)} {noisy.samples_are} would do, there are {noisy.samples};"
            " or widen the limit."
        )


def noisiness(spec: Spec, effects: Effects) -> Iterator[Noisiness]:
    """Yield how noisy each claim is, `check: claim` by what it is of."""
    claims = spec.claims
    views = _within(effects)
    if claims.behaviour:
        for view in (effects, *views):
            limit = _limit(claims.behaviour.loss_at_most, view)
            yield _noisy("behaviour: loss", "B", view, view.task * (1 / view.task.value), limit)
    if claims.faithfulness:
        yield _noisy("faithfulness: drift", "F", effects, effects.faithfulness, claims.faithfulness.drift_at_most)
    if claims.necessity:
        yield _noisy("necessity: drift", "N", effects, effects.necessity, claims.necessity.drift_at_most)
    if claims.heads:
        yield from _noisy_heads(spec, effects, views, claims.heads.share_drift_at_most)
    if claims.edges:
        yield from _noisy_edges(spec, Effects(of_edges(effects.reading)))
    if claims.roles:
        for scores, head in _scored(spec, effects):
            score = scores.score(head)
            noisy = _noisy("roles: drift", f"{head} {scores.key}", effects, score, claims.roles.drift_at_most)
            if "repeats" in scores.kind.factors:
                noisy = replace(noisy, samples=len(score.strata.codes), samples_are="repeated sequences")
            yield noisy


def _scored(spec: Spec, effects: Effects) -> Iterator[tuple[Scores, str]]:
    """Yield the scores of each role of the spec with each head that has the role."""
    for key, heads in spec.roles.items():
        scores = Scores(effects, key)
        yield from ((scores, str(head)) for head in heads)


def _noisy_heads(spec: Spec, effects: Effects, views: list[Effects], limit: float) -> Iterator[Noisiness]:
    named = set(spec.member_heads)
    for head in model_heads(spec):
        name = str(head)
        for view in (effects, *(views if head in named else [])):
            share = view.share(name)
            yield _noisy("heads: share", f"{name} share", view, share, scaled(_limit(limit, view), share.value))
        share = effects.share(name)  # of the reference, strength and share are the same
        weaker = scaled(weaker_at_most(spec), share.value)
        yield _noisy("heads: strength", f"{name} strength", effects, share, weaker)
        if head in named and share.value:
            part = share * (1 / share.value)
            yield _noisy("heads: keep", f"{name} kept part of its share", effects, part, 1.0)


def _noisy_edges(spec: Spec, effects: Effects) -> Iterator[Noisiness]:
    if (limits := spec.claims.edges) is None:
        return
    for of, ratio in (("F of edges", effects.faithfulness), ("N of edges", effects.necessity)):
        yield _noisy("edges: drift", of, effects, ratio, limits.drift_at_most)
    for name in spec.edges:
        share = effects.share(name)
        yield _noisy("edges: share", f"{name} share", effects, share, scaled(limits.share_drift_at_most, share.value))
        if share.value:
            yield _noisy("edges: keep", f"{name} kept part of its share", effects, share * (1 / share.value), 1.0)


def _noisy(claim: str, of: str, view: Effects, statistic: Statistic, limit: float) -> Noisiness:
    where = "" if view.template is None else f" in template {view.template!r}"
    prompts = len(view.reading.templates)
    return Noisiness(claim, of + where, statistic.estimate.se, limit, prompts)


def _limit(limit: float, view: Effects) -> float:
    return limit if view.template is None else per_template(limit)


def _unseen(spec: Spec, effects: Effects, rate: float) -> Iterator[str]:
    """Yield a sentence for each named head whose effect is not proven different from zero."""
    if spec.claims.heads is not None:
        yield from _without_share(map(str, spec.member_heads), effects, rate)


def _unseen_edges(spec: Spec, reading: Reading, rate: float) -> Iterator[str]:
    """Yield a sentence for each named edge whose effect is not proven different from zero."""
    if spec.claims.edges is not None:
        yield from _without_share(spec.edges, Effects(of_edges(reading)), rate)


def _without_share(names: Iterable[str], effects: Effects, rate: float) -> Iterator[str]:
    for head in names:
        strength = effects.share(head).estimate
        low, high = strength.interval(rate)
        if low <= 0 <= high:
            yield (
                f"this prompt set cannot see {head}: its effect {strength.value:.3g} [{low:.3g}, {high:.3g}] is not"
                " proven different from zero. Take it out of the circuit, or ask for prompts in which it matters."
            )


# -- what a loss would move --------------------------------------------------------------------------------------------


def seen_by(file: SpecFile, reading: Reading) -> Mapping[str, tuple[str, ...]]:
    """Return for each head of the circuit the claims that would leave their limits if it took its ablated value.

    From readings at hand alone: the head's loss turns c into h and leaves f and o as they are. What k would become is
    not known, so faithfulness and controls count only where the task itself would be lost. What is said of the head,
    its scores, its attribution and what it makes of digits, becomes 0, and what is said of others stays; an agreement
    of attributions counts only where its fall is a failure. The circuit's MLPs are not told of: no reading shows what a
    model does without one. Empty where the spec does not declare `heads`.
    """
    if file.spec.claims.heads is None:
        return {}
    effects = Effects(reading)
    return {str(head): tuple(_moved(file.spec, effects, str(head))) for head in file.spec.member_heads}


def _moved(spec: Spec, effects: Effects, head: str) -> Iterator[str]:
    claims, share = spec.claims, effects.share(head).value
    lost = effects.removed(head).value
    task_gone = 1 - share <= LEAST_OF_REFERENCE
    if claims.behaviour and lost / effects.task.value > claims.behaviour.loss_at_most:
        yield "behaviour"
    if claims.faithfulness and task_gone:
        yield "faithfulness"
    if claims.necessity and (task_gone or _necessity_falls(claims.necessity, spec, effects, share)):
        yield "necessity"
    if claims.controls and task_gone:
        yield "controls"
    if claims.heads and share:
        yield "heads"
    if claims.roles and _role_falls(claims.roles, spec, effects, head):
        yield "roles"
    if claims.attribution and _agreement_falls(claims.attribution, effects, head):
        yield "attribution"
    if claims.successor and _digits_fall(claims.successor, spec, effects, head):
        yield "successor"


def _necessity_falls(limits: Necessity, spec: Spec, effects: Effects, share: float) -> bool:
    """Return whether N would leave its limits: mean(h - o) / mean(h - f) = (N - S) / (1 - S), the floor being empty."""
    before = effects.necessity.value
    after = (before - share) / (1 - share)
    known = spec.ablation.floor == "empty"
    return known and (after < limits.at_least or before - after > limits.drift_at_most)


def _role_falls(limits: Roles, spec: Spec, effects: Effects, head: str) -> bool:
    """Return whether a role's score would fall beyond its limit; nothing else would take it over."""
    mine = (scores for scores, named in _scored(spec, effects) if named == head)
    return any(scores.score(head).value > limits.drift_at_most for scores in mine)


def _agreement_falls(limits: Attribution, effects: Effects, head: str) -> bool:
    """Return whether attributions without the head's would agree too little with those at hand, where that fails."""
    if limits.on_fall == "warn":
        return False
    found = effects.reading.attribution
    means = np.array([effects.strata.mean(effects.rows(f"attribution to {name}", found[name])) for name in found])
    before = np.where(np.abs(means) > effects.noise, means, 0.0)
    after = np.where(np.array([*found]) == head, 0.0, before)
    if not after.any():
        return bool(before.any())  # of heads without any effect no agreement can be told
    too_few = jaccard(after, before, limits.top) < limits.jaccard_at_least
    return too_few or spearman(after, before) < limits.spearman_at_least


def _digits_fall(limits: Successor, spec: Spec, effects: Effects, head: str) -> bool:
    """Return whether a number of what the head makes of digits would fall below its limit, or by too much."""
    if head not in map(str, spec.roles["successor"]):
        return False
    stated = (limits.edit_at_least, limits.edit_months_at_least, limits.greater_than_at_least)
    own = (values for name, values in effects.reading.successor[head].items() if name not in OF_FIRST_MLP)
    return bool(limits.tasks_at_least) or any(stated) or any(np.mean(one) > limits.drift_at_most for one in own)


def warnings(file: SpecFile, reading: Reading) -> tuple[str, ...]:
    """Return what a person should know before this becomes the baseline: claims that no loss of a head would move."""
    spec = file.spec
    if spec.claims.heads is None:
        return ("the spec does not claim `heads`, so it is not known which check would see the loss of a member.",)
    seen = seen_by(file, reading)
    told = [
        f"{check} cannot fail by the loss of one head of the circuit: none moves it beyond its limits."
        for check in _told_of(spec)
        if seen and not any(check in checks for checks in seen.values())
    ]
    told += [f"no declared check would see the loss of {head}." for head, checks in seen.items() if not checks]
    mlps = sorted(part for part in spec.members if isinstance(part, Mlp))
    if mlps:
        told.append(f"what the loss of {', '.join(map(str, mlps))} would move is not measured.")
    return tuple(told)


def _told_of(spec: Spec) -> list[str]:
    """Return the declared checks of which a failure by a head's loss would be known."""
    attribution = spec.claims.attribution
    only_warns = attribution is not None and attribution.on_fall == "warn"
    left_out = {"faithfulness", "controls", "edges", *(["attribution"] if only_warns else [])}
    return [check for check in spec.declared if check not in left_out]

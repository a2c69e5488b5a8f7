"""What every head of a checkpoint does on a set of prompts, without a verdict: effects, shares, attention, roles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..attribution.direct import is_capped
from ..attribution.methods import attribute
from ..checkpoints.rounding import tolerance
from ..engine.runs import Ablated, Runs
from ..errors import PromptError, SpecError
from ..gate.effects import LEAST_STANDARD_ERRORS, Effects, in_errors, is_solid
from ..gate.estimates import mean
from ..gate.scores import OF_LOGITS, Scores
from ..prompts.files import look_at_pairs
from ..prompts.pairs import pairs_of
from ..records import HeadView, Measured, Overview
from ..roles.reading import every_head, read_role
from ..spec.components import Mlp
from ..spec.loader import SUFFIX, load_spec
from ..spec.roles import kind_of
from ..spec.schema import Ablation, Measure, Tokens
from .case import METRIC_UNITS
from .measurements import ask, notices_of
from .suite import shape_wanted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ..attribution.methods import Attribution
    from ..checkpoints.architectures import Shape
    from ..checkpoints.handle import CheckpointModel
    from ..gate.estimates import Statistic
    from ..prompts.pairs import PromptSet
    from ..records import OfRole, PerPrompt, Watch
    from ..spec.components import Head

DIRECT = "dla"
"""The method that ablates nothing: its effects are in logits, and their whole is the clean logit difference."""
METHODS = ("exact", "eap-ig", "atp", DIRECT)
ANYWHERE = (
    "previous_token",
    "current_token",
    "duplicate_token",
    "induction",
    "copying",
    "copy_suppression",
    "successor",
    "greater_than",
    "number_mover",
)
"""The roles that need neither a slot that is named nor other heads."""
OF_ANSWERS = ("name_mover", "negative_mover")
"""Those that are asked where the answer stands in every prompt."""
OF_EFFECT = {"share", "path"}
"""The factors that are parts of clean - floor, so that something has to be ablated."""


@dataclass(frozen=True)
class Question:
    """What is asked of a checkpoint's heads.

    Attributes:
        name: the circuit's id, or the prompt file's name.
        prompts: the pairs.
        tokens: how they become tokens.
        measure: what is read of a run.
        ablation: what a head takes in place of its own value.
        roles: the spec's roles by their keys, each with the heads that it is defined through.
        shape: the model that the spec is written for; None where there is no spec.
    """

    name: str
    prompts: PromptSet
    tokens: Tokens = field(default_factory=Tokens)
    measure: Measure = field(default_factory=Measure)
    ablation: Ablation = field(default_factory=Ablation)
    roles: Mapping[str, tuple[Head, ...]] = field(default_factory=dict)
    shape: Shape | None = None


def question_in(path: Path, *, root: Path) -> Question:
    """Return what a spec asks, or a CSV or JSONL file of pairs with all else as it is by default.

    Pairs of a file that have no twin are ablated by the mean; those whose twin is longer or shorter are aligned from
    both ends.

    Args:
        path: the file.
        root: the project's root, from which a spec's id counts.

    Raises:
        SpecError, PromptError: every problem of the file.
    """
    if path.name.endswith(SUFFIX):
        file = load_spec(path, root=root)
        spec = file.spec
        roles = {key: spec.movers(key) for key in spec.roles}
        return Question(
            file.circuit, pairs_of(file), spec.tokens, spec.measure, spec.ablation, roles, shape_wanted(file)
        )
    drawn = look_at_pairs(path, str(path))
    has_twins = all(pair.corrupt is not None for pair in drawn.pairs)
    return Question(str(path), drawn, ablation=Ablation(value="resample" if has_twins else "mean", align="slot"))


def look(
    question: Question,
    model: CheckpointModel,
    *,
    method: str = "exact",
    roles: bool = True,
    batch_size: int = 256,
    watch: Watch | None = None,
) -> Overview:
    """Return what every head of a checkpoint does on the prompts.

    Args:
        question: the prompts, and what is read of them.
        model: of any shape: nothing is judged.
        method: one of `METHODS`.
        roles: whether roles are scored.
        batch_size: prompts in a forward at most.
        watch: hears how far the work is.

    Raises:
        PromptError: the prompts cannot be asked of this tokenizer.
        CheckpointRefused: the model cannot be opened, or its tokenizer has tokens that it has not.
        MeasurementError: the metric or the ablation does not go with the method; a number is not finite.
        InstrumentError: a self-check of the measurement failed.
    """
    bound, direct = model.bound, method == DIRECT
    runs = Runs(
        bound,
        ask(question.prompts.pairs, bound, question.tokens, question.ablation),
        value=question.ablation.value,
        metric="logit_diff" if direct else question.measure.metric,
        batch_size=batch_size,
        watch=watch,
    )
    reading = _reading(runs, attribute(runs, method, every_head(bound)), question.ablation)
    effects = Effects(reading)
    read, unread = _read_roles(question, runs, effects, direct=direct) if roles else ({}, {})
    no_share = _no_share(runs, effects, direct=direct)
    scored = Effects(replace(reading, roles=read))
    views = _views(scored, _attention(runs, effects), shares=no_share is None)
    return Overview(
        name=question.name,
        checkpoint=model.source,
        fingerprint=model.fingerprint,
        architecture=model.shape.architecture,
        layers=bound.layers,
        heads_per_layer=bound.heads,
        method=method,
        metric=runs.metric,
        unit=METRIC_UNITS[runs.metric],
        ablation=runs.value,
        prompts=len(reading.templates),
        templates=len(effects.strata.names),
        accuracy=effects.accuracy,
        clean=effects.strata.mean(reading.clean),
        corrupt=effects.strata.mean(reading.corrupt) if _has_twins(runs) else None,
        floor=None if direct else effects.strata.mean(reading.floor),
        noise=_noise(runs, reading),
        heads=views,
        unread=unread,
        notices=(
            *_of_question(question, model.shape, direct=direct),
            *notices_of(question.prompts, runs.encoded),
            *_of_numbers(runs, effects, no_share),
        ),
    )


# -- what is measured --------------------------------------------------------------------------------------------------


def _reading(runs: Runs, found: Attribution, ablation: Ablation) -> Measured:
    """Return the effects as a reading without roles: what is left of the clean metric is h = c - effect.

    No circuit is named, so what would be measured of one is no number, and who asked for it would be refused.
    """
    clean = runs.clean
    nothing = np.full(len(clean), np.nan)
    corrupt = runs.corrupt if _has_twins(runs) else nothing
    return Measured(
        templates=tuple(row.pair.template for row in runs.encoded),
        clean=clean,
        corrupt=corrupt,
        clean_logit_diff=runs.clean_logit_diff,
        circuit=nothing,
        knockout=nothing,
        floor=_floor(runs, found.method, ablation),
        heads={str(part): clean - effect for part, effect in zip(found.parts, found.effects, strict=True)},
        roles={},
        noise=runs.noise(),
    )


def _floor(runs: Runs, method: str, ablation: Ablation) -> PerPrompt:
    """Return what effects are counted from: of direct ones the whole is the logit difference itself, from 0 on."""
    if method == DIRECT:
        return np.zeros(len(runs.encoded))
    if ablation.floor == "corrupt":
        return runs.corrupt
    mlps = (Mlp(layer) for layer in range(runs.model.layers))
    return runs.ablated(Ablated(frozenset({*every_head(runs.model), *mlps})))


def _attention(runs: Runs, effects: Effects) -> dict[str, float]:
    """Return each head's mean attention from the answer position to the flipped slot; none where a prompt has none."""
    if not all(row.flip for row in runs.encoded):
        return {}
    found = runs.attention(every_head(runs.model), lambda row: row.flip)
    return {
        str(head): mean(effects.rows(f"attention of {head}", values), effects.strata).value
        for head, values in found.items()
    }


def _views(effects: Effects, attention: Mapping[str, float], *, shares: bool) -> dict[str, HeadView]:
    """Return what each head comes to, of a reading with all roles that were read."""
    scores = {key: Scores(effects, key) for key in effects.reading.roles}
    return {
        head: HeadView(
            effect=effects.removed(head).value,
            standard_error=_standard_error(effects.removed(head)),
            share=effects.share(head).value if shares else None,
            attention=attention.get(head),
            roles={key: of_role.score(head).value for key, of_role in scores.items()},
        )
        for head in effects.reading.heads
    }


def _noise(runs: Runs, reading: Measured) -> float:
    """Return what rounding alone may make of a value: the noise floor, or more where running otherwise moves nothing.

    A few prompts run in a few ways may agree to the last digit, and the sweep over all heads runs in yet another way.
    """
    largest = max(np.abs(values).max() for values in (reading.clean, reading.floor))
    return max(reading.noise, tolerance(runs.model.dtype) * float(largest))


def _has_twins(runs: Runs) -> bool:
    return all(row.corrupt is not None for row in runs.encoded)


# -- roles -------------------------------------------------------------------------------------------------------------


def _read_roles(
    question: Question, runs: Runs, effects: Effects, *, direct: bool
) -> tuple[dict[str, OfRole], dict[str, str]]:
    """Return what each role is made of, by its key, and why others have no score."""
    read: dict[str, OfRole] = {}
    unread: dict[str, str] = {}
    for key, movers in _roles_asked(question, runs).items():
        if reason := _meaningless(key, runs, effects, direct=direct):
            unread[key] = reason
            continue
        try:
            found = read_role(key, runs, movers)
        except (PromptError, SpecError) as error:
            unread[key] = str(error).partition("\n")[0]
        else:
            read[key] = {str(head): named for head, named in found.items()}
    return read, unread


def _roles_asked(question: Question, runs: Runs) -> dict[str, tuple[Head, ...]]:
    """Return the roles that are scored, the spec's own first, each with the heads that it is defined through."""
    stands = all(row.answer in row.clean for row in runs.encoded)
    others = (*ANYWHERE, *(OF_ANSWERS if stands else ()))
    return {**question.roles, **{name: () for name in others if name not in question.roles}}


def _meaningless(key: str, runs: Runs, effects: Effects, *, direct: bool) -> str | None:
    """Return why a role's score would mean nothing, whatever is read of it."""
    factors = set(kind_of(key).factors)
    if "path" in factors and runs.value != "resample":
        return f"it asks what reaches the movers from the corrupt run, and the ablation here is {runs.value}"
    if direct and factors & OF_EFFECT:
        return f"it asks what is lost without a head, and {DIRECT} takes none out; take exact, atp or eap-ig"
    if factors & OF_EFFECT and (reason := _unsound(effects.total, "clean - floor")):
        return reason
    return _unsound(effects.logits, "the clean logit difference") if factors & set(OF_LOGITS) else None


# -- what is known of it -----------------------------------------------------------------------------------------------


def _standard_error(statistic: Statistic) -> float | None:
    """Return a standard error; None where a template has one prompt, whose spread nobody knows."""
    return None if statistic.strata.counts.min() < 2 else statistic.estimate.se


def _no_share(runs: Runs, effects: Effects, *, direct: bool) -> str | None:
    """Return why no effect may be told as a share of the whole, or None where they may."""
    if direct and is_capped(runs):
        return "the model caps its logits, and direct effects sum to the difference in front of the cap"
    return _unsound(effects.total, "the clean logit difference" if direct else "clean - floor")


def _unsound(whole: Statistic, what: str) -> str | None:
    """Return why nothing may be told as a part of `whole`, or None where it may.

    It must be large beside its standard error; where that is unknown, beside the instrument's noise, so that a part is
    at least one of these very prompts.
    """
    if _standard_error(whole) is not None:
        return None if is_solid(whole.estimate) else f"{what} is {in_errors(whole.estimate)}"
    if whole.value > LEAST_STANDARD_ERRORS * whole.noise:
        return None
    return f"{what} is {whole.value:.3g}, and a ratio needs it to be positive and above rounding"


def _of_question(question: Question, shape: Shape, *, direct: bool) -> Iterator[str]:
    """Yield what a reader should know of the spec, beside the checkpoint."""
    ablation, metric = question.ablation, question.measure.metric
    if question.shape not in (None, shape):
        yield (
            f"the spec is for {question.shape}, and this checkpoint is {shape}: its heads are not those that the spec "
            "names, and nothing is judged"
        )
    if shape.probed:
        yield f"the architecture {shape.architecture!r} has no row: its parts were probed, and hold every check"
    if direct and metric != "logit_diff":
        yield f"direct effects are in logits, so the spec's metric {metric} is not read"
    if not direct and ablation.positions != "all":
        yield f"heads are replaced where ablation.positions says, and nowhere else: {ablation.positions}"
    if not direct and ablation.floor == "corrupt":
        yield "the floor is the corrupt run, as ablation.floor says"


def _of_numbers(runs: Runs, effects: Effects, no_share: str | None) -> Iterator[str]:
    """Yield what is missing, and why."""
    if not _has_twins(runs):
        yield "the prompts have no corrupt twin, so no slot is flipped that a head could look at"
    elif not all(row.flip for row in runs.encoded):
        yield "a twin only adds tokens to its prompt, so there is none that a head could look at for the flipped slot"
    if no_share:
        yield f"no shares: {no_share}"
    if effects.strata.counts.min() < 2:
        yield "a template has 1 prompt, so there are no standard errors: all of it is of these prompts alone"
    yield from runs.notices

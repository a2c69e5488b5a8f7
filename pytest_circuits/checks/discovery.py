"""A circuit is found on one half of the prompts and measured on the other; how stable it is, and what that cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from ..attribution.curves import curve
from ..attribution.edges import Edges, eap_ig
from ..attribution.graph import wires_of
from ..attribution.nodes import integrated
from ..attribution.search import greedy_runs, smallest
from ..attribution.wiring import wired
from ..engine.runs import Ablated, Runs
from ..errors import MeasurementError, PromptError
from ..gate.effects import in_errors, is_solid
from ..gate.estimates import mean, ratio, ratio_of_means, strata_of
from ..roles.reading import every_head
from ..spec.components import Component, Mlp
from ..spec.edges import Edge
from .measurements import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from ..attribution.graph import Wires
    from ..checkpoints.model import BoundModel
    from ..gate.estimates import Statistic, Strata
    from ..prompts.pair import Pair
    from ..records import PerPrompt, Watch
    from .overview import Question

STEPS = 2
"""Points of the gradient pass: it says where to look, and exact runs decide."""
RESAMPLED = 20
"""Halves of the prompts on which the ranking is made again."""
FEWEST = 16
"""Pairs that a half needs at least."""
PLAIN = 3
"""Runs without a search: clean, corrupt, floor."""


@dataclass(frozen=True)
class Discovered:
    """The smallest circuit that was found.

    Attributes:
        members: names of parts, or of edges, the most important first.
        edges: whether they are edges.
        least: how near to the model's own effect the circuit had to come, as 1 - |1 - F|.
        faithfulness: F on the prompts on which it was found.
        held_out: F on the others, with its standard error.
        stability: for each member in how many of `RESAMPLED` halves of the prompts it is among the first of as many as
            there are members.
        jaccard: the mean Jaccard index of these sets with the circuit.
        found_on, measured_on: the templates of each half, or nothing where there is but one stratum.
        runs: of every prompt that it was found on, in forwards: the circuits that were run, the plain runs, and the
            gradient pass with its backward passes. Self-checks of the instrument are not counted.
        greedy: what greedy exact search takes.
        parts: how many parts, or edges, the model has.
        cpr, cmd: of edges, the areas of `attribution.curves`: ranked on one half, measured on the other.
        attributed: of edges, the effects that ranked them.
    """

    members: tuple[str, ...]
    edges: bool
    least: float
    faithfulness: float
    held_out: Statistic
    stability: tuple[int, ...]
    jaccard: float
    found_on: tuple[str, ...]
    measured_on: tuple[str, ...]
    runs: int
    greedy: int
    parts: int
    cpr: float | None = None
    cmd: float | None = None
    attributed: Edges | None = None


def discover(
    question: Question,
    model: BoundModel,
    *,
    edges: bool = False,
    least: float = 0.9,
    batch_size: int = 256,
    watch: Watch | None = None,
) -> Discovered:
    """Return the smallest circuit of parts, or of edges, that is found.

    Args:
        question: the prompts, and what is read of them.
        model: a bound model.
        edges: whether a circuit of edges is meant.
        least: how near to the whole effect it must come, as 1 - |1 - F|: too much is no better than too little.
        batch_size: prompts in a forward at most.
        watch: hears how far the work is.

    Raises:
        PromptError: there are too few pairs to find on one half and measure on the other.
        MeasurementError: the model does not do the task; no circuit keeps so much of it.
        InstrumentError: a self-check of the measurement failed.
    """
    halves = [
        Runs(
            model,
            ask(half, model, question.tokens, question.ablation),
            value=question.ablation.value,
            metric=question.measure.metric,
            batch_size=batch_size,
            watch=watch,
        )
        for half in halves_of(question.prompts.pairs)
    ]
    kind = _Edges if edges else _Parts
    searched, other = (kind(runs, question.ablation.floor) for runs in halves)
    searched.refuse_no_task()
    other.refuse_no_task()
    scores = searched.scores()
    found = smallest(
        _first(scores, searched.strata),
        lambda circuits: [1 - abs(1 - f) for f in searched.faithfulness(circuits)],
        least=least,
    )
    counts, jaccard = _stability(scores, searched, found.members)
    attributed = searched.attributed if isinstance(searched, _Edges) else None
    on, off = (tuple(dict.fromkeys(row.pair.template for row in runs.encoded)) for runs in halves)
    return Discovered(
        members=tuple(searched.names[at] for at in found.members),
        edges=edges,
        least=least,
        faithfulness=searched.faithfulness([found.members])[0],
        held_out=other.measured(found.members),
        stability=counts,
        jaccard=jaccard,
        found_on=on if on != off else (),
        measured_on=off if on != off else (),
        runs=found.runs + PLAIN + (2 * STEPS + 1),
        greedy=greedy_runs(len(scores), len(found.members)),
        parts=len(scores),
        cpr=None if attributed is None else curve(other.runs, attributed, by="effect").cpr,
        cmd=None if attributed is None else curve(other.runs, attributed, by="size").cmd,
        attributed=attributed,
    )


def halves_of(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs on which a circuit is found, and those on which it is measured: every other template.

    Pairs of a single template are divided by the sha256 of their prompts, so that no order decides. Pairs that share
    their clean prompt, or mirror each other, and templates with such pairs stay together: on what a circuit was sought
    it is not measured.

    Raises:
        PromptError: a half has too few pairs.
    """
    groups = _together(pairs)
    if len({pair.template for pair in pairs}) == 1:
        groups.sort(key=lambda group: min(sha256(pair.clean.encode()).digest() for pair in group))
    halves = [pair for group in groups[::2] for pair in group], [pair for group in groups[1::2] for pair in group]
    if min(map(len, halves)) < FEWEST:
        raise PromptError(
            f"a circuit is found on one half of the prompts and measured on the other, each of {FEWEST} pairs at least,"
            f" and the smaller half has {min(map(len, halves))}; pairs and templates that share prompts stay"
            " together.\n  On fewer, what is found is what these prompts have in common by chance. Give more pairs."
        )
    return halves


def _together(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Return the pairs in groups that share no clean prompt and no mirrored pair; of several templates, none."""
    several = len({pair.template for pair in pairs}) > 1
    group_of: dict[object, int] = {}
    groups: list[list[Pair]] = []
    for pair in pairs:
        marks = [("clean", pair.clean), ("both", frozenset({pair.clean, pair.corrupt}))]
        marks += [("template", pair.template)] if several else []
        known = sorted({group_of[mark] for mark in marks if mark in group_of})
        home = known[0] if known else len(groups)
        if not known:
            groups.append([])
        for other in known[1:]:
            groups[home] += groups[other]
            groups[other] = []
            group_of |= {mark: home for mark, at in group_of.items() if at == other}
        groups[home].append(pair)
        group_of |= dict.fromkeys(marks, home)
    return [group for group in groups if group]


class _Half(ABC):
    """The parts of a model, or its edges, on one half of the prompts."""

    def __init__(self, runs: Runs, floor: str) -> None:
        self.runs, self.of_corrupt = runs, floor == "corrupt"
        self.strata = strata_of([row.pair.template for row in runs.encoded])
        self._known: dict[tuple[int, ...], float] = {}

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The parts or edges, by name."""

    @abstractmethod
    def scores(self) -> Float[np.ndarray, "names prompts"]:
        """Return what is attributed to each, in the metric's unit."""

    @abstractmethod
    def kept(self, circuits: Sequence[Sequence[int]]) -> Float[np.ndarray, "circuits prompts"]:
        """Return the metric with each circuit alone, by the places of its members."""

    @cached_property
    def floor(self) -> PerPrompt:
        """The metric of the corrupt run, or of the empty circuit."""
        return self.runs.corrupt if self.of_corrupt else np.asarray(self.kept([[]])[0])

    @property
    def effect(self) -> PerPrompt:
        """Clean less floor."""
        return np.asarray(self.runs.clean - self.floor)

    def faithfulness(self, circuits: Sequence[Sequence[int]]) -> list[float]:
        """Return F of each circuit; each is run once."""
        new = [members for members in dict.fromkeys(map(tuple, circuits)) if members not in self._known]
        for members, k in zip(new, self.kept(new) if new else (), strict=True):
            self._known[members] = ratio_of_means(k - self.floor, self.effect, self.strata)
        return [self._known[tuple(members)] for members in circuits]

    def measured(self, members: Sequence[int]) -> Statistic:
        """Return F of one circuit with its standard error."""
        return ratio(self.kept([members])[0] - self.floor, self.effect, self.strata)

    def refuse_no_task(self) -> None:
        """Raise MeasurementError where there is nothing of which a circuit could keep a part."""
        total = mean(self.effect, self.strata).estimate
        if not is_solid(total):
            raise MeasurementError(
                f"a circuit was searched that keeps {self.runs.model.name!r}'s clean - floor, which is "
                f"{in_errors(total)}.\n  Of nothing no part can be kept. Does the model do the task? "
                "`pytest-circuits heads` shows its accuracy. If it does, give more pairs."
            )


class _Parts(_Half):
    """Heads and MLPs: outside of a circuit they take their ablated value."""

    @cached_property
    def parts(self) -> list[Component]:
        """Every head and MLP."""
        model = self.runs.model
        return [*every_head(model), *(Mlp(layer) for layer in range(model.layers))]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [str(part) for part in self.parts]

    def scores(self) -> Float[np.ndarray, "names prompts"]:
        """Return the node form of EAP-IG."""
        return integrated(self.runs, self.parts, steps=STEPS)

    def kept(self, circuits: Sequence[Sequence[int]]) -> Float[np.ndarray, "circuits prompts"]:
        """Run with all other parts ablated."""
        everything = frozenset(self.parts)
        request = [Ablated(everything - {self.parts[at] for at in members}) for members in circuits]
        return self.runs.sweep("circuits", request)


class _Edges(_Half):
    """Edges: outside of a circuit they are cut."""

    @cached_property
    def wires(self) -> Wires:
        """The model's edges."""
        return wires_of(self.runs.model)

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Where each edge stands in the wires."""
        return [(row, column) for row, column in np.argwhere(self.wires.edges).tolist()]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [str(Edge(self.wires.senders[row], self.wires.receivers[column])) for row, column in self.places]

    @cached_property
    def attributed(self) -> Edges:
        """EAP-IG of every edge."""
        return eap_ig(self.runs, steps=STEPS)

    def scores(self) -> Float[np.ndarray, "names prompts"]:
        """Return EAP-IG."""
        rows, columns = zip(*self.places, strict=True)
        return np.asarray(self.attributed.effects[rows, columns], dtype=np.float64)

    def kept(self, circuits: Sequence[Sequence[int]]) -> Float[np.ndarray, "circuits prompts"]:
        """Run with all other edges cut."""
        masks = []
        for members in circuits:
            mask = np.zeros_like(self.wires.edges)
            for at in members:
                mask[self.places[at]] = True
            masks.append(mask)
        return wired(self.runs, masks, what="circuits")


def _first(scores: Float[np.ndarray, "names prompts"], strata: Strata, count: int | None = None) -> list[int]:
    """Return the places of the largest mean scores, templates weighing equally; of equals the first."""
    means = np.abs([strata.mean(row) for row in scores])
    return [int(at) for at in np.argsort(-means, kind="stable")[:count]]


def _stability(
    scores: Float[np.ndarray, "names prompts"], half: _Half, members: Sequence[int]
) -> tuple[tuple[int, ...], float]:
    """Return how often each member is among the first, on halves of the prompts, and how like these are the circuit.

    No run is made again: each prompt has scores of its own. Which prompts a half has, their sha256 says.
    """
    counts, alike = dict.fromkeys(members, 0), []
    for number in range(RESAMPLED):
        drawn = _drawn(half.runs, number)
        strata = strata_of([half.runs.encoded[at].pair.template for at in drawn])
        found = set(_first(scores[:, drawn], strata, len(members)))
        alike.append(len(found & set(members)) / len(found | set(members)))
        for member in found & set(members):
            counts[member] += 1
    return tuple(counts[member] for member in members), float(np.mean(alike))


def _drawn(runs: Runs, number: int) -> list[int]:
    """Return half of the prompts of each template, by the sha256 of a number and the prompt."""
    found = []
    templates = [row.pair.template for row in runs.encoded]
    for template in dict.fromkeys(templates):
        of_it = [at for at, name in enumerate(templates) if name == template]
        of_it.sort(key=lambda at: sha256(f"{number}:{runs.encoded[at].pair.clean}".encode()).digest())
        found += of_it[: -(-len(of_it) // 2)]
    return sorted(found)

"""The frozen values that flow through the house: Measured, Record, Result, Overview."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from jaxtyping import Float

    PerPrompt = Float[np.ndarray, "prompts"]
    Samples = Float[np.ndarray, "samples"]
    OfRole = Mapping[str, Mapping[str, Samples]]


PER_PROMPT = ("attention", "direct", "path", "backup")
"""Of a role's numbers those of which there is one a prompt; others are of repeated sequences, or of words."""
EDGES_ALONE, EDGES_OUT, EDGES_NONE = "alone", "out", "none"
"""Of a spec's edges the runs of all of them: these alone live, these alone cut, every edge of the model cut."""
Watch = Callable[[str, int, int], None]
"""Hears of long work: which part runs, and how many of its forwards are done of how many planned."""


class Verdict(StrEnum):
    """What a claim, a check or a run comes to; a run is its worst check, in the order of `SEVERITY`."""

    PASS = "pass"
    INCONCLUSIVE = "inconclusive"
    NOT_EVALUATED = "not-evaluated"
    DRIFT = "drift"
    ERROR = "error"


SEVERITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.NOT_EVALUATED, Verdict.DRIFT, Verdict.ERROR)


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the most severe verdict; nothing at all is an error, because what did not run is never green."""
    return max(verdicts, key=SEVERITY.index, default=Verdict.ERROR)


class Reading(Protocol):
    """Per-prompt numbers of one circuit on one checkpoint: measured now when asked for, or read from a baseline.

    Every array has shape (prompts,) and holds the spec's metric in its own unit, oriented so that more is better.
    A part that a baseline lacks raises BaselineError; one that cannot be measured raises MeasurementError.
    """

    @property
    def templates(self) -> tuple[str, ...]:
        """The stratum of each prompt, of length prompts."""

    @property
    def clean(self) -> PerPrompt:
        """c: the metric of the clean run."""

    @property
    def corrupt(self) -> PerPrompt:
        """x: the metric of the corrupt run."""

    @property
    def clean_logit_diff(self) -> PerPrompt:
        """Answer minus foil on the clean prompt, in logits, whatever the metric is."""

    @property
    def circuit(self) -> PerPrompt:
        """k: everything outside the circuit takes its ablated value."""

    @property
    def knockout(self) -> PerPrompt:
        """o: the circuit takes its ablated value."""

    @property
    def floor(self) -> PerPrompt:
        """f: the empty circuit, or the corrupt run."""

    @property
    def heads(self) -> Mapping[str, PerPrompt]:
        """h: one head out, for every head of the model, by its name `L2H0`."""

    @property
    def roles(self) -> Mapping[str, OfRole]:
        """For each role of the spec, by its key, and every head of the model: what the head's score is made of.

        By name: of `PER_PROMPT` a number a prompt; `50 repeated tokens`, a number a sequence; or for each task of a
        role that is read from weights a number a token.
        """

    @property
    def noise(self) -> float:
        """The instrument's noise in the metric's unit: the largest change of a value by another batch size."""

    @property
    def attribution(self) -> Mapping[str, PerPrompt]:
        """What is attributed to every head of the model, by the method that the spec claims: positive helps."""

    @property
    def edges(self) -> Mapping[str, PerPrompt]:
        """The runs of the spec's edges: `alone`, `out`, `none`, and by its name that in which one edge is cut."""

    @property
    def successor(self) -> OfRole:
        """For each head with the role successor, by name: what it makes of digits, a number a token or an edit."""


@dataclass(frozen=True)
class Measured:
    """A `Reading` whose parts are all at hand, as a baseline stores them."""

    templates: tuple[str, ...]
    clean: PerPrompt
    corrupt: PerPrompt
    clean_logit_diff: PerPrompt
    circuit: PerPrompt
    knockout: PerPrompt
    floor: PerPrompt
    heads: Mapping[str, PerPrompt]
    roles: Mapping[str, OfRole]
    noise: float
    attribution: Mapping[str, PerPrompt] = field(default_factory=dict)
    successor: OfRole = field(default_factory=dict)
    edges: Mapping[str, PerPrompt] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One reading of a claim: the numbers that decided, as plain builtins.

    `value` is what was observed and `reference` what it is compared with, both in `unit`; `drift` is their signed
    difference. `interval` is the drift's where there is one, else the value's. What is undefined is None, never 0.
    `template` names the stratum of a claim that is judged within one.
    """

    circuit: str
    checkpoint: str
    check: str
    claim: str
    component: str | None
    verdict: Verdict
    value: float | None
    reference: float | None
    drift: float | None
    interval: tuple[float, float] | None
    limit: float | None
    unit: str
    prompts: int
    templates: int
    message: str
    line: int
    template: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record as the result file holds it: plain builtins."""
        plain = dict(self.__dict__)
        plain["verdict"] = str(self.verdict)
        plain["interval"] = None if self.interval is None else list(self.interval)
        return plain


@dataclass(frozen=True)
class HeadEffect:
    """A head's strength and share, beside the reference's, pooled; shares per template. None where undefined."""

    strength: float | None
    share: float | None
    reference_strength: float | None
    reference_share: float | None
    templates: Mapping[str, float | None]


@dataclass(frozen=True)
class Result:
    """A check of a circuit on a checkpoint: its records, worst first, and what a person should read."""

    circuit: str
    checkpoint: str
    check: str
    verdict: Verdict
    records: tuple[Record, ...]
    headline: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]
    heads: Mapping[str, HeadEffect]
    line: int


@dataclass(frozen=True)
class HeadView:
    """What one head does on a set of prompts; what is undefined is None, never 0.

    `effect` is the mean of clean - patched, in the overview's unit, with its standard error; `share` is its part of the
    whole effect. `attention` goes from the answer position to the flipped slot, between 0 and 1. `roles` maps a role's
    key to the head's score.
    """

    effect: float
    standard_error: float | None
    share: float | None
    attention: float | None
    roles: Mapping[str, float]


@dataclass(frozen=True)
class Overview:
    """What every head of a checkpoint does on a set of prompts. Nothing is judged.

    Means are over the prompts of a template, then over templates. `name` is the circuit's id or the file's name,
    `unit` that of all effects and means, `accuracy` the prompts whose answer beats its foil, and how many there are.
    `floor` is None where nothing was ablated, `corrupt` where a prompt has no twin. `noise` is what rounding alone may
    make of a value. `unread` maps a role that has no score to the reason.
    """

    name: str
    checkpoint: str
    fingerprint: str
    architecture: str
    layers: int
    heads_per_layer: int
    method: str
    metric: str
    unit: str
    ablation: str
    prompts: int
    templates: int
    accuracy: tuple[int, int]
    clean: float
    corrupt: float | None
    floor: float | None
    noise: float
    heads: Mapping[str, HeadView]
    unread: Mapping[str, str]
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain builtins."""
        plain = dict(self.__dict__)
        plain["accuracy"], plain["notices"] = list(self.accuracy), list(self.notices)
        plain["heads"] = {head: {**view.__dict__, "roles": dict(view.roles)} for head, view in self.heads.items()}
        plain["unread"] = dict(self.unread)
        return plain

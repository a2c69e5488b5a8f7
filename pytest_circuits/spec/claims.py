"""What a spec may claim: a section for each check, with its limits."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .roles import TaskName
from .section import Count, Fraction, OpenFraction, Positive, Section

CHECKS = ("behaviour", "faithfulness", "necessity", "controls", "heads", "edges", "roles", "attribution", "successor")
"""The checks that a spec may declare, in the order in which they are told."""


Tasks = dict[TaskName, Fraction]
"""A limit on the score of each task."""


class Behaviour(Section):
    """The task is still solved."""

    accuracy_at_least: OpenFraction = 0.90
    loss_at_most: Positive = 0.20


class Faithfulness(Section):
    """The circuit alone carries the behaviour."""

    at_least: Positive = 0.80
    drift_at_most: Positive = 0.10


class Necessity(Section):
    """Without the circuit the behaviour is gone."""

    of: Literal["heads", "all"] | None = None
    """What is taken out; heads where heads are named."""
    at_least: Positive = 0.80
    drift_at_most: Positive = 0.10


class Controls(Section):
    """Random circuits of the same size do worse."""

    beats_random: OpenFraction = 0.90
    match: Literal["layer", "size"] = "layer"


class Heads(Section):
    """Every head keeps its part in the behaviour."""

    share_drift_at_most: Positive = 0.10
    weaker_at_most: Positive | None = None
    """Behaviour's loss limit where it is not given."""
    keep_at_least: Fraction = 0.5


class Edges(Section):
    """The named edges alone carry the behaviour, and each keeps its part in it."""

    at_least: Positive = 0.80
    """Faithfulness with these edges alone."""
    necessity_at_least: Positive | None = None
    """What is lost without them."""
    drift_at_most: Positive = 0.10
    """How far either may fall, or faithfulness move away from 1."""
    share_drift_at_most: Positive = 0.10
    """How much the share of a single edge may change."""
    keep_at_least: Fraction = 0.5
    """The least part of its share in the reference that an edge must keep, so that a small one can fail too."""


class Roles(Section):
    """The heads still do what their role says."""

    drift_at_most: Positive = 0.10
    on_move: Literal["fail", "warn", "allow"] = "fail"
    """What is said of a head whose role other heads took over."""
    mass_drift_at_most: Positive | None = None
    """How far the sum over all heads may fall where a move is forgiven; `drift_at_most` where it is not given."""


class Attribution(Section):
    """Attribution still finds the heads that it found in the reference."""

    method: Literal["exact", "atp", "eap-ig", "dla"] = "eap-ig"
    """How effects are attributed to heads; `exact` is the same as for the check `heads`."""
    spearman_at_least: OpenFraction = 0.8
    """Of the order of all heads by their effects."""
    top: Count = 10
    """How many of the largest heads are compared."""
    jaccard_at_least: OpenFraction = 0.5
    """The share of those that are the largest in either which are so in both."""
    on_fall: Literal["warn", "fail"] = "warn"
    """What is said of an agreement below its limit."""


class Successor(Section):
    """A successor head still counts on from the digit that it reads."""

    probe_at_least: Fraction | None = None
    """A linear probe finds a numeral's last digit in what MLP_0 writes."""
    transfer_at_least: Fraction | None = None
    """The same probe finds the index of other sequences' members."""
    coverage_at_least: Fraction | None = None
    """A numeral lies along the direction of its own last digit."""
    edit_at_least: Fraction | None = None
    """The head counts on from an edited digit, in the numerals 20 to 29."""
    edit_months_at_least: Fraction | None = None
    """The same in months."""
    greater_than_at_least: Fraction | None = None
    """The head writes for numerals greater than the one it reads."""
    tasks_at_least: Tasks = Field(default_factory=dict)
    """The least successor score on single tasks."""
    drift_at_most: Positive = 0.10


class Claims(Section):
    """What is checked; a check that is named without limits takes the defaults."""

    behaviour: Behaviour | None = None
    faithfulness: Faithfulness | None = None
    necessity: Necessity | None = None
    controls: Controls | None = None
    heads: Heads | None = None
    edges: Edges | None = None
    roles: Roles | None = None
    attribution: Attribution | None = None
    successor: Successor | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_name_means_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: {} if limits is None else limits for name, limits in data.items()}

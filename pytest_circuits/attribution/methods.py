"""Attribution under one roof: a method's name gives the effect of every part, or of every edge, on every prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import MeasurementError
from ..spec.edges import Sender
from .direct import direct_effects
from .edges import Edges, eap, eap_ig
from .exact import denoising, noising
from .graph import senders_of
from .nodes import atp, atp_star, integrated

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..engine.runs import Runs
    from ..records import PerPrompt

T = TypeVar("T")


@dataclass(frozen=True)
class Attribution:
    """The effect of each part on each prompt: how much of the metric is lost without it.

    Attributes:
        method: its name in `METHODS`.
        parts: embedding, heads and MLPs.
        effects: of shape (parts, prompts), in the metric's unit; with `dla` in logits. With `atp*` sizes, never
            negative.
    """

    method: str
    parts: tuple[Sender, ...]
    effects: Float[np.ndarray, "parts prompts"]

    def of(self, part: Sender) -> PerPrompt:
        """Return the effect of one part; ValueError where it was not attributed."""
        return np.asarray(self.effects[self.parts.index(part)])


def _direct(runs: Runs, parts: Sequence[Sender]) -> Float[np.ndarray, "parts prompts"]:
    found = direct_effects(runs)
    return np.stack([found.of(part) for part in parts])


OfParts = Callable[["Runs", Sequence[Sender]], "Float[np.ndarray, 'parts prompts']"]
METHODS: Mapping[str, OfParts] = {
    "exact": noising,
    "denoising": denoising,
    "atp": atp,
    "atp*": atp_star,
    "eap-ig": integrated,
    "dla": _direct,
}
"""What replaces each part by its ablated value; puts the clean one into the corrupt run; follows the gradient; follows
it past saturation and cancellation; follows the mean gradient on the way (the sum over each part's EAP-IG edges); and
what each part adds to the logits directly."""
EDGE_METHODS: Mapping[str, Callable[[Runs], Edges]] = {
    "eap": eap,
    "eap-ig": eap_ig,
    "eap-ig-activations": partial(eap_ig, along="activations"),
}


def attribute(runs: Runs, method: str, parts: Sequence[Sender] | None = None) -> Attribution:
    """Return the effect of parts, all of the model's by default.

    Raises:
        MeasurementError: there is no such method; the metric or the ablation does not go with it.
    """
    asked = senders_of(runs.model) if parts is None else tuple(parts)
    return Attribution(method, asked, _known(METHODS, method)(runs, asked))


def attribute_edges(runs: Runs, method: str) -> Edges:
    """Return the effect of every edge.

    Raises:
        MeasurementError: there is no such method; the metric does not go with it.
        PromptError: the architecture has no weights by which a head reads.
    """
    return _known(EDGE_METHODS, method)(runs)


def _known(methods: Mapping[str, T], method: str) -> T:
    if method not in methods:
        raise MeasurementError(
            f"attribution is by one of {', '.join(methods)}, found {method!r}.\n"
            "  Each says something else of a part, so none stands for another."
        )
    return methods[method]

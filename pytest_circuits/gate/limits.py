"""The limits that claims are judged at, where the spec's own number is scaled, or stands for another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec.claims import Behaviour
from ..spec.components import Head

if TYPE_CHECKING:
    from ..spec.schema import Spec

PER_TEMPLATE = 3.0
"""Within one template a claim is judged at so many times its limit: one broken template cannot hide in the mean."""
MOST_PER_TEMPLATE = 0.9
"""But at no more than this, unless its own limit is wider: a template that is wholly lost does not pass for that."""


def scaled(limit: float, reference: float) -> float:
    """Return a limit for a value of the reference's size: a head that carries more than all may move by more."""
    return limit * max(1.0, abs(reference))


def per_template(limit: float) -> float:
    """Return the limit within one template for a claim whose limit on the whole is given."""
    return max(limit, min(PER_TEMPLATE * limit, MOST_PER_TEMPLATE))


def accuracy_at_least(spec: Spec) -> float:
    """Return which share of the prompts must be answered right; the default where the spec does not claim it."""
    return (spec.claims.behaviour or Behaviour()).accuracy_at_least


def loss_at_most(spec: Spec) -> float:
    """Return how much of the behaviour may be lost; the default where the spec does not claim it."""
    return (spec.claims.behaviour or Behaviour()).loss_at_most


def weaker_at_most(spec: Spec) -> float:
    """Return how much weaker a head may become: the claim's own limit, else behaviour's on the loss."""
    stated = spec.claims.heads and spec.claims.heads.weaker_at_most
    return stated if isinstance(stated, float) else loss_at_most(spec)


def model_heads(spec: Spec) -> tuple[Head, ...]:
    """Return every head of the model that the spec describes."""
    return tuple(Head(layer, head) for layer in range(spec.model.layers) for head in range(spec.model.heads))

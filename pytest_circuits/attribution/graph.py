"""The computational graph of a model: what writes to the residual stream, what reads from it, and the edges between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from ..checkpoints.model import Site
from ..errors import PromptError
from ..spec.components import Embedding, Head, Mlp
from ..spec.edges import Reads, Receiver

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jaxtyping import Bool

    from ..checkpoints.model import BoundModel
    from ..spec.edges import Edge, Sender


def senders_of(model: BoundModel) -> tuple[Sender, ...]:
    """Return everything that adds to the residual stream, from the first layer on: heads before the MLP."""
    found: list[Sender] = [Embedding()]
    for layer in range(model.layers):
        found += [*(Head(layer, head) for head in range(model.heads)), Mlp(layer)]
    return tuple(found)


def receivers_of(model: BoundModel) -> tuple[Receiver, ...]:
    """Return everything that reads from the residual stream, from the first layer on; the logits are last."""
    shared = model.groups < model.heads
    units = {"q": model.heads, "k": model.groups, "v": model.groups, "mlp": 1, "logits": 0}
    inside = [
        Receiver(layer, kind, unit, shared)
        for layer in range(model.layers)
        for kind in get_args(Reads)
        for unit in range(units[kind])
    ]
    return (*inside, Receiver(model.layers, "logits"))


def is_parallel(model: BoundModel) -> bool:
    """Say whether a layer's MLP reads what comes into the layer, and not what its heads add to that: tried out."""
    ids = torch.arange(3, device=model.device)[None]
    heads, mlp = Site("z", 0), Site("mlp", 0)
    plain = model.forward(ids, keep=[mlp]).values[mlp]
    without = model.forward(ids, edits={heads: torch.zeros_like}, keep=[mlp]).values[mlp]
    return torch.equal(plain, without)


def reaches(sender: Sender, receiver: Receiver, *, parallel: bool) -> bool:
    """Say whether a sender's output is part of what a receiver reads.

    A layer's MLP reads what its heads add, unless the two stand side by side (`parallel`).
    """
    if isinstance(sender, Embedding) or sender.layer < receiver.layer:
        return True
    same = sender.layer == receiver.layer
    return same and receiver.kind == "mlp" and isinstance(sender, Head) and not parallel


@dataclass(frozen=True)
class Wires:
    """Everything that writes to a model's residual stream and everything that reads from it, in their order.

    Attributes:
        edges: whether a sender's output is part of what a receiver reads.
    """

    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]
    edges: Bool[np.ndarray, "senders receivers"]

    def mask(self, named: Collection[Edge]) -> Bool[np.ndarray, "senders receivers"]:
        """Return where the named edges are.

        Raises:
            PromptError: the model has no such edge.
        """
        found = np.zeros_like(self.edges)
        for edge in named:
            if not self._has(edge):
                raise PromptError(self._missing(edge))
            found[self._at(edge)] = True
        return found

    def _has(self, edge: Edge) -> bool:
        """Say whether the model has the edge, under this very name."""
        if edge.sender not in self._rows or edge.receiver not in self._columns or not self.edges[self._at(edge)]:
            return False
        own = self.receivers[self._columns[edge.receiver]]
        return own.shared == edge.receiver.shared or own.kind not in ("k", "v")

    def _at(self, edge: Edge) -> tuple[int, int]:
        return self._rows[edge.sender], self._columns[edge.receiver]

    @cached_property
    def _rows(self) -> Mapping[Sender, int]:
        return {sender: at for at, sender in enumerate(self.senders)}

    @cached_property
    def _columns(self) -> Mapping[Receiver, int]:
        return {receiver: at for at, receiver in enumerate(self.receivers)}

    def _missing(self, edge: Edge) -> str:
        kind = edge.receiver.kind
        alike = [one for one in self.receivers if (one.layer, one.kind) == (edge.receiver.layer, kind)]
        shared = bool(alike) and alike[0].shared and kind in ("k", "v")
        if alike and kind in ("k", "v") and edge.receiver.shared and not shared and edge.receiver.unit < len(alike):
            own = replace(edge.receiver, shared=False)
            return (
                f"{edge}: each of this model's heads has keys and values of its own.\n"
                f"  Name it as what it is: {edge.sender} -> {own}"
            )
        heads = sum(one.kind == "q" and one.layer == edge.receiver.layer for one in self.receivers)
        if shared and not edge.receiver.shared and edge.receiver.unit < heads:
            own = replace(edge.receiver, unit=edge.receiver.unit * len(alike) // heads, shared=True)
            return (
                f"{edge}: this model's heads share {len(alike)} key/value heads in each layer, and an edge into one is "
                f"an edge for all heads that read it.\n  Name it as what it is: {edge.sender} -> {own}"
            )
        return (
            f"{edge}: expected an edge of the model, found none: it has {heads or 'no such'} heads and {len(alike)} "
            f"receivers of the kind {kind} in that layer, and an MLP beside its heads does not read them.\n"
            "  What is not there cannot be judged. Name edges that the checkpoint has."
        )


def wires_of(model: BoundModel) -> Wires:
    """Return the edges of a model."""
    senders, receivers, parallel = senders_of(model), receivers_of(model), is_parallel(model)
    there = [[reaches(one, other, parallel=parallel) for other in receivers] for one in senders]
    return Wires(senders, receivers, np.array(there))

"""The computational graph of a model: what writes to the residual stream, what reads from it, and the edges between."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch

from ..checkpoints.model import Site
from ..spec.components import Embedding, Head, Mlp
from ..spec.edges import Reads, Receiver, Sender

if TYPE_CHECKING:
    from ..checkpoints.model import BoundModel


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

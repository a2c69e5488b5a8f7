"""What the edges of a spec must keep: each is named once, is judged, and is part of a way to the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .components import Embedding, Head, Mlp
from .edges import Edge, Receiver, parse_edge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .document import Path
    from .schema import Ablation

    Finding = tuple[Path, str]
    Node = Embedding | Head | Mlp | None


def edge_rules(sections: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with a spec's edges, as a path and a text.

    Args:
        sections: the valid sections of a spec by name; a rule whose sections are not all there is left out.
    """
    names: Sequence[str] = sections.get("edges") or ()
    claims, model = sections.get("claims"), sections.get("model")
    if claims is not None and "edges" in sections and bool(names) != (claims.edges is not None):
        if names:
            yield ("edges",), "no check judges the edges; add edges to the claims, or drop them"
        else:
            yield ("claims", "edges"), 'no edge is named; give some, as edges: ["L5H5 -> L7H3.k"]'
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("edges", index), f"{name} is already named; an edge is named once"
    if model is not None and (ablation := sections.get("ablation")) is not None:
        edges = [parse_edge(name, model.layers) for name in names]
        yield from (
            (("edges", index), text) for index, edge in enumerate(edges) if (text := _cut_off(edge, edges, ablation))
        )


def _cut_off(edge: Edge, edges: Sequence[Edge], ablation: Ablation) -> str | None:
    """Return why an edge could only be without effect, or None where it is part of a way to the logits.

    Where a sender's ablated value is what it puts out in the corrupt run, one that reads nothing live puts that out.
    """
    sender, receiver = edge.sender, edge.receiver
    everywhere = ablation.positions in ("all", "last")  # behind a slot, what is kept may pass by cut edges too
    if everywhere and receiver.kind != "logits" and not any(_belongs(receiver, other.sender) for other in edges):
        return (
            f"nothing named reads what {edge.receiver} prepares, so this edge could have no effect; name the edges that"
            " lead on to the logits"
        )
    corrupt = ablation.value == "resample" and ablation.positions == "all"
    if corrupt and not isinstance(sender, Embedding) and not any(_belongs(one.receiver, sender) for one in edges):
        return (
            f"{sender} reads nothing that is named, so with these edges alone it puts out what it does in the corrupt"
            f" run, and this edge could have no effect; name the edges that lead to {sender}"
        )
    return None


def _belongs(receiver: Receiver, sender: Node) -> bool:
    """Say whether what is read there is read by the sender; key/value heads that heads share are read by any of them.

    Which heads share one is the checkpoint's matter, so a shared one counts for every head of its layer.
    """
    if isinstance(sender, Head):
        of_layer = receiver.layer == sender.layer and receiver.kind in ("q", "k", "v")
        return of_layer and (receiver.unit == sender.head or (receiver.shared and receiver.kind != "q"))
    return isinstance(sender, Mlp) and (receiver.kind, receiver.layer) == ("mlp", sender.layer)

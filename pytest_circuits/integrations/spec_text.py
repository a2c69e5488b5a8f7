"""A circuit as the sections of a spec: its nodes as a group, its edges by name."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import GraphError
from ..spec.components import Embedding, Head, Mlp

if TYPE_CHECKING:
    from ..spec.edges import Receiver
    from .graph import Graph, Shape

GROUP = "graph"


def spec_sections(graph: Graph) -> str:
    """Return the YAML of `circuit` and `edges` for a spec of the graph's model.

    Where the graph says that heads share key/value heads, an edge to their keys or values is named by those.

    Raises:
        GraphError: nothing is in the circuit.
    """
    inside = [sender for sender, node in zip(graph.shape.senders, graph.nodes, strict=True) if node]
    edges = dict.fromkeys(f"{edge.sender} -> {_shared(edge.receiver, graph.shape)}" for edge in graph.in_circuit())
    if not inside and not edges:
        raise GraphError("nothing is in the circuit, so a spec could claim nothing of it; choose some with --edges N")
    lines = ["circuit:", f"  {GROUP}:"] if inside else []
    lines += _listed("heads", [str(sender) for sender in inside if isinstance(sender, Head)])
    lines += _listed("mlps", [str(sender) for sender in inside if isinstance(sender, Mlp)])
    lines += ["    embed: true"] * any(isinstance(sender, Embedding) for sender in inside)
    if edges and _shares(graph.shape):
        lines += [f"# keys and values are read by {graph.shape.key_value_heads} key/value heads that heads share"]
    lines += ["edges:"] * bool(edges) + [f"  - {edge}" for edge in edges]
    return "\n".join(lines) + "\n"


def _shared(receiver: Receiver, shape: Shape) -> Receiver:
    """Return a receiver under the name that a spec has for it."""
    if not _shares(shape) or receiver.kind not in ("k", "v"):
        return receiver
    return replace(receiver, unit=receiver.unit * (shape.key_value_heads or 1) // shape.heads, shared=True)


def _shares(shape: Shape) -> bool:
    return shape.key_value_heads not in (None, shape.heads)


def _listed(key: str, names: list[str]) -> list[str]:
    """Return a list in lines that are not too long, none where it is empty."""
    text = f"{key}: [{', '.join(names)}]"
    return textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="      ") if names else []

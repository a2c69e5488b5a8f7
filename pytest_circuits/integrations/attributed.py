"""Edges that were attributed here, with the circuit that was found among them, as a graph that other tools read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .graph import Shape, empty

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..attribution.edges import Edges
    from .graph import Graph


def graph_of(attributed: Edges, circuit: Collection[str], *, width: int) -> Graph:
    """Return the graph of a model: each edge's mean effect over the prompts, and which edges are in the circuit.

    A positive score helps the answer. An edge to keys or values that heads share stands there for each of these heads,
    because a graph knows no shared ones; every such edge has the whole score.

    Args:
        attributed: the effect of every edge on every prompt.
        circuit: the names of those in the circuit.
        width: of the residual stream.
    """
    layers = max(receiver.layer for receiver in attributed.receivers)
    of_kind = {kind: sum(one.layer == 0 and one.kind == kind for one in attributed.receivers) for kind in ("q", "k")}
    heads, groups = of_kind["q"], of_kind["k"]
    places = {(one.kind, one.layer, one.unit): at for at, one in enumerate(attributed.receivers)}
    parallel = bool(np.isnan(attributed.effects[1, places["mlp", 0, 0], 0]))  # L0H0 is no sender of its layer's MLP
    shape = Shape(layers, heads, parallel, width, groups if groups < heads else None)
    shared = heads // groups
    columns = [
        places[one.kind, one.layer, one.unit // shared if one.kind in ("k", "v") else one.unit]
        for one in shape.receivers
    ]
    names = [[f"{sender} -> {attributed.receivers[at]}" in circuit for at in columns] for sender in shape.senders]
    edges = np.array(names) & shape.real
    scores = np.where(shape.real, attributed.effects.mean(-1)[:, columns], np.nan)
    return replace(empty(shape), nodes=edges.any(1), edges=edges, scores=scores)

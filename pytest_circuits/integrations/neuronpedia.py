"""A circuit as the JSON that Neuronpedia and the viewer of circuit-tracer show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError
from ..spec.components import Embedding, Head

if TYPE_CHECKING:
    from ..spec.edges import Sender
    from .graph import Graph

EVERYWHERE = "(all positions)"
"""Stands for the prompt: a graph of this kind is of no single one."""


def neuronpedia_text(graph: Graph, slug: str) -> str:
    """Return a graph's circuit: heads, MLPs, embeddings and logits as nodes, the scores of edges as weights.

    A head is one node there, so the scores of the ways to its queries, keys and values are added up. All stand at one
    position.

    Args:
        graph: the graph.
        slug: what the viewer calls it.

    Raises:
        GraphError: no edge is in the circuit, or one has no score.
    """
    if not graph.edges.any():
        raise GraphError("no edge is in the circuit, so there is nothing to show; choose some with --edges N")
    if np.isnan(graph.scores[graph.edges]).any():
        raise GraphError("an edge of the circuit has no score, so its link would have no weight; score it")
    weights = _weights(graph)
    used = sorted({end for link in weights for end in link} | set(np.flatnonzero(graph.nodes).tolist()))
    nodes = {index: _node(graph, index) for index in used}
    ids = {index: node["node_id"] for index, node in nodes.items()}
    data = {
        "metadata": {
            "slug": slug,
            "scan": "pytest-circuits",
            "transcoder_list": [],
            "prompt_tokens": [EVERYWHERE],
            "prompt": EVERYWHERE,
            "node_threshold": None,
            "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": list(nodes.values()),
        "links": [{"source": ids[one], "target": ids[two], "weight": weight} for (one, two), weight in weights.items()],
    }
    return json.dumps(data, allow_nan=False)


def _weights(graph: Graph) -> dict[tuple[int, int], float]:
    """Return the weight of each link by its two nodes; the logits stand behind the senders."""
    found: dict[tuple[int, int], float] = {}
    for sender, receiver in np.argwhere(graph.edges).tolist():
        owner = int(graph.shape.owners[receiver])
        link = (sender, len(graph.shape.senders) if owner < 0 else owner)
        found[link] = found.get(link, 0.0) + float(graph.scores[sender, receiver])
    return found


def _node(graph: Graph, index: int) -> dict[str, Any]:
    """Return a sender, or the logits, as a node; `feature` is unique in it, as the viewer wants it."""
    shape = graph.shape
    sender: Sender | None = shape.senders[index] if index < len(shape.senders) else None
    scored = graph.node_scores is not None and sender is not None and not np.isnan(graph.node_scores[index])
    if sender is None:
        layer, unit, kind, name = str(shape.layers + 1), 0, "logit", "logits"
    elif isinstance(sender, Embedding):
        layer, unit, kind, name = "E", 0, "embedding", "embed"
    else:
        unit = sender.head if isinstance(sender, Head) else shape.heads
        layer, kind, name = str(sender.layer), "head" if isinstance(sender, Head) else "mlp", str(sender)
    return {
        "node_id": f"{layer}_{unit}_0",
        "feature": index,
        "layer": layer,
        "ctx_idx": 0,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": sender is None,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{layer}_{unit}-0",
        "clerp": name,
        "influence": float(graph.node_scores[index]) if scored and graph.node_scores is not None else None,
        "activation": None,
    }

"""Graphs as JSON, as EAP-IG and MIB's circuit track have them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError
from .graph import Graph, Problems, config_of, empty, shape_of
from .names import eap_receiver, eap_sender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Shape

SECTIONS = ("cfg", "nodes", "edges")
LOGITS = "logits"
NEURONS = (
    "EAP-IG's from_json gives every head of a layer the neurons of the layer's last head, so in JSON they are not what "
    "was written"
)


def parse_eap_json(text: str, name: str) -> Graph:
    """Return the graph of a file.

    An edge that the file does not list has no score and is not in the circuit.

    Args:
        text: the file's content.
        name: how messages call the file.

    Raises:
        GraphError: every problem, each `file: place: message`.
    """
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise GraphError(f"{name}: this is no graph: it is nested too deep") from error
    except json.JSONDecodeError as error:
        raise GraphError(f"{name}:{error.lineno}:{error.colno}: this is not JSON: {error.msg}; is it whole?") from error
    except ValueError as error:
        raise GraphError(f"{name}: this is not JSON that can be read: {error}") from error
    problems = Problems(name)
    for section in SECTIONS:
        if not isinstance(data, dict) or not isinstance(data.get(section), dict):
            problems.add(section, "expected this section of a graph as EAP-IG writes it, with keys and values")
    problems.refuse()
    for key in data:
        if key not in SECTIONS:
            problems.add(repr(key), f"expected only {', '.join(SECTIONS)}; what stands here would be lost, take it out")
    graph = empty(shape_of(data["cfg"], name))
    scores = _read_nodes(graph, data["nodes"], problems)
    _read_edges(graph, data["edges"], problems)
    problems.refuse()
    return Graph(graph.shape, graph.nodes, graph.edges, graph.scores, scores)


def eap_json_text(graph: Graph) -> str:
    """Return a graph as EAP-IG writes it: nodes and edges in its order.

    Raises:
        GraphError: it has neurons, or an edge of the circuit has no score.
    """
    if graph.neurons is not None or graph.neuron_scores is not None:
        raise GraphError(f"neurons are not written as JSON: {NEURONS}; write a .pt file")
    shape = graph.shape
    unscored = graph.edges & np.isnan(graph.scores)
    if unscored.any():
        sender, receiver = np.argwhere(unscored)[0]
        raise GraphError(
            f"{graph.edge(sender, receiver)} and {unscored.sum() - 1:,} other edges of the circuit have no score, and "
            "in this format each has one; score them"
        )
    nodes: dict[str, dict[str, Any]] = {
        eap_sender(sender): {"in_graph": bool(inside)}
        for sender, inside in zip(shape.senders, graph.nodes, strict=True)
    }
    if graph.node_scores is not None:
        for entry, score in zip(nodes.values(), graph.node_scores, strict=True):
            if not np.isnan(score):
                entry["score"] = float(score)
    nodes[LOGITS] = {"in_graph": True}
    senders, receivers = list(nodes), [eap_receiver(receiver) for receiver in shape.receivers]
    edges = {
        f"{senders[i]}->{receivers[j]}": {"score": float(graph.scores[i, j]), "in_graph": bool(graph.edges[i, j])}
        for i, j in _in_order(shape)
        if not np.isnan(graph.scores[i, j])
    }
    return json.dumps({"cfg": config_of(shape), "nodes": nodes, "edges": edges}, allow_nan=False)


def _in_order(shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield the places of all edges in EAP-IG's order: by the receiver's layer, then sender, head, and q, k, v."""
    step, heads = 3 * shape.heads + 1, shape.heads
    for layer in range(shape.layers):
        first = layer * step
        read = [first + kind * heads + head for head in range(heads) for kind in range(3)]
        groups = [[*read, first + 3 * heads]] if shape.parallel else [read, [first + 3 * heads]]
        for group in groups:
            yield from ((i, j) for i in np.flatnonzero(shape.real[:, group[-1]]).tolist() for j in group)
    yield from ((i, shape.layers * step) for i in range(len(shape.senders)))


def _read_nodes(graph: Graph, entries: dict[str, Any], problems: Problems) -> np.ndarray[Any, Any] | None:
    """Set which nodes are in the circuit, and return the scores of nodes, None where none has one."""
    known = {eap_sender(sender): index for index, sender in enumerate(graph.shape.senders)}
    scores = np.full(len(known), np.nan)
    for node in (*known, LOGITS):
        if node not in entries:
            problems.add(f"nodes[{node!r}]", "expected this node of a graph of this shape, found none; is cfg right?")
    for node, entry in entries.items():
        place = f"nodes[{node!r}]"
        if node not in known and node != LOGITS:
            problems.add(place, f"a graph of {_size(graph.shape)} has no such node; is cfg right?")
            continue
        entry = {"in_graph": entry} if isinstance(entry, bool) else entry
        inside, score = _entry(entry, place, problems, ("neurons", "neurons_scores"), may_lack_score=True)
        if node == LOGITS:
            if inside is False or score is not None:
                problems.add(
                    place, "the logits are in every graph and have no score of their own; write in_graph: true"
                )
            continue
        graph.nodes[known[node]] = bool(inside)
        scores[known[node]] = np.nan if score is None else score
    return None if np.isnan(scores).all() else scores


def _read_edges(graph: Graph, entries: dict[str, Any], problems: Problems) -> None:
    """Set the scores of edges, and which are in the circuit."""
    shape = graph.shape
    senders = {eap_sender(sender): index for index, sender in enumerate(shape.senders)}
    receivers = {eap_receiver(receiver): index for index, receiver in enumerate(shape.receivers)}
    for edge, entry in entries.items():
        place = f"edges[{edge!r}]"
        start, arrow, end = edge.partition("->")
        at = senders.get(start), receivers.get(end)
        if at[0] is None or at[1] is None:
            wrong = start if at[0] is None else end
            form = (
                "a sender such as a5.h5, m9 or input" if at[0] is None else "a receiver such as a7.h3<k>, m9 or logits"
            )
            told = f"expected {form}, found {wrong!r}" if arrow else "expected sender->receiver"
            problems.add(place, f"{told}; this graph has {_size(shape)}")
        elif not shape.real[at]:
            problems.add(
                place, f"{start} adds to the residual stream after {end} has read it; is it the other way round?"
            )
        else:
            inside, score = _entry(entry, place, problems, ())
            graph.edges[at], graph.scores[at] = bool(inside), np.nan if score is None else score


def _entry(
    entry: object, place: str, problems: Problems, neurons: tuple[str, ...], *, may_lack_score: bool = False
) -> tuple[bool | None, float | None]:
    """Return whether a node or an edge is in the circuit, and its score; None where it is wrong or not there."""
    if not isinstance(entry, dict):
        problems.add(place, f'expected an object such as {{"in_graph": true}}, found {entry!r:.80}')
        return None, None
    for key in entry:
        if key in neurons:
            problems.add(f"{place}.{key}", f"neurons are read from .pt files only: {NEURONS}; write one with to_pt")
        elif key not in ("in_graph", "score"):
            problems.add(f"{place}.{key}", "expected only in_graph and score; this would be lost, take it out")
    inside, score = entry.get("in_graph"), entry.get("score")
    if not isinstance(inside, bool):
        problems.add(f"{place}.in_graph", f"expected true or false, found {inside!r:.80}")
    if may_lack_score and (score is None or (isinstance(score, float) and math.isnan(score))):
        return bool(inside), None
    number = _finite(score)
    if number is None:
        problems.add(
            f"{place}.score",
            f"expected a finite number, found {score!r:.80}; by it nothing could be put in order; score it again",
        )
    return bool(inside), number


def _finite(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _size(shape: Shape) -> str:
    return f"{shape.layers} layers of {shape.heads} heads"


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different."""
    found = dict(items)
    if len(found) < len(items):
        twice = next(key for at, (key, _) in enumerate(items) if key in dict(items[:at]))
        raise ValueError(f"the key {twice!r} is given twice")
    return found

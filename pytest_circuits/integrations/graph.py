"""What a graph file says of a model: which nodes and edges are in the circuit, and the score of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..errors import GraphError
from ..spec.components import Embedding, Head, Mlp
from ..spec.edges import Edge, Reads, Receiver, Sender

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Bool, Float, Int

LARGEST_MATRIX = 2**27
"""Senders times receivers that are read at most: 80 layers of 64 heads are 80 million."""
TOLD = 10
"""How many problems of a file are told."""


@dataclass(frozen=True)
class Shape:
    """The model that a graph is of.

    Senders and receivers stand in the order of EAP-IG's matrices: layer by layer, the heads before the MLP, and among
    the receivers the queries of all heads before their keys and these before their values; the logits last.

    Attributes:
        layers: how many.
        heads: query heads in each.
        parallel: whether a layer's MLP reads what comes into the layer, and not what its heads add to that.
        width: of the residual stream; None where the file does not say.
        key_value_heads: in each layer, where the file says. A graph has an edge to the keys and values of every query
            head whether heads share them or not.
        more: what else the file says of the model, kept for writing.
    """

    layers: int
    heads: int
    parallel: bool = False
    width: int | None = None
    key_value_heads: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def senders(self) -> tuple[Sender, ...]:
        """What adds to the residual stream."""
        found: list[Sender] = [Embedding()]
        for layer in range(self.layers):
            found += [*(Head(layer, head) for head in range(self.heads)), Mlp(layer)]
        return tuple(found)

    @cached_property
    def receivers(self) -> tuple[Receiver, ...]:
        """What reads from it; keys and values by the query head's name."""
        units = {"q": self.heads, "k": self.heads, "v": self.heads, "mlp": 1, "logits": 0}
        inside = [
            Receiver(layer, kind, unit, shared=False)
            for layer in range(self.layers)
            for kind in get_args(Reads)
            for unit in range(units[kind])
        ]
        return (*inside, Receiver(self.layers, "logits"))

    @cached_property
    def real(self) -> Bool[np.ndarray, "senders receivers"]:
        """Where the matrices stand for an edge: the sender adds before the receiver reads."""
        own = 0 if self.parallel else 1
        adds = [-1] + [
            2 * layer + (part == self.heads) for layer in range(self.layers) for part in range(self.heads + 1)
        ]
        reads = [2 * receiver.layer + own * (receiver.kind == "mlp") for receiver in self.receivers]
        return np.array(adds)[:, None] < np.array(reads)[None]

    @cached_property
    def owners(self) -> Int[np.ndarray, " receivers"]:
        """The sender whose input a receiver is, as an index; -1 for the logits."""
        of_layer = [*list(range(self.heads)) * 3, self.heads]
        step = self.heads + 1
        return np.array([1 + layer * step + unit for layer in range(self.layers) for unit in of_layer] + [-1])


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph of a model. Arrays are in the order of `shape.senders` and `shape.receivers`.

    Attributes:
        shape: the model.
        nodes: whether a sender is in the circuit.
        edges: whether an edge is; False where there is no edge.
        scores: of edges; NaN where the file has none, or there is no edge.
        node_scores: of senders, NaN where one has none; None where none has.
        neurons: whether a neuron of a sender's output is in the circuit; None where the file does not go so deep.
        neuron_scores: of neurons, NaN where one has none.
    """

    shape: Shape
    nodes: Bool[np.ndarray, " senders"]
    edges: Bool[np.ndarray, "senders receivers"]
    scores: Float[np.ndarray, "senders receivers"]
    node_scores: Float[np.ndarray, " senders"] | None = None
    neurons: Bool[np.ndarray, "senders width"] | None = None
    neuron_scores: Float[np.ndarray, "senders width"] | None = None

    def edge(self, sender: int, receiver: int) -> Edge:
        """Return an edge by its place in the matrices."""
        return Edge(self.shape.senders[sender], self.shape.receivers[receiver])

    def largest(self, count: int) -> Iterator[tuple[Edge, float, bool]]:
        """Yield the edges of the largest absolute scores, each with its score and whether it is in the circuit."""
        for sender, receiver in self._ranked(count):
            yield self.edge(sender, receiver), float(self.scores[sender, receiver]), bool(self.edges[sender, receiver])

    def in_circuit(self) -> Iterator[Edge]:
        """Yield the edges of the circuit, in the order of their receivers."""
        for receiver, sender in np.argwhere(self.edges.T):
            yield self.edge(int(sender), int(receiver))

    def _ranked(self, count: int) -> list[tuple[int, int]]:
        """Return the places of the largest absolute scores; among equals the first sender comes first."""
        sizes = np.abs(self.scores).ravel()
        known = np.flatnonzero(~np.isnan(sizes))
        order = known[np.argsort(-sizes[known], kind="stable")][:count]
        width = self.scores.shape[1]
        return [divmod(int(at), width) for at in order]


def empty(shape: Shape) -> Graph:
    """Return a graph without a score and with nothing in the circuit."""
    size = shape.real.shape
    return Graph(shape, np.zeros(size[0], bool), np.zeros(size, bool), np.full(size, np.nan))


def with_largest(graph: Graph, count: int) -> Graph:
    """Return a graph whose circuit is the edges of the largest absolute scores, as far as they are on a way.

    As EAP-IG's `apply_topn`: of these edges, those stay that are on a way from the embeddings to the logits, and with
    them the nodes on it. Neurons are left out, for none was chosen.

    Raises:
        GraphError: fewer edges have a score, or none of these is on a way.
    """
    known = int((~np.isnan(graph.scores)).sum())
    if count > known:
        raise GraphError(f"a circuit of {count:,} edges is asked for, and {known:,} have a score; ask for fewer")
    edges = np.zeros_like(graph.edges)
    for place in graph._ranked(count):
        edges[place] = True
    nodes, edges = connected(graph.shape, edges)
    if not edges.any():
        raise GraphError(
            f"no way leads from the embeddings to the logits through the {count:,} edges of the largest absolute "
            "scores, so they are no circuit; ask for more"
        )
    return replace(graph, nodes=nodes, edges=edges, neurons=None, neuron_scores=None)


def connected(
    shape: Shape, edges: Bool[np.ndarray, "senders receivers"]
) -> tuple[Bool[np.ndarray, " senders"], Bool[np.ndarray, "senders receivers"]]:
    """Return the nodes and the edges that are on a way from the embeddings to the logits."""
    while True:
        fed = np.zeros(len(shape.senders), bool)
        fed[shape.owners[:-1][edges[:, :-1].any(0)]] = True
        fed[0] = True
        nodes = fed & edges.any(1)
        kept = edges & nodes[:, None] & np.append(nodes[shape.owners[:-1]], True)
        if np.array_equal(kept, edges):
            return nodes, kept
        edges = kept


class Problems:
    """What is wrong with a file, told at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: list[str] = []

    def add(self, place: str, why: str) -> None:
        """Note a problem."""
        self.found.append(f"{self.name}: {place}: {why}")

    def refuse(self) -> None:
        """Raise what was found, if anything.

        Raises:
            GraphError: something was.
        """
        if self.found:
            rest = len(self.found) - TOLD
            raise GraphError("\n".join(self.found[:TOLD] + [f"{self.name}: and {rest:,} more"] * (rest > 0)))


CONFIG = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")
KEY_VALUE = "n_key_value_heads"


def shape_of(config: object, name: str) -> Shape:
    """Return the shape that a file's `cfg` tells.

    Raises:
        GraphError: it tells none that can be read; every problem.
    """
    if not isinstance(config, dict):
        raise GraphError(f"{name}: cfg: expected {', '.join(CONFIG)} with their values, found {config!r:.80}")
    _refuse_config(config, name)
    layers, heads, groups = config["n_layers"], config["n_heads"], config.get(KEY_VALUE)
    if (1 + layers * (heads + 1)) * (1 + layers * (3 * heads + 1)) > LARGEST_MATRIX:
        raise GraphError(
            f"{name}: cfg: {layers:,} layers of {heads:,} heads have more edges than are read ({LARGEST_MATRIX:,} "
            "senders times receivers); is the config right?"
        )
    if groups is not None and heads % groups:
        raise GraphError(f"{name}: cfg.{KEY_VALUE}: expected a divisor of the {heads} heads, found {groups}")
    more = {key: value for key, value in config.items() if key not in (*CONFIG, KEY_VALUE)}
    return Shape(layers, heads, config["parallel_attn_mlp"], config.get("d_model"), groups, more)


def _refuse_config(config: dict[Any, Any], name: str) -> None:
    problems = Problems(name)
    for key in ("n_layers", "n_heads", "d_model", KEY_VALUE):
        value = config.get(key)
        if value is None and key in ("d_model", KEY_VALUE):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            problems.add(f"cfg.{key}", f"expected a whole number above 0, found {value!r:.80}")
    if not isinstance(parallel := config.get("parallel_attn_mlp"), bool):
        problems.add(
            "cfg.parallel_attn_mlp",
            f"expected true or false, found {parallel!r:.80}; it tells whether heads reach the MLP of their own layer",
        )
    for key, value in config.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            problems.add(f"cfg[{key!r:.80}]", f"expected a plain value, found a {type(value).__name__}; take it out")
    problems.refuse()


def config_of(shape: Shape) -> dict[str, Any]:
    """Return the `cfg` of a shape, as `shape_of` reads it."""
    known = dict(zip(CONFIG, (shape.layers, shape.heads, shape.parallel, shape.width), strict=True))
    if shape.key_value_heads is not None:
        known[KEY_VALUE] = shape.key_value_heads
    return {key: value for key, value in known.items() if value is not None} | dict(shape.more)

"""Graphs in files of `torch.save`: EAP-IG's `.pt`, and auto-circuit's scores. No code in a file is run."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import GraphError
from .graph import Graph, Problems, Shape, config_of, empty, shape_of
from .names import eap_receiver, eap_sender

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ZIP = b"PK\x03\x04"
DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What torch raises for a file that is cut off or whose parts do not fit."""
NEEDED = ("cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph")
OPTIONAL = ("nodes_scores", "neurons_in_graph", "neurons_scores")
MODULE = re.compile(r"blocks\.([0-9]{1,4})\.(hook_[qkv]_input|hook_mlp_in|hook_resid_post)")


def load_torch_graph(path: Path, name: str) -> tuple[Graph, str]:
    """Return the graph of a file, and the format: `eap-pt` or `auto-circuit`.

    Args:
        path: the file.
        name: how messages call it.

    Raises:
        GraphError: it is no such file, or would run code; every problem with its place.
    """
    data = _loaded(path, name)
    if not isinstance(data, dict):
        raise GraphError(f"{name}: expected a dict, as EAP-IG's to_pt writes it, found a {type(data).__name__}")
    if data and all(isinstance(key, str) and MODULE.fullmatch(key) for key in data):
        return _prune_scores(data, name), "auto-circuit"
    return _eap(data, name), "eap-pt"


def save_eap_pt(graph: Graph, path: Path) -> None:
    """Write a graph as EAP-IG's `from_pt` reads it.

    Raises:
        GraphError: an edge has no score.
    """
    shape = graph.shape
    data: dict[str, Any] = {
        "cfg": config_of(shape),
        "src_nodes": [eap_sender(sender) for sender in shape.senders],
        "dst_nodes": [eap_receiver(receiver) for receiver in shape.receivers],
        "edges_scores": _floats(_all_scored(graph)),
        "edges_in_graph": torch.from_numpy(graph.edges.copy()),
        "nodes_in_graph": torch.from_numpy(graph.nodes.copy()),
    }
    if graph.node_scores is not None:
        data["nodes_scores"] = _floats(graph.node_scores)
    if graph.neurons is not None:
        data["neurons_in_graph"] = torch.from_numpy(graph.neurons.copy())
    if graph.neuron_scores is not None:
        data["neurons_scores"] = _floats(graph.neuron_scores)
    _save(data, path)


def save_prune_scores(graph: Graph, path: Path) -> None:
    """Write the scores of a graph's edges as auto-circuit has them; which are in the circuit is not in that format.

    Raises:
        GraphError: an edge has no score.
    """
    scores = _all_scored(graph)
    data = {}
    for module, (first, count, reach) in _modules(graph.shape).items():
        rows = _floats(np.ascontiguousarray(scores[:reach, first : first + count].T))
        data[module] = rows[0] if count == 1 else rows
    _save(data, path)


# -- reading -----------------------------------------------------------------------------------------------------------


def _loaded(path: Path, name: str) -> object:
    """Return what a file holds, read so that nothing in it is run."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start != ZIP:
            raise GraphError(
                f"{name}: expected JSON or a file of torch.save, found one that begins with {start!r}; a bare pickle "
                "is not read, for it can run code.\n"
                "  Where you trust it, load it yourself and write torch.save(graph, 'graph.pt')."
            )
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise GraphError(
            f"{name}: expected tensors, numbers and texts alone, found more: {str(error).splitlines()[0]:.200}\n"
            "  Such a file can run code when it is read. Write it again with plain values, as EAP-IG's to_pt does."
        ) from error
    except DAMAGED as error:
        raise GraphError(
            f"{name}: expected a whole file of torch.save, and it cannot be read: {error!r:.200}\n"
            "  It is cut off or damaged: copy it again."
        ) from error


def _eap(data: dict[Any, Any], name: str) -> Graph:
    shape, arrays = _matrices(data, name)
    problems = Problems(name)
    inside = {key: _yes_or_no(array, key, problems) for key, array in arrays.items() if key.endswith("in_graph")}
    scores = arrays["edges_scores"]
    _refuse_beside(shape, scores, inside["edges_in_graph"], problems)
    for key in ("nodes_scores", "neurons_scores"):  # NaN means there that it was not scored
        if key in arrays and np.isinf(arrays[key]).any():
            problems.add(_at(key, np.isinf(arrays[key])), "expected a finite number, or NaN for what was not scored")
    problems.refuse()
    return Graph(
        shape,
        inside["nodes_in_graph"],
        inside["edges_in_graph"],
        np.where(shape.real, scores, np.nan),
        arrays.get("nodes_scores"),
        inside.get("neurons_in_graph"),
        arrays.get("neurons_scores"),
    )


def _matrices(data: dict[Any, Any], name: str) -> tuple[Shape, dict[str, np.ndarray[Any, Any]]]:
    """Return the shape and the numbers of a file, each of the size that the shape asks for."""
    problems = Problems(name)
    for key in NEEDED:
        if key not in data:
            problems.add(key, "expected this part of a graph as EAP-IG's to_pt writes it, found none")
    for key in data:
        if key not in NEEDED + OPTIONAL:
            problems.add(repr(key), "expected only what EAP-IG's to_pt writes; this would be lost, take it out")
    problems.refuse()
    shape = shape_of(data["cfg"], name)
    _same_order(data["src_nodes"], [eap_sender(sender) for sender in shape.senders], "src_nodes", problems)
    _same_order(data["dst_nodes"], [eap_receiver(receiver) for receiver in shape.receivers], "dst_nodes", problems)
    if shape.width is None and {"neurons_in_graph", "neurons_scores"} & data.keys():
        problems.add("cfg.d_model", "expected the number of neurons, found none, and the file tells of neurons")
    problems.refuse()
    rows, columns = shape.real.shape
    sizes: dict[str, tuple[int, ...]] = {
        "edges_scores": (rows, columns),
        "edges_in_graph": (rows, columns),
        "nodes_in_graph": (rows,),
        "nodes_scores": (rows,),
        "neurons_in_graph": (rows, shape.width or 0),
        "neurons_scores": (rows, shape.width or 0),
    }
    arrays = {key: _array(data[key], size, key, problems) for key, size in sizes.items() if key in data}
    problems.refuse()
    return shape, arrays


def _same_order(found: object, expected: list[str], place: str, problems: Problems) -> None:
    """Note where a list of nodes is not in the order in which the matrices are read."""
    if not isinstance(found, list) or len(found) != len(expected):
        count = f"a list of {len(found)}" if isinstance(found, list) else f"a {type(found).__name__}"
        problems.add(place, f"expected {len(expected)} names for a graph of this shape, found {count}; is cfg right?")
        return
    for index, (name, other) in enumerate(zip(found, expected, strict=True)):
        if name != other:
            problems.add(
                f"{place}[{index}]",
                f"expected {other!r}, found {name!r:.80}; in another order every score would be another edge's",
            )
            return


def _array(value: object, size: tuple[int, ...], place: str, problems: Problems) -> np.ndarray[Any, Any]:
    """Return a tensor's numbers in float64, noting what is wrong with it."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        problems.add(place, f"expected a plain tensor of {size}, found a {type(value).__name__}")
    elif tuple(value.shape) != size:
        problems.add(place, f"expected a tensor of {size} for a graph of this shape, found {tuple(value.shape)}")
    elif value.is_complex() or value.is_quantized:
        problems.add(place, f"expected real numbers, found {value.dtype}")
    else:
        return np.asarray(value.detach().to(torch.float64).numpy())
    return np.zeros(size)


def _yes_or_no(array: np.ndarray[Any, Any], place: str, problems: Problems) -> np.ndarray[Any, Any]:
    other = (array != 0) & (array != 1)
    if other.any():
        problems.add(_at(place, other), "expected true or false")
    return np.asarray(array == 1)


def _refuse_beside(
    shape: Shape, scores: np.ndarray[Any, Any], inside: np.ndarray[Any, Any], problems: Problems
) -> None:
    """Note scores that are no numbers, and what is said of edges that are none."""
    broken = shape.real & ~np.isfinite(scores)
    if broken.any():
        problems.add(
            _edge_at("edges_scores", shape, broken),
            f"expected a finite number, found {scores[broken][0]}, and {broken.sum() - 1:,} more; by it nothing "
            "could be put in order; score them again",
        )
    for key, said in (("edges_in_graph", inside), ("edges_scores", scores != 0)):
        beside = said & ~shape.real
        if beside.any():
            problems.add(
                _edge_at(key, shape, beside),
                f"no such edge is in the model: the sender adds after the receiver has read, here and in "
                f"{beside.sum() - 1:,} other places; EAP-IG's choice by nodes leaves such ones: write "
                "`graph.in_graph &= graph.real_edge_mask` before to_pt",
            )


def _at(key: str, where: np.ndarray[Any, Any]) -> str:
    return f"{key}{[int(index) for index in np.argwhere(where)[0]]}"


def _edge_at(key: str, shape: Shape, where: np.ndarray[Any, Any]) -> str:
    sender, receiver = np.argwhere(where)[0]
    return f"{_at(key, where)} ({eap_sender(shape.senders[sender])}->{eap_receiver(shape.receivers[receiver])})"


# -- auto-circuit ------------------------------------------------------------------------------------------------------


def _modules(shape: Shape) -> dict[str, tuple[int, int, int]]:
    """Return for each module its first receiver, how many it has, and how many senders add before it."""
    found = {}
    step = 3 * shape.heads + 1
    reach = shape.real.sum(0)
    for layer in range(shape.layers):
        for kind, letter in enumerate("qkv"):
            first = layer * step + kind * shape.heads
            found[f"blocks.{layer}.hook_{letter}_input"] = (first, shape.heads, int(reach[first]))
        mlp = layer * step + 3 * shape.heads
        found[f"blocks.{layer}.hook_mlp_in"] = (mlp, 1, int(reach[mlp]))
    found[f"blocks.{shape.layers - 1}.hook_resid_post"] = (shape.layers * step, 1, len(shape.senders))
    return found


def _prune_scores(data: Mapping[str, object], name: str) -> Graph:
    shape = _shape_by_modules(data, name)
    graph, problems, modules = empty(shape), Problems(name), _modules(shape)
    for module in sorted(modules.keys() - data.keys()):
        problems.add(module, "expected the scores of this module, found none; graphs without MLPs are not read")
    for module in sorted(data.keys() - modules.keys()):
        problems.add(module, f"expected no such module in a graph of {shape.layers} layers of {shape.heads} heads")
    problems.refuse()
    for module, (first, count, reach) in modules.items():
        size = (reach,) if count == 1 else (count, reach)
        rows = _array(data[module], size, module, problems)
        if not np.isfinite(rows).all():
            problems.add(_at(module, ~np.isfinite(rows)), "expected a finite number; score the edges again")
        graph.scores[:reach, first : first + count] = rows.reshape(count, reach).T
    problems.refuse()
    return graph


def _shape_by_modules(data: Mapping[str, object], name: str) -> Shape:
    """Return the shape that the modules' names and the first tensors tell."""
    queries, mlp = data.get("blocks.0.hook_q_input"), data.get("blocks.0.hook_mlp_in")
    if not isinstance(queries, torch.Tensor) or not isinstance(mlp, torch.Tensor) or queries.ndim not in (1, 2):
        raise GraphError(
            f"{name}: blocks.0: expected hook_q_input of (heads, 1) and hook_mlp_in of (senders,), as auto-circuit has "
            "them of a model with MLPs, with q, k and v apart and all positions together"
        )
    heads = queries.shape[0] if queries.ndim == 2 else 1
    layers = 1 + max(int(match[1]) for key in data if (match := MODULE.fullmatch(key)))
    config = {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": mlp.numel() == 1}
    return shape_of(config, name)


# -- writing -----------------------------------------------------------------------------------------------------------


def _all_scored(graph: Graph) -> np.ndarray[Any, Any]:
    """Return the scores with 0 where there is no edge."""
    unscored = graph.shape.real & np.isnan(graph.scores)
    if unscored.any():
        sender, receiver = np.argwhere(unscored)[0]
        raise GraphError(
            f"{graph.edge(sender, receiver)} and {unscored.sum() - 1:,} other edges have no score, and this format has "
            "one for each; write JSON, or score them all"
        )
    return np.where(graph.shape.real, graph.scores, 0.0)


def _save(data: object, path: Path) -> None:
    with path.open("wb") as file:  # torch alone would tell a missing folder by another error
        torch.save(data, file)


def _floats(values: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return numbers as float32, which others expect, or as float64 where that would change them."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    exact = np.array_equal(short.astype(np.float64), values, equal_nan=True)
    return torch.from_numpy(short if exact else values.copy())

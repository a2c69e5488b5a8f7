"""A graph file of any known format: told by its content, read, and written in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import GraphError
from .eap_json import eap_json_text, parse_eap_json
from .neuronpedia import neuronpedia_text

if TYPE_CHECKING:
    from pathlib import Path

    from .graph import Graph

LARGEST_FILE = 2**30


def read_graph(path: Path, name: str) -> tuple[Graph, str]:
    """Return the graph of a file, and its format.

    Raises:
        GraphError: it cannot be read; every problem with its place.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise GraphError(f"{name}: the file has more than {LARGEST_FILE:,} bytes; no more are read")
        with path.open("rb") as file:
            start = file.read(64).lstrip()
        if start[:1] in (b"{", b"["):
            return parse_eap_json(path.read_text(encoding="utf-8"), name), "eap-json"
    except OSError as error:
        raise GraphError(f"{name}: the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GraphError(f"{name}: the file is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    from .torch_files import load_torch_graph

    return load_torch_graph(path, name)


def write_graph(graph: Graph, path: Path, form: str) -> None:
    """Write a graph as `eap-json`, `eap-pt`, `auto-circuit` or `neuronpedia`.

    Raises:
        GraphError: the format cannot hold it, or the file cannot be written.
    """
    try:
        if form in ("eap-json", "neuronpedia"):
            text = eap_json_text(graph) if form == "eap-json" else neuronpedia_text(graph, path.stem)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        from .torch_files import save_eap_pt, save_prune_scores

        (save_eap_pt if form == "eap-pt" else save_prune_scores)(graph, path)
    except OSError as error:
        raise GraphError(f"{path}: the file cannot be written: {error.strerror}") from error


def lost(graph: Graph, form: str) -> list[str]:
    """Return what of a graph a format does not hold."""
    kept_edges, scored = bool(graph.edges.any()), bool(graph.node_scores is not None)
    if form == "auto-circuit":
        told = [(kept_edges or bool(graph.nodes.any()), "which nodes and edges are in the circuit")]
        told += [(scored, "the scores of nodes"), (graph.neurons is not None, "neurons")]
        told += [(graph.shape.width is not None, "the model's width")]
    elif form == "neuronpedia":
        told = [(True, "edges outside of the circuit"), (True, "which of a head's q, k and v an edge leads to")]
        told += [(graph.neurons is not None, "neurons")]
    else:
        told = []
    return [what for gone, what in told if gone]

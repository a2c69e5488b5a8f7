"""Edges that were attributed here become a graph of other tools, edge by edge, shared keys and values too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pairs import random_pairs
from small_models import bound, random_module

from pytest_circuits.attribution.edges import eap
from pytest_circuits.engine.runs import Runs
from pytest_circuits.integrations.attributed import graph_of
from pytest_circuits.integrations.files import read_graph, write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_circuits.attribution.edges import Edges

CIRCUIT = ("embed -> L0.mlp", "L0H1 -> L1H2.q", "L1H2 -> logits")


def attributed(architecture: str) -> Edges:
    model = bound(random_module(architecture, layers=2, heads=4), architecture, layers=2, heads=4)
    return eap(Runs(model, random_pairs((6, 6)), value="resample", metric="logit_diff"))


@pytest.mark.parametrize(
    ("architecture", "parallel", "groups"), [("gpt2", False, None), ("gpt_neox", True, None), ("llama", False, 2)]
)
def test_each_edge_has_its_score_and_its_place(architecture: str, parallel: bool, groups: int | None) -> None:
    edges = attributed(architecture)
    graph = graph_of(edges, CIRCUIT, width=32)
    means = {f"{one} -> {other}": edges.of(one, other).mean() for one, other in edges}

    assert (graph.shape.parallel, graph.shape.key_value_heads) == (parallel, groups)
    assert {str(edge) for edge in graph.in_circuit()} == set(CIRCUIT)
    assert {str(graph.shape.senders[at]) for at in np.flatnonzero(graph.nodes)} == {"embed", "L0H1", "L1H2"}
    told = 0
    for sender, receiver in np.argwhere(graph.shape.real).tolist():
        edge = graph.edge(sender, receiver)
        name = str(edge)
        if groups and edge.receiver.kind in ("k", "v"):
            name = f"{edge.sender} -> L{edge.receiver.layer}KV{edge.receiver.unit // 2}.{edge.receiver.kind}"
        assert graph.scores[sender, receiver] == pytest.approx(means[name]), name
        told += 1
    assert told == int((~np.isnan(graph.scores)).sum())
    assert groups or told == len(edges)


def test_an_edge_to_a_shared_key_is_one_of_each_head_that_reads_it() -> None:
    graph = graph_of(attributed("llama"), ["embed -> L0.mlp", "L0H3 -> L1KV1.k"], width=32)

    assert {str(edge) for edge in graph.in_circuit()} == {"embed -> L0.mlp", "L0H3 -> L1H2.k", "L0H3 -> L1H3.k"}


@pytest.mark.parametrize(("name", "form"), [("g.json", "eap-json"), ("g.pt", "eap-pt")])
def test_it_is_read_again_as_it_was(name: str, form: str, tmp_path: Path) -> None:
    graph = graph_of(attributed("gpt2"), CIRCUIT, width=32)
    write_graph(graph, tmp_path / name, form)
    back, _ = read_graph(tmp_path / name, name)

    np.testing.assert_allclose(back.scores, graph.scores, rtol=1e-6)
    assert np.array_equal(back.edges, graph.edges)
    assert np.array_equal(back.nodes, graph.nodes)

"""Graphs in files of torch.save: EAP-IG's and auto-circuit's, and every file that is refused."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from naive_eap import SHAPES, Naive

from pytest_circuits.errors import GraphError
from pytest_circuits.integrations.eap_json import parse_eap_json
from pytest_circuits.integrations.files import lost, read_graph, write_graph
from pytest_circuits.integrations.graph import empty

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_circuits.integrations.graph import Graph

NAIVE = Naive()


def saved(data: object, folder: Path) -> Path:
    path = folder / "g.pt"
    torch.save(data, path)
    return path


def same(one: Graph, other: Graph) -> bool:
    pairs = [(getattr(one, key), getattr(other, key)) for key in ("nodes", "edges", "scores", "node_scores")]
    return one.shape == other.shape and all(
        (a is None) == (b is None) and (a is None or np.array_equal(a, b, equal_nan=a.dtype == float)) for a, b in pairs
    )


@pytest.mark.parametrize("naive", SHAPES)
def test_a_pt_file_says_what_the_json_says(naive: Naive, tmp_path: Path) -> None:
    graph, form = read_graph(saved(naive.tensors(), tmp_path), "g")

    assert form == "eap-pt"
    assert same(graph, parse_eap_json(naive.text(), "g"))


@pytest.mark.parametrize("naive", SHAPES)
def test_a_pt_file_is_written_as_it_was(naive: Naive, tmp_path: Path) -> None:
    write_graph(parse_eap_json(naive.text(), "g"), tmp_path / "w.pt", "eap-pt")
    found, expected = torch.load(tmp_path / "w.pt", weights_only=True), naive.tensors()

    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value)
        else:
            assert found[key] == value


def test_scores_of_nodes_and_neurons_are_kept(tmp_path: Path) -> None:
    rows = NAIVE.size[0]
    more = {
        "nodes_scores": torch.arange(rows).float(),
        "neurons_in_graph": torch.arange(rows * 5).reshape(rows, 5) % 2 == 0,
        "neurons_scores": torch.arange(rows * 5).reshape(rows, 5).float(),
    }
    more["nodes_scores"][2] = more["neurons_scores"][1, 1] = torch.nan
    graph, _ = read_graph(saved(NAIVE.tensors() | more, tmp_path), "g")
    write_graph(graph, tmp_path / "w.pt", "eap-pt")
    found = torch.load(tmp_path / "w.pt", weights_only=True)

    for key, value in more.items():
        assert np.array_equal(found[key].numpy(), value.numpy(), equal_nan=value.dtype == torch.float32), key


def test_a_number_that_float32_has_not_is_kept_in_float64(tmp_path: Path) -> None:
    graph = parse_eap_json(NAIVE.text().replace("1.0009765625", "0.1"), "g")
    write_graph(graph, tmp_path / "w.pt", "eap-pt")

    assert "0.1" in NAIVE.text().replace("1.0009765625", "0.1")
    assert torch.load(tmp_path / "w.pt", weights_only=True)["edges_scores"].dtype == torch.float64
    assert same(read_graph(tmp_path / "w.pt", "g")[0], graph)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = NAIVE.tensors()
    tensors["edges_scores"] = tensors["edges_scores"].to(dtype)
    graph, _ = read_graph(saved(tensors, tmp_path), "g")

    assert graph.scores[0, 0] == tensors["edges_scores"][0, 0].item()


# -- refused -----------------------------------------------------------------------------------------------------------


def problems(path: Path) -> list[str]:
    with pytest.raises(GraphError) as caught:
        read_graph(path, "g.pt")
    return str(caught.value).split("\n")


def put(key: str, *at: int, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(data: dict[str, Any]) -> None:
        data[key][at] = value

    return change


BACK = (4, 0)  # m0 -> a0.h0<q>
WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda data: data.pop("dst_nodes"),
        "g.pt: dst_nodes: expected this part of a graph as EAP-IG's to_pt writes it, found none",
    ),
    (
        lambda data: data.update(notes="x"),
        "g.pt: 'notes': expected only what EAP-IG's to_pt writes; this would be lost, take it out",
    ),
    (
        lambda data: data["dst_nodes"].__setitem__(slice(0, 2), ["a0.h1<q>", "a0.h0<q>"]),
        "g.pt: dst_nodes[0]: expected 'a0.h0<q>', found 'a0.h1<q>'; in another order every score would be another "
        "edge's",
    ),
    (
        lambda data: data["src_nodes"].append("logits"),
        "g.pt: src_nodes: expected 9 names for a graph of this shape, found a list of 10; is cfg right?",
    ),
    (
        lambda data: data.update(src_nodes="x"),
        "g.pt: src_nodes: expected 9 names for a graph of this shape, found a str; is cfg right?",
    ),
    (
        lambda data: data.update(edges_scores=data["edges_scores"].T),
        "g.pt: edges_scores: expected a tensor of (9, 21) for a graph of this shape, found (21, 9)",
    ),
    (
        lambda data: data.update(edges_scores=[1]),
        "g.pt: edges_scores: expected a plain tensor of (9, 21), found a list",
    ),
    (
        lambda data: data.update(edges_scores=data["edges_scores"].to_sparse()),
        "g.pt: edges_scores: expected a plain tensor of (9, 21), found a Tensor",
    ),
    (
        lambda data: data.update(edges_scores=data["edges_scores"] * 1j),
        "g.pt: edges_scores: expected real numbers, found torch.complex64",
    ),
    (
        put("edges_scores", 0, 1, value=torch.nan),
        "g.pt: edges_scores[0, 1] (input->a0.h1<q>): expected a finite number, found nan, and 0 more; by it nothing "
        "could be put in order; score them again",
    ),
    (
        put("edges_scores", *BACK, value=1.0),
        "g.pt: edges_scores[4, 0] (m0->a0.h0<q>): no such edge is in the model: the sender adds after the receiver has "
        "read, here and in 0 other places; EAP-IG's choice by nodes leaves such ones: write `graph.in_graph &= "
        "graph.real_edge_mask` before to_pt",
    ),
    (
        put("edges_in_graph", *BACK, value=True),
        "g.pt: edges_in_graph[4, 0] (m0->a0.h0<q>): no such edge is in the model: the sender adds after the receiver "
        "has read, here and in 0 other places; EAP-IG's choice by nodes leaves such ones: write `graph.in_graph &= "
        "graph.real_edge_mask` before to_pt",
    ),
    (
        lambda data: data.update(nodes_in_graph=torch.full((9,), 2)),
        "g.pt: nodes_in_graph[0]: expected true or false",
    ),
    (
        lambda data: data.update(nodes_scores=torch.full((9,), torch.inf)),
        "g.pt: nodes_scores[0]: expected a finite number, or NaN for what was not scored",
    ),
    (
        lambda data: data.update(neurons_in_graph=torch.ones(9, 4, dtype=torch.bool)),
        "g.pt: neurons_in_graph: expected a tensor of (9, 5) for a graph of this shape, found (9, 4)",
    ),
    (
        lambda data: data.update(cfg={**data["cfg"], "d_model": None}, neurons_scores=torch.ones(9, 4)),
        "g.pt: cfg.d_model: expected the number of neurons, found none, and the file tells of neurons",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_is_wrong_is_told_with_its_place(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    data = NAIVE.tensors()
    change(data)

    assert problems(saved(data, tmp_path)) == [message]


def test_a_graph_of_another_shape_is_refused(tmp_path: Path) -> None:
    found = problems(saved({**NAIVE.tensors(), "cfg": Naive(3, 3).config}, tmp_path))

    assert found == [
        "g.pt: src_nodes: expected 13 names for a graph of this shape, found a list of 9; is cfg right?",
        "g.pt: dst_nodes: expected 31 names for a graph of this shape, found a list of 21; is cfg right?",
    ]


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("it ran",)


def test_a_file_that_would_run_code_is_refused_and_runs_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = problems(saved({**NAIVE.tensors(), "cfg": Harmful()}, tmp_path))

    assert found[0].startswith("g.pt: expected tensors, numbers and texts alone, found more: ")
    assert found[1] == (
        "  Such a file can run code when it is read. Write it again with plain values, as EAP-IG's to_pt does."
    )
    assert capsys.readouterr().out == ""


def test_a_bare_pickle_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(Harmful()))
    found = problems(tmp_path / "g.pkl")

    assert found[0].startswith("g.pt: expected JSON or a file of torch.save, found one that begins with b'\\x80")
    assert found[1] == "  Where you trust it, load it yourself and write torch.save(graph, 'graph.pt')."
    assert capsys.readouterr().out == ""


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = saved(NAIVE.tensors(), tmp_path).read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40)]:
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        assert problems(tmp_path / "cut.pt")[0].startswith("g.pt: expected"), length


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = bytearray(saved(NAIVE.tensors(), tmp_path).read_bytes())
    refused = 0
    for at in range(0, len(whole), 23):
        damaged = whole.copy()
        damaged[at] ^= 0xFF
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            read_graph(tmp_path / "damaged.pt", "g")
        except GraphError:
            refused += 1

    assert refused


def test_what_is_no_dict_is_refused(tmp_path: Path) -> None:
    assert problems(saved([1], tmp_path)) == [
        "g.pt: expected a dict, as EAP-IG's to_pt writes it, found a list",
    ]


def test_an_edge_without_a_score_cannot_be_written(tmp_path: Path) -> None:
    graph = empty(parse_eap_json(NAIVE.text(), "g").shape)
    for form in ("eap-pt", "auto-circuit"):
        with pytest.raises(GraphError, match="embed -> L0H0.q and 74 other edges have no score, .* score them all"):
            write_graph(graph, tmp_path / "w.pt", form)
    assert not (tmp_path / "w.pt").exists()
    assert graph.shape.real.sum() == 75


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    graph = parse_eap_json(NAIVE.text(), "g")
    for form in ("eap-pt", "eap-json"):
        with pytest.raises(GraphError, match="the file cannot be written"):
            write_graph(graph, tmp_path / "nowhere" / "w.pt", form)


# -- auto-circuit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("naive", SHAPES)
def test_scores_of_auto_circuit_are_those_of_the_edges(naive: Naive, tmp_path: Path) -> None:
    graph, form = read_graph(saved(naive.modules(), tmp_path), "g")

    assert form == "auto-circuit"
    assert (graph.shape.layers, graph.shape.heads, graph.shape.parallel) == (
        naive.layers,
        naive.heads,
        naive.parallel,
    )
    assert {name: graph.scores[at] for name, at in naive.edges().items()} == {
        name: naive.score(*at) for name, at in naive.edges().items()
    }
    assert not graph.edges.any()
    assert not graph.nodes.any()


@pytest.mark.parametrize("naive", SHAPES)
def test_scores_are_written_as_auto_circuit_has_them(naive: Naive, tmp_path: Path) -> None:
    graph = parse_eap_json(naive.text(), "g")
    write_graph(graph, tmp_path / "w.pt", "auto-circuit")
    found, expected = torch.load(tmp_path / "w.pt", weights_only=True), naive.modules()

    assert found.keys() == expected.keys()
    assert all(torch.equal(found[module], expected[module]) for module in expected)
    assert lost(graph, "auto-circuit") == ["which nodes and edges are in the circuit", "the model's width"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.pop("blocks.1.hook_k_input"),
            "g.pt: blocks.1.hook_k_input: expected the scores of this module, found none; graphs without MLPs are not "
            "read",
        ),
        (
            lambda data: data.update({"blocks.0.hook_resid_post": torch.ones(1)}),
            "g.pt: blocks.0.hook_resid_post: expected no such module in a graph of 2 layers of 3 heads",
        ),
        (
            lambda data: data.update({"blocks.1.hook_v_input": torch.ones(4, 3, 5)}),
            "g.pt: blocks.1.hook_v_input: expected a tensor of (3, 5) for a graph of this shape, found (4, 3, 5)",
        ),
        (
            put("blocks.1.hook_q_input", 2, 1, value=torch.nan),
            "g.pt: blocks.1.hook_q_input[2, 1]: expected a finite number; score the edges again",
        ),
        (
            lambda data: data.pop("blocks.0.hook_mlp_in"),
            "g.pt: blocks.0: expected hook_q_input of (heads, 1) and hook_mlp_in of (senders,), as auto-circuit has "
            "them of a model with MLPs, with q, k and v apart and all positions together",
        ),
    ],
)
def test_scores_that_do_not_fit_are_told_with_their_module(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    data = NAIVE.modules()
    change(data)

    assert problems(saved(data, tmp_path)) == [message]

"""Graphs as EAP-IG's JSON: read as its formulas say, written as it was, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from naive_eap import SHAPES, Naive

from pytest_circuits.errors import GraphError
from pytest_circuits.integrations.eap_json import eap_json_text, parse_eap_json

if TYPE_CHECKING:
    from collections.abc import Callable

NAIVE = Naive()


@pytest.mark.parametrize("naive", SHAPES)
def test_every_score_is_that_of_its_edge(naive: Naive) -> None:
    graph = parse_eap_json(naive.text(), "g")

    for at in naive.edges().values():
        assert (graph.scores[at], graph.edges[at]) == (naive.score(*at), naive.inside(*at))
    assert np.isnan(graph.scores).sum() == graph.scores.size - len(naive.edges())
    assert graph.nodes.tolist() == [index % 2 == 0 for index in range(naive.size[0])]
    assert graph.node_scores is None


@pytest.mark.parametrize("naive", SHAPES)
def test_a_file_is_written_as_it_was_read(naive: Naive) -> None:
    assert eap_json_text(parse_eap_json(naive.text(), "g")) == naive.text()


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    data = NAIVE.data()
    change(data)
    return json.dumps(data)


def problems(text: str) -> list[str]:
    with pytest.raises(GraphError) as caught:
        parse_eap_json(text, "g.json")
    return str(caught.value).split("\n")


def test_what_else_the_config_says_is_kept() -> None:
    text = changed(lambda data: data["cfg"].update(n_key_value_heads=1, model="x"))

    assert json.loads(eap_json_text(parse_eap_json(text, "g"))) == json.loads(text)


def test_scores_of_nodes_are_kept_and_a_node_may_have_none() -> None:
    def change(data: dict[str, Any]) -> None:
        data["nodes"]["a0.h1"]["score"] = 0.5
        data["nodes"]["m1"]["score"] = float("nan")

    graph = parse_eap_json(changed(change), "g")
    written = json.loads(eap_json_text(graph))["nodes"]

    assert graph.node_scores is not None
    assert graph.node_scores[NAIVE.forward("a0.h1")] == 0.5
    assert {node: entry["score"] for node, entry in written.items() if "score" in entry} == {"a0.h1": 0.5}


def test_nodes_may_be_told_by_yes_and_no_alone() -> None:
    plain = changed(lambda data: data.update(nodes={key: value["in_graph"] for key, value in data["nodes"].items()}))

    assert eap_json_text(parse_eap_json(plain, "g")) == NAIVE.text()


def test_an_edge_that_is_not_listed_has_no_score_and_is_not_written() -> None:
    text = changed(lambda data: data["edges"].pop("a0.h1->m1"))
    graph = parse_eap_json(text, "g")
    at = NAIVE.edges()["a0.h1->m1"]

    assert np.isnan(graph.scores[at])
    assert not graph.edges[at]
    assert eap_json_text(graph) == text


EDGE = "a0.h1->a1.h2<k>"
WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda data: data.pop("edges"),
        "g.json: edges: expected this section of a graph as EAP-IG writes it, with keys and values",
    ),
    (
        lambda data: data.update(neurons={}),
        "g.json: 'neurons': expected only cfg, nodes, edges; what stands here would be lost, take it out",
    ),
    (lambda data: data["cfg"].pop("n_layers"), "g.json: cfg.n_layers: expected a whole number above 0, found None"),
    (
        lambda data: data["nodes"].pop("m1"),
        "g.json: nodes['m1']: expected this node of a graph of this shape, found none; is cfg right?",
    ),
    (
        lambda data: data["nodes"].update({"a2.h0": {"in_graph": True}}),
        "g.json: nodes['a2.h0']: a graph of 2 layers of 3 heads has no such node; is cfg right?",
    ),
    (
        lambda data: data["nodes"].update(logits={"in_graph": False}),
        "g.json: nodes['logits']: the logits are in every graph and have no score of their own; write in_graph: true",
    ),
    (
        lambda data: data["nodes"]["m0"].update(neurons=[True]),
        "g.json: nodes['m0'].neurons: neurons are read from .pt files only: EAP-IG's from_json gives every head of a "
        "layer the neurons of the layer's last head, so in JSON they are not what was written; write one with to_pt",
    ),
    (
        lambda data: data["nodes"].update(m0=1),
        """g.json: nodes['m0']: expected an object such as {"in_graph": true}, found 1""",
    ),
    (
        lambda data: data["edges"][EDGE].update(in_graph=1),
        f"g.json: edges['{EDGE}'].in_graph: expected true or false, found 1",
    ),
    (
        lambda data: data["edges"][EDGE].update(weight=1),
        f"g.json: edges['{EDGE}'].weight: expected only in_graph and score; this would be lost, take it out",
    ),
    *(
        (
            lambda data, value=value: data["edges"][EDGE].update(score=value),
            f"g.json: edges['{EDGE}'].score: expected a finite number, found {shown}; by it nothing could be put in "
            "order; score it again",
        )
        for value, shown in [
            (float("nan"), "nan"),
            (float("inf"), "inf"),
            (None, "None"),
            ("1", "'1'"),
            (True, "True"),
            (10**400, f"{10**400!r:.80}"),
        ]
    ),
    (
        lambda data: data["edges"].update({"m1->a0.h0<q>": data["edges"][EDGE]}),
        "g.json: edges['m1->a0.h0<q>']: m1 adds to the residual stream after a0.h0<q> has read it; is it the other way "
        "round?",
    ),
    (
        lambda data: data["edges"].update({"a1.h0->a1.h1<q>": data["edges"][EDGE]}),
        "g.json: edges['a1.h0->a1.h1<q>']: a1.h0 adds to the residual stream after a1.h1<q> has read it; is it the "
        "other way round?",
    ),
    (
        lambda data: data["edges"].update({"a0.h9->m1": data["edges"][EDGE]}),
        "g.json: edges['a0.h9->m1']: expected a sender such as a5.h5, m9 or input, found 'a0.h9'; this graph has 2 "
        "layers of 3 heads",
    ),
    (
        lambda data: data["edges"].update({"a0.h0->a1.h1": data["edges"][EDGE]}),
        "g.json: edges['a0.h0->a1.h1']: expected a receiver such as a7.h3<k>, m9 or logits, found 'a1.h1'; this graph "
        "has 2 layers of 3 heads",
    ),
    (
        lambda data: data["edges"].update({"a0.h0": data["edges"][EDGE]}),
        "g.json: edges['a0.h0']: expected sender->receiver; this graph has 2 layers of 3 heads",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_is_wrong_is_told_with_its_place(change: Callable[[dict[str, Any]], object], message: str) -> None:
    assert problems(changed(change)) == [message]


def test_a_graph_of_another_shape_is_refused() -> None:
    found = problems(changed(lambda data: data["cfg"].update(n_layers=1)))

    assert found[0] == "g.json: nodes['a1.h0']: a graph of 1 layers of 3 heads has no such node; is cfg right?"
    assert len(found) == 11
    assert found[-1].endswith("more")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NAIVE.text()[:-40], "g.json:1:"),
        ("{'cfg'", "g.json:1:2: this is not JSON: Expecting property name enclosed in double quotes; is it whole?"),
        ('{"cfg": 1, "cfg": 2}', "g.json: this is not JSON that can be read: the key 'cfg' is given twice"),
        ("[" * 100_000, "g.json: this is no graph: it is nested too deep"),
        ("[]", "g.json: cfg: expected this section"),
    ],
)
def test_what_is_no_json_object_is_refused(text: str, message: str) -> None:
    assert problems(text)[0].startswith(message)


def test_neurons_are_not_written() -> None:
    graph = parse_eap_json(NAIVE.text(), "g")
    object.__setattr__(graph, "neurons", np.ones((9, 5), bool))

    with pytest.raises(GraphError, match="neurons are not written as JSON: .*; write a .pt file"):
        eap_json_text(graph)


def test_a_circuit_with_an_edge_that_has_no_score_is_not_written() -> None:
    graph = parse_eap_json(NAIVE.text(), "g")
    at = NAIVE.edges()["input->m0"]
    graph.edges[at], graph.scores[at] = True, np.nan

    with pytest.raises(GraphError, match="^embed -> L0.mlp and 0 other edges of the circuit have no score"):
        eap_json_text(graph)

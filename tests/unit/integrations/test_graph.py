"""The matrices of a graph: their order, which places are edges, and circuits of the largest scores."""

from __future__ import annotations

import numpy as np
import pytest
from naive_eap import SHAPES, Naive
from small_models import bound, random_module

from pytest_circuits.attribution.graph import reaches, receivers_of, senders_of
from pytest_circuits.errors import GraphError
from pytest_circuits.integrations.eap_json import parse_eap_json
from pytest_circuits.integrations.graph import Graph, Shape, connected, empty, shape_of, with_largest
from pytest_circuits.integrations.names import eap_receiver, eap_sender


def shape_like(naive: Naive) -> Shape:
    return Shape(naive.layers, naive.heads, naive.parallel, naive.width)


@pytest.mark.parametrize("naive", SHAPES)
def test_the_matrices_are_in_the_order_of_eap_ig(naive: Naive) -> None:
    shape = shape_like(naive)

    assert [eap_sender(sender) for sender in shape.senders] == naive.nodes()[:-1]
    assert [eap_receiver(receiver) for receiver in shape.receivers] == naive.receivers()
    assert sorted(naive.edges().values()) == [tuple(at) for at in np.argwhere(shape.real).tolist()]


@pytest.mark.parametrize("naive", SHAPES)
def test_what_reaches_what_is_as_in_attribution(naive: Naive) -> None:
    shape = shape_like(naive)
    found = [
        [reaches(sender, receiver, parallel=naive.parallel) for receiver in shape.receivers] for sender in shape.senders
    ]

    assert np.array_equal(shape.real, found)


def test_a_bound_model_has_the_same_senders_and_receivers() -> None:
    model = bound(random_module("gpt2"), "gpt2")
    shape = Shape(model.layers, model.heads)

    assert (shape.senders, shape.receivers) == (senders_of(model), receivers_of(model))


def test_a_receiver_belongs_to_the_node_that_reads_there() -> None:
    shape = Shape(2, 3)
    owners = [shape.senders[owner] for owner in shape.owners[:-1]]

    assert shape.owners[-1] == -1
    assert (
        [(owner.layer, getattr(owner, "head", 0)) for owner in owners]
        == [  # type: ignore[union-attr]
            (receiver.layer, receiver.unit) for receiver in shape.receivers[:-1]
        ]
    )


def test_gpt2_small_has_as_many_edges_as_everybody_counts() -> None:
    assert Shape(12, 12).real.sum() == 32_491


# -- circuits ----------------------------------------------------------------------------------------------------------


def connected_by_walking(naive: Naive, edges: set[str]) -> set[str]:
    """Edges on a way from the input to the logits: one end fed from the input, the other leading to the logits."""
    pairs = {name: tuple(name.split("<")[0].split("->")) for name in edges}

    def reached(start: str, forward: bool) -> set[str]:
        seen, waiting = {start}, [start]
        while waiting:
            node = waiting.pop()
            for one, other in pairs.values():
                here, there = (one, other) if forward else (other, one)
                if here == node and there not in seen:
                    seen.add(there)
                    waiting.append(there)
        return seen

    fed, leading = reached("input", True), reached("logits", False)
    return {name for name, (one, other) in pairs.items() if one in fed and other in leading}


@pytest.mark.parametrize("count", [1, 5, 12, 30, 10_000])
@pytest.mark.parametrize("naive", SHAPES)
def test_a_circuit_is_the_largest_scores_that_are_on_a_way(naive: Naive, count: int) -> None:
    graph = parse_eap_json(naive.text(), "g")
    places = naive.edges()
    count = min(count, len(places))
    ranked = sorted(places, key=lambda name: -abs(naive.score(*places[name])))
    expected = connected_by_walking(naive, set(ranked[:count]))
    if not expected:
        with pytest.raises(GraphError, match=f"no way leads .* through the {count} edges .* ask for more"):
            with_largest(graph, count)
        return
    found = with_largest(graph, count)

    assert {name for name, at in places.items() if found.edges[at]} == expected
    assert found.edges.sum() == len(expected)
    ends = {end for name in expected for end in name.split("<")[0].split("->")} - {"logits"}
    assert {node for node in naive.nodes()[:-1] if found.nodes[naive.forward(node)]} == ends


def test_edges_that_feed_nothing_fall_one_after_the_other() -> None:
    shape = Shape(4, 1)
    edges = np.zeros(shape.real.shape, bool)
    for sender, receiver in ((0, 0), (1, 4), (3, 8), (0, 11)):  # a chain of queries that ends before the logits
        edges[sender, receiver] = True
    nodes, kept = connected(shape, edges)

    assert not kept.any()
    assert not nodes.any()


def test_more_edges_than_have_a_score_are_refused() -> None:
    with pytest.raises(GraphError, match="a circuit of 3 edges is asked for, and 0 have a score; ask for fewer"):
        with_largest(empty(Shape(1, 1)), 3)


def test_the_largest_are_told_with_their_names_and_the_first_among_equals_first() -> None:
    shape = Shape(1, 1)
    graph = empty(shape)
    graph.scores[shape.real] = 1.0
    graph.scores[1, 3] = -2.0
    found = [(str(edge), score, inside) for edge, score, inside in graph.largest(3)]

    assert found == [("L0H0 -> L0.mlp", -2.0, False), ("embed -> L0H0.q", 1.0, False), ("embed -> L0H0.k", 1.0, False)]
    assert len(list(graph.largest(100))) == shape.real.sum()


def test_the_edges_of_a_circuit_are_told_by_receiver() -> None:
    graph = parse_eap_json(Naive(1, 1).text(), "g")
    expected = [name for name, at in Naive(1, 1).edges().items() if Naive.inside(*at)]

    assert len(list(graph.in_circuit())) == len(expected)
    assert isinstance(graph, Graph)


# -- the config --------------------------------------------------------------------------------------------------------

GOOD = {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 8}


def test_a_config_tells_the_shape_and_what_else_it_says_is_kept() -> None:
    found = shape_of({**GOOD, "n_key_value_heads": 2, "model_name": "x"}, "g")

    assert (found.layers, found.heads, found.parallel, found.width, found.key_value_heads) == (2, 4, False, 8, 2)
    assert found.more == {"model_name": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 0}, "g: cfg.n_layers: expected a whole number above 0, found 0"),
        ({"n_layers": True}, "g: cfg.n_layers: expected a whole number above 0, found True"),
        ({"n_heads": "4"}, "g: cfg.n_heads: expected a whole number above 0, found '4'"),
        ({"d_model": 1.5}, "g: cfg.d_model: expected a whole number above 0, found 1.5"),
        ({"n_key_value_heads": 3}, "g: cfg.n_key_value_heads: expected a divisor of the 4 heads, found 3"),
        ({"parallel_attn_mlp": None}, "g: cfg.parallel_attn_mlp: expected true or false, found None"),
        ({"hooks": []}, "g: cfg['hooks']: expected a plain value, found a list; take it out"),
        ({"n_layers": 10**6}, "more edges than are read"),
    ],
)
def test_a_config_that_tells_no_shape_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        shape_of({**GOOD, **change}, "g")

    assert message in str(caught.value)


def test_a_config_that_is_none_is_refused() -> None:
    with pytest.raises(GraphError, match="g: cfg: expected n_layers, .* found 'gpt2'"):
        shape_of("gpt2", "g")

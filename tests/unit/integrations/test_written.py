"""What others show of a circuit, and what a spec says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from naive_eap import SHAPES, Naive

from pytest_circuits.errors import GraphError
from pytest_circuits.integrations import files
from pytest_circuits.integrations.eap_json import parse_eap_json
from pytest_circuits.integrations.files import lost, read_graph
from pytest_circuits.integrations.graph import empty, with_largest
from pytest_circuits.integrations.neuronpedia import neuronpedia_text
from pytest_circuits.integrations.spec_text import spec_sections
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_circuits.integrations.graph import Graph

SPEC = """\
format: 1
model: {{checkpoint: c, architecture: gpt2, layers: {layers}, heads: {heads}}}
prompts:
  vocabulary: {{a: {{x: [a, b, c, d, e, f, g, h], y: [A, B, C, D, E, F, G, H]}}, v: {{x: [is], y: [are]}}}}
  templates: [{{id: t, text: "the {{a}}", answer: "{{v}}", flip: a}}]
claims: {{edges: }}
"""


def graph_of(naive: Naive, **config: Any) -> Graph:
    data = naive.data()
    data["cfg"] |= config
    return parse_eap_json(json.dumps(data), "g")


# -- Neuronpedia -------------------------------------------------------------------------------------------------------

TEXT, NUMBER, MAYBE = (str,), (int, float), (int, float, type(None))
METADATA = {
    "slug": TEXT,
    "scan": TEXT,
    "transcoder_list": (list,),
    "prompt_tokens": (list,),
    "prompt": TEXT,
    "node_threshold": MAYBE,
    "schema_version": (int,),
}
PARAMETERS = {"pinnedIds": (list,), "supernodes": (list,), "linkType": TEXT, "clickedId": TEXT, "sg_pos": TEXT}
NODE = {
    "node_id": TEXT,
    "feature": (int,),
    "layer": TEXT,
    "ctx_idx": (int,),
    "feature_type": TEXT,
    "token_prob": NUMBER,
    "is_target_logit": (bool,),
    "run_idx": (int,),
    "reverse_ctx_idx": (int,),
    "jsNodeId": TEXT,
    "clerp": TEXT,
    "influence": MAYBE,
    "activation": MAYBE,
}
LINK = {"source": TEXT, "target": TEXT, "weight": NUMBER}


def fits(value: dict[str, Any], fields: dict[str, tuple[type, ...]]) -> None:
    """The models of circuit-tracer's viewer, field by field."""
    assert value.keys() == fields.keys()
    for key, types in fields.items():
        assert isinstance(value[key], types), key
        assert isinstance(value[key], bool) == (types == (bool,)), key


@pytest.mark.parametrize("naive", SHAPES)
def test_a_circuit_has_every_field_that_the_viewers_ask_for(naive: Naive) -> None:
    found = json.loads(neuronpedia_text(graph_of(naive), "mine"))

    assert found.keys() == {"metadata", "qParams", "nodes", "links"}
    fits(found["metadata"], METADATA)
    fits(found["qParams"], PARAMETERS)
    for node in found["nodes"]:
        fits(node, NODE)
    for link in found["links"]:
        fits(link, LINK)
    ids = [node["node_id"] for node in found["nodes"]]
    assert len(set(ids)) == len(ids) == len({node["jsNodeId"] for node in found["nodes"]})
    assert {link[end] for link in found["links"] for end in ("source", "target")} <= set(ids)
    assert found["metadata"]["slug"] == "mine"
    assert all(node["ctx_idx"] < len(found["metadata"]["prompt_tokens"]) for node in found["nodes"])


@pytest.mark.parametrize("naive", SHAPES)
def test_a_link_weighs_as_much_as_the_edges_of_the_circuit_that_it_stands_for(naive: Naive) -> None:
    found = json.loads(neuronpedia_text(graph_of(naive), "mine"))
    called = {node["node_id"]: node["clerp"] for node in found["nodes"]}
    expected: dict[tuple[str, str], float] = {}
    for name, at in naive.edges().items():
        if naive.inside(*at):
            start, end = (ours(node) for node in name.split("<")[0].split("->"))
            expected[start, end] = expected.get((start, end), 0.0) + naive.score(*at)

    assert {
        (called[link["source"]], called[link["target"]]): link["weight"] for link in found["links"]
    } == pytest.approx(expected)


def ours(node: str) -> str:
    if node in ("input", "logits"):
        return {"input": "embed"}.get(node, node)
    return f"L{node[1:]}.mlp" if node[0] == "m" else f"L{node[1:].replace('.h', 'H')}"


def test_the_score_of_a_node_is_its_influence() -> None:
    graph = graph_of(Naive())
    scores = np.full(9, np.nan)
    scores[2] = 0.5
    object.__setattr__(graph, "node_scores", scores)
    found = json.loads(neuronpedia_text(graph, "mine"))["nodes"]

    assert {node["clerp"]: node["influence"] for node in found if node["influence"] is not None} == {"L0H1": 0.5}


def test_a_circuit_that_cannot_be_shown_is_refused() -> None:
    graph = graph_of(Naive())
    with pytest.raises(GraphError, match="no edge is in the circuit, .* choose some with --edges N"):
        neuronpedia_text(empty(graph.shape), "mine")
    graph.scores[graph.edges] = np.nan
    with pytest.raises(GraphError, match="an edge of the circuit has no score"):
        neuronpedia_text(graph, "mine")


def test_what_a_viewer_does_not_show_is_told() -> None:
    assert lost(graph_of(Naive()), "neuronpedia") == [
        "edges outside of the circuit",
        "which of a head's q, k and v an edge leads to",
    ]
    assert lost(graph_of(Naive()), "eap-json") == []


# -- a spec ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("naive", SHAPES)
@pytest.mark.parametrize("share", [0.8, 1.0])
def test_a_spec_with_the_sections_loads_and_names_the_same_circuit(naive: Naive, share: float, tmp_path: Path) -> None:
    graph = with_largest(graph_of(naive), int(share * len(naive.edges())))
    assert graph.edges.any()
    path = tmp_path / "a.circuit.yaml"
    path.write_text(SPEC.format(layers=naive.layers, heads=naive.heads) + spec_sections(graph))
    spec = load_spec(path, root=tmp_path).spec

    assert spec.wires == tuple(graph.in_circuit())
    assert len(spec.members) + spec.embed == graph.nodes.sum()
    assert all(len(line) <= 120 for line in spec_sections(graph).splitlines())


def test_keys_and_values_that_heads_share_are_named_by_the_key_value_head() -> None:
    naive = Naive(2, 4)
    graph = graph_of(naive, n_key_value_heads=2)
    graph.edges[:] = False
    for name in ("input->a1.h1<k>", "input->a1.h0<k>", "input->a1.h3<v>", "input->a1.h3<q>"):
        graph.edges[naive.edges()[name]] = True
    text = spec_sections(graph)

    assert yaml.safe_load(text)["edges"] == ["embed -> L1H3.q", "embed -> L1KV0.k", "embed -> L1KV1.v"]
    assert "\n# keys and values are read by 2 key/value heads that heads share\n" in text


def test_nothing_is_no_circuit() -> None:
    with pytest.raises(GraphError, match="nothing is in the circuit, .* choose some with --edges N"):
        spec_sections(empty(graph_of(Naive()).shape))


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_not_text_or_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.json"
    path.write_bytes(b'{"cfg": "\xff"}')
    with pytest.raises(GraphError, match="g: the file is not UTF-8 at byte 9; save it as UTF-8"):
        read_graph(path, "g")
    with pytest.raises(GraphError, match="g: the file cannot be read: No such file"):
        read_graph(tmp_path / "none", "g")
    monkeypatch.setattr(files, "LARGEST_FILE", 4)
    with pytest.raises(GraphError, match="g: the file has more than 4 bytes"):
        read_graph(path, "g")

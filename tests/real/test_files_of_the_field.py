"""Files that others made and published: graphs that are read to the last edge, and prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from naive_wiring import NaiveWiring
from pairs import random_pairs
from small_models import bound, random_module

from pytest_circuits.attribution.graph import wires_of
from pytest_circuits.attribution.wiring import wired
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import PromptError
from pytest_circuits.integrations.files import read_graph, write_graph
from pytest_circuits.integrations.spec_text import spec_sections
from pytest_circuits.prompts.files import read_pairs
from pytest_circuits.spec.loader import load_spec

DATA = Path(__file__).parents[3] / "shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} with files of other tools is not at hand")
GRAPH = DATA / "mib-ioi-eap-ig.json"
SPEC = """\
format: 1
model: {checkpoint: gpt2, architecture: gpt2, layers: 12, heads: 12}
prompts:
  vocabulary: {a: {x: [a, b, c, d, e, f, g, h], y: [A, B, C, D, E, F, G, H]}, v: {x: [is], y: [are]}}
  templates: [{id: t, text: "the {a}", answer: "{v}", flip: a}]
claims: {edges: }
"""


def test_a_graph_of_gpt2_is_read_and_written_to_the_last_edge(tmp_path: Path) -> None:
    graph, form = read_graph(GRAPH, "mib")
    write_graph(graph, tmp_path / "w.json", "eap-json")

    assert form == "eap-json"
    assert (len(graph.shape.senders) + 1, int(graph.shape.real.sum())) == (158, 32_491)
    assert (int(graph.nodes.sum()), int(graph.edges.sum())) == (80, 756)
    assert (tmp_path / "w.json").read_text() == GRAPH.read_text()


def test_it_is_the_same_after_a_detour_through_torch(tmp_path: Path) -> None:
    graph, _ = read_graph(GRAPH, "mib")
    write_graph(graph, tmp_path / "w.pt", "eap-pt")
    back, _ = read_graph(tmp_path / "w.pt", "w")
    write_graph(back, tmp_path / "w.json", "eap-json")

    assert json.loads((tmp_path / "w.json").read_text()) == json.loads(GRAPH.read_text())


def test_its_strongest_edges_are_those_that_the_paper_on_ioi_knows() -> None:
    graph, _ = read_graph(GRAPH, "mib")
    found = [str(edge) for edge, _, _ in graph.largest(10)]

    assert found[0] == "L9H9 -> logits"  # a name mover
    assert {"L10H7 -> logits", "L9H6 -> logits", "L11H10 -> logits", "L5H5 -> L8H6.v"} < set(found)


def test_its_circuit_is_a_spec_that_loads(tmp_path: Path) -> None:
    graph, _ = read_graph(GRAPH, "mib")
    path = tmp_path / "ioi.circuit.yaml"
    path.write_text(SPEC + spec_sections(graph))
    spec = load_spec(path, root=tmp_path).spec

    assert len(spec.wires) == 756
    assert len(spec.member_heads) == 67


def test_its_edges_run_on_a_model_of_that_shape_as_in_a_plain_loop() -> None:
    """The shape is GPT-2 small's, 158 nodes and 32,491 edges; the weights are random, and the widths small."""
    model = bound(random_module("gpt2", layers=12, heads=12, hidden_size=96), "gpt2", layers=12, heads=12)
    runs = Runs(model, random_pairs((6,)), value="resample", metric="logit_diff")
    oracle, wires = NaiveWiring(model), wires_of(model)
    oracle.reading = replace(oracle.reading, made={kind: ("attn.c_attn", at * 96, 8) for at, kind in enumerate("qkv")})
    named = [*read_graph(GRAPH, "mib")[0].in_circuit()]
    whole = wires.mask(named)
    sample = [whole & ~wires.mask([edge]) for edge in named[::150]]
    circuits = [whole, wires.edges & ~whole, *sample]

    assert (int(wires.edges.sum()), int(whole.sum())) == (32_491, 756)
    for live, found in zip(circuits, wired(runs, circuits)[:, 0], strict=True):
        cut = {
            (wires.senders[row], wires.receivers[column]) for row, column in np.argwhere(wires.edges & ~live).tolist()
        }
        expected = oracle.wired(runs.encoded[0], runs.encoded, "resample", wires.receivers, cut)
        assert found == pytest.approx(expected, abs=1e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("eap-greater-than.csv", 975, ("The contract lasted from the year 1352 to the year 13", "53", "51", "all")),
        ("feature-circuits-simple-test.json", 60, ("The uncle", " has", " have", "singular")),
        ("feature-circuits-nounpp-test.json", 458, ("The uncles behind the dogs", " do", " does", "plural_plural")),
    ],
)
def test_prompts_are_read(name: str, count: int, first: tuple[str, ...]) -> None:
    pairs = read_pairs(DATA / name, name).pairs

    assert len(pairs) == count
    assert (pairs[0].clean, pairs[0].answer, pairs[0].foil, pairs[0].template) == first


def test_token_ids_of_one_tokenizer_are_refused() -> None:
    with pytest.raises(PromptError, match=r"ids.csv:1: correct_idx and incorrect_idx are token ids of one tokenizer"):
        read_pairs(DATA / "eap-ioi-llama.csv", "ids.csv")

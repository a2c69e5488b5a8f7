"""Edges of a spec: their names, where a wrong one stands, and that each is part of a way to the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_circuits.spec.components import Embedding, Head, Mlp
from pytest_circuits.spec.edges import Edge, Receiver, parse_edge

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project

WAY = ("embed -> L0H1.k", "L0H1 -> L2H3.v", "L2H3 -> logits")


@pytest.mark.parametrize(
    ("text", "edge", "name"),
    [
        ("L5H5 -> L7H3.k", Edge(Head(5, 5), Receiver(7, "k", 3)), "L5H5 -> L7H3.k"),
        ("embed->L0H1.q", Edge(Embedding(), Receiver(0, "q", 1)), "embed -> L0H1.q"),
        ("L9.mlp -> logits", Edge(Mlp(9), Receiver(12, "logits")), "L9.mlp -> logits"),
        ("L5H5 -> L5.mlp", Edge(Head(5, 5), Receiver(5, "mlp")), "L5H5 -> L5.mlp"),
        ("L5H5 -> L7KV1.v", Edge(Head(5, 5), Receiver(7, "v", 1)), "L5H5 -> L7KV1.v"),
        ("a5.h5->a7.h3<k>", Edge(Head(5, 5), Receiver(7, "k", 3)), "L5H5 -> L7H3.k"),
        ("input->m0", Edge(Embedding(), Receiver(0, "mlp")), "embed -> L0.mlp"),
        ("A5.5->A7.3.K", Edge(Head(5, 5), Receiver(7, "k", 3)), "L5H5 -> L7H3.k"),
        ("Resid Start->MLP 0", Edge(Embedding(), Receiver(0, "mlp")), "embed -> L0.mlp"),
        ("MLP 3->Resid End", Edge(Mlp(3), Receiver(12, "logits")), "L3.mlp -> logits"),
        ("9.10 -> 11.2.q", Edge(Head(9, 10), Receiver(11, "q", 2)), "L9H10 -> L11H2.q"),
    ],
)
def test_names_are_read_and_told_in_one_form(text: str, edge: Edge, name: str) -> None:
    found = parse_edge(text, 12)

    assert (found, str(found)) == (edge, name)
    assert parse_edge(name, 12) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("L5H5", "'L5H5' names no edge; an edge is written sender -> receiver"),
        ("L5H5 -> L6.mlp -> logits", "names no edge"),
        ("L5H5 -> L7H3", "'L7H3' does not say what the head reads; write L7H3.q, L7H3.k or L7H3.v"),
        ("L5H5 -> L7KV3", "'L7KV3' does not say what is read; write L7KV3.k or L7KV3.v"),
        ("L5H5 -> L7KV3.q", "'L7KV3' has no q; heads have q, k and v, key/value heads k and v"),
        ("L5H5 -> L7", "'L7' reads nothing as one; name what a head reads, an MLP or logits"),
        ("L5H5 -> embed", "'embed' reads nothing as one"),
        ("L5.attn -> logits", "'L5.attn' is no single sender; name a head, an MLP or embed"),
        ("L5KV1 -> logits", "'L5KV1' is no single sender"),
        ("verb -> logits", "'verb' names no part of a model"),
        ("L7H3 -> L5H5.q", "leads nowhere: what L7H3 writes is read by later layers and by the MLP of its own; is it"),
        ("L5H3 -> L5H5.q", "leads nowhere"),
        ("L5.mlp -> L5.mlp", "leads nowhere: what L5.mlp writes is read by later layers; is it the other way round"),
    ],
)
def test_what_names_no_edge_is_refused_with_what_would(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + why.replace("'", "['\"]")):
        parse_edge(text, 12)


def with_edges(*names: str, claims: str = "edges: {}") -> tuple[str, str]:
    edges = "".join(f'  - "{name}"\n' for name in names)
    return "claims:\n", f"{'edges:' + chr(10) + edges if names else ''}claims:\n  {claims}\n"


def test_a_spec_has_edges_in_one_form(project: Project, change: Callable[..., str]) -> None:
    spec = project.load(change(with_edges("input->a0.h1<k>", "L0H1->L2H3.v", "2.3 -> logits"))).spec

    assert spec.edges == WAY
    assert [str(edge) for edge in spec.wires] == [*WAY]
    assert spec.wires[-1].receiver.layer == 4
    assert "edges" in spec.declared


def test_edges_change_what_is_measured_and_other_claims_do_not_know_of_them(
    project: Project, change: Callable[..., str]
) -> None:
    plain = project.load()
    one, other = (project.load(change(with_edges(*names))) for names in (WAY, WAY[::-1]))

    assert "edges" not in plain.measured
    assert one.measured["edges"] == sorted(WAY)
    assert one.identity == other.identity != plain.identity


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            (*WAY, "L0H1 -> L9H3.q"),
            "edges.3: L9H3.q is outside the model: model.layers is 4, so they count from 0 to 3",
        ),
        (
            (*WAY, "L0H12 -> L1H3.q"),
            "edges.3: L0H12 is outside the model: model.heads is 12, so they count from 0 to 11",
        ),
        ((*WAY, WAY[1]), f"edges.3: {WAY[1]} is already named; an edge is named once"),
        (
            (*WAY, "embed -> L1.mlp"),
            "edges.3: nothing named reads what L1.mlp prepares, so this edge could have no effect; name the edges that"
            " lead on to the logits",
        ),
        (
            (*WAY, "L1.mlp -> logits"),
            "edges.3: L1.mlp reads nothing that is named, so with these edges alone it puts out what it does in the"
            " corrupt run, and this edge could have no effect; name the edges that lead to L1.mlp",
        ),
    ],
)
def test_an_edge_that_could_not_matter_is_refused_where_it_stands(
    names: tuple[str, ...], problem: str, project: Project, change: Callable[..., str]
) -> None:
    (found,) = project.problems(change(with_edges(*names)))

    assert found == f"specs/a.circuit.yaml:25:5: {problem}"


def test_where_values_are_other_than_corrupt_a_sender_need_not_read_anything(
    project: Project, change: Callable[..., str]
) -> None:
    names = (*WAY, "L1.mlp -> logits")

    assert project.load(change(with_edges(*names), ("value: resample", "value: mean"))).spec.edges == names
    assert project.load(change(with_edges(*names), ("positions: all", "positions: last"))).spec.edges == names


def test_behind_a_slot_what_is_kept_may_pass_by_cut_edges_too(project: Project, change: Callable[..., str]) -> None:
    names = (*WAY, "embed -> L1.mlp")

    assert project.load(change(with_edges(*names), ("positions: all", "positions: subject"))).spec.edges == names


def test_keys_that_heads_share_belong_to_any_head_of_the_layer(project: Project, change: Callable[..., str]) -> None:
    names = ("embed -> L0KV0.k", "L0H9 -> logits")

    assert project.load(change(with_edges(*names))).spec.edges == names


def test_edges_that_nothing_judges_are_refused(project: Project, change: Callable[..., str]) -> None:
    (found,) = project.problems(change(with_edges(*WAY, claims="controls: ")))

    assert found == "specs/a.circuit.yaml:22:3: edges: no check judges the edges; add edges to the claims, or drop them"


def test_a_claim_on_edges_needs_some(project: Project, change: Callable[..., str]) -> None:
    (found,) = project.problems(change(with_edges()))

    assert found == (
        'specs/a.circuit.yaml:22:10: claims.edges: no edge is named; give some, as edges: ["L5H5 -> L7H3.k"]'
    )

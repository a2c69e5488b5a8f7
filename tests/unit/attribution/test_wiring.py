"""Circuits of edges: equal to a plain loop that gives each reader its own stream; ends, sums and refusals."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from naive_wiring import NaiveWiring
from pairs import random_pairs
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.attribution import wiring
from pytest_circuits.attribution.graph import wires_of
from pytest_circuits.attribution.wiring import wired
from pytest_circuits.checkpoints import ov
from pytest_circuits.engine.patches import Ablated
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import InstrumentError, PromptError
from pytest_circuits.spec.components import Head, Mlp
from pytest_circuits.spec.edges import parse_edge

if TYPE_CHECKING:
    from pytest_circuits.attribution.graph import Wires
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

RAGGED = (7, 5, 7)
ORACLES = ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2"]
WITHOUT = {"deepseek_v3": "pass a bottleneck", "falcon-grouped": "repeated before attention uses them"}


def small(architecture: str) -> BoundModel:
    return bound(random_module(architecture, layers=2, heads=4), architecture, layers=2, heads=4)


def runs_on(model: BoundModel, pairs: list[Encoded] | None = None, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, pairs or random_pairs(RAGGED), **settings)


def some_edges(wires: Wires, seed: int, share: float = 0.5) -> np.ndarray:
    return np.asarray(wires.edges & (np.random.default_rng(seed).random(wires.edges.shape) < share))


# -- the oracle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["resample", "mean", "zero"])
@pytest.mark.parametrize("architecture", ORACLES)
def test_circuits_of_edges_equal_the_naive_loop(architecture: str, value: str) -> None:
    runs = runs_on(small(architecture), value=value)
    oracle, wires = NaiveWiring(runs.model), wires_of(runs.model)
    circuits = [some_edges(wires, seed, share) for seed, share in ((0, 0.5), (1, 0.8), (2, 0.1))]

    found = wired(runs, circuits)

    for live, numbers in zip(circuits, found, strict=True):
        there = zip(product(wires.senders, wires.receivers), (wires.edges & ~live).flatten(), strict=True)
        cut = {edge for edge, is_cut in there if is_cut}
        for row, number in zip(runs.encoded, numbers, strict=True):
            assert number == pytest.approx(oracle.wired(row, runs.encoded, value, wires.receivers, cut), abs=1e-4)


@pytest.mark.parametrize("architecture", ORACLES)
def test_each_edge_by_itself_equals_the_naive_loop(architecture: str) -> None:
    runs = runs_on(small(architecture), random_pairs((6,)))
    oracle, wires = NaiveWiring(runs.model), wires_of(runs.model)
    places = [(row, column) for row, column in np.argwhere(wires.edges).tolist() if (row + column) % 3 == 0]
    cut_one = []
    for place in places:
        live = wires.edges.copy()
        live[place] = False
        cut_one.append(live)

    found = wired(runs, cut_one)

    for (row, column), number in zip(places, found[:, 0], strict=True):
        cut = {(wires.senders[row], wires.receivers[column])}
        expected = oracle.wired(runs.encoded[0], runs.encoded, "resample", wires.receivers, cut)
        assert number == pytest.approx(expected, abs=1e-4), cut


# -- what holds for every architecture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [name for name in VARIANT_NAMES if name not in WITHOUT])
def test_no_edge_is_the_corrupt_run_and_a_part_without_its_edges_is_that_part_ablated(architecture: str) -> None:
    runs = runs_on(small(architecture))
    wires, parts = wires_of(runs.model), (Head(0, 1), Head(1, 2), Mlp(0), Mlp(1))
    without = []
    for part in parts:
        live = wires.edges.copy()
        live[wires.senders.index(part)] = False
        without.append(live)

    nothing, everything, *ablated = wired(runs, [np.zeros_like(wires.edges), wires.edges, *without])

    np.testing.assert_allclose(nothing, runs.corrupt, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(everything, runs.clean, atol=1e-5, rtol=1e-5)
    for part, one in zip(parts, ablated, strict=True):
        np.testing.assert_allclose(one, runs.ablated(Ablated(frozenset({part}))), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("architecture", "why"), WITHOUT.items())
def test_heads_that_read_through_no_weights_of_their_own_are_refused(architecture: str, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        wired(runs_on(small(architecture)), [])


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 2}, {"together": [[0, 1, 2]]}])
@pytest.mark.parametrize("metric", ["logit_diff", "kl"])
def test_neither_batch_nor_padding_moves_a_number(options: dict[str, Any], metric: str) -> None:
    model = small("gemma2")
    live = [some_edges(wires_of(model), seed) for seed in range(3)]

    one, other = wired(runs_on(model, metric=metric), live), wired(runs_on(model, metric=metric, **options), live)

    np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_as_many_rows_run_as_what_they_change_can_be_held_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("gpt2")
    live = [some_edges(wires_of(model), seed) for seed in range(3)]
    runs, heard = runs_on(model, random_pairs((7, 7, 7))), []
    whole = wired(runs, live)
    monkeypatch.setattr(wiring, "HELD", 11 * 7 * 32 * 2)  # 11 senders, 7 tokens, 32 features, of two rows

    pieces = wired(runs_on(model, random_pairs((7, 7, 7)), watch=lambda *told: heard.append(told)), live)

    np.testing.assert_allclose(pieces, whole, atol=1e-5, rtol=1e-5)
    assert [told for told in heard if told[0] == "edges"] == [("edges", 2, 3), ("edges", 3, 3)]


def test_half_precision_is_within_its_own_rounding() -> None:
    model = small("llama")
    live = [some_edges(wires_of(model), 0)]
    whole = wired(runs_on(model), live)
    model.module.bfloat16()

    assert abs(wired(runs_on(model), live) - whole).max() < 0.1


# -- faults ------------------------------------------------------------------------------------------------------------


def test_readers_with_other_weights_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_on(small("llama"))
    monkeypatch.setattr(wiring, "read_weights", lambda *at: 1.02 * ov.read_weights(*at))

    with pytest.raises(
        InstrumentError,
        match=r"(?s)with every edge live the run of 'random' should be the clean one, and.*In half precision",
    ):
        wired(runs, [])


def test_a_sender_that_writes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_on(small("gpt2"))
    monkeypatch.setattr(wiring, "output_weight", lambda *at: ov.output_weight(*at).flip(0))

    with pytest.raises(InstrumentError, match="all edges but those of L0H0 live .* the one in which these are ablated"):
        wired(runs, [])


@pytest.mark.parametrize("value", ["zero", "resample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_loud_feature_leaves_is_right_or_told(value: str, dtype: torch.dtype) -> None:
    """An MLP that writes one feature 300 times too loud: in half precision little is left beside it."""
    module = random_module("llama", layers=2, heads=4)
    module.model.layers[0].mlp.down_proj.weight.data[5] *= 300
    model = bound(module.to(dtype), "llama", layers=2, heads=4)
    runs, wires = runs_on(model, value=value), wires_of(model)
    live = wires.edges.copy()
    live[wires.senders.index(Mlp(0))] = False
    expected = runs.ablated(Ablated(frozenset({Mlp(0)})))

    if (value, dtype) == ("zero", torch.bfloat16):
        with pytest.raises(InstrumentError, match="(?s)all edges but those of L0.mlp, L1.mlp live .*try float32"):
            wired(runs, [live])
    else:
        np.testing.assert_allclose(wired(runs, [live])[0], expected, atol=0.1 if dtype is torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
@pytest.mark.parametrize("size", [1, 2, 256])
def test_positions_at_which_nothing_is_replaced_are_run_before(value: str, last: bool, size: int) -> None:
    """Tokens in front of the first that is replaced run by themselves, and not in the midst of another forward."""
    model = small("gpt2")
    rows = random_pairs((9, 9, 9), prefix=4, last=True) if last else random_pairs((9, 9, 9), prefix=4, kept=(0, 1, 2))
    runs, wires = Runs(model, rows, value=value, metric="logit_diff", batch_size=size), wires_of(model)
    live = wires.edges.copy()
    live[wires.senders.index(Head(0, 2))] = False

    np.testing.assert_allclose(
        wired(runs, [live])[0], runs.ablated(Ablated(frozenset({Head(0, 2)}))), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("other", ["k", "v"])
def test_queries_for_keys_or_values_are_seen_by_the_oracle(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which kind an edge leads to, no sum over all edges of a sender tells: the oracle of single edges does."""
    runs = runs_on(small("gpt2"), random_pairs((6,)))
    wires = wires_of(runs.model)
    live = wires.edges & np.array([one.kind != "q" for one in wires.receivers])
    right = wired(runs, [live])
    place, exchanged = wiring._Wired._place, {"q": other, other: "q"}
    monkeypatch.setattr(wiring._Wired, "_place", lambda self, at, kind: place(self, at, exchanged.get(kind, kind)))

    assert abs(wired(runs, [live]) - right).max() > 1e-3


# -- names -------------------------------------------------------------------------------------------------------------


def test_named_edges_are_those_of_the_model() -> None:
    wires = wires_of(small("gpt2"))
    mask = wires.mask([parse_edge(name, 2) for name in ("embed -> L0H1.q", "L0H1 -> L0.mlp", "L0.mlp -> logits")])

    assert int(mask.sum()) == 3
    assert not (mask & ~wires.edges).any()


def test_edges_into_heads_that_share_keys_are_named_by_what_is_shared() -> None:
    wires = wires_of(small("llama"))

    assert wires.mask([parse_edge("L0H1 -> L1KV1.v", 2)]).sum() == 1
    with pytest.raises(PromptError) as refusal:
        wires.mask([parse_edge("L0H1 -> L1H3.k", 2)])
    assert str(refusal.value) == (
        "L0H1 -> L1H3.k: this model's heads share 2 key/value heads in each layer, and an edge into one is an edge for"
        " all heads that read it.\n  Name it as what it is: L0H1 -> L1KV1.k"
    )


def test_keys_that_no_heads_share_are_named_by_their_head() -> None:
    """Or one edge would have two names, and two claims."""
    with pytest.raises(PromptError) as refusal:
        wires_of(small("gpt2")).mask([parse_edge("L0H1 -> L1KV3.k", 2)])

    assert str(refusal.value) == (
        "L0H1 -> L1KV3.k: each of this model's heads has keys and values of its own.\n"
        "  Name it as what it is: L0H1 -> L1H3.k"
    )


@pytest.mark.parametrize(
    ("architecture", "name", "why"),
    [
        ("gpt_neox", "L1H0 -> L1.mlp", "an MLP beside its heads does not read them"),
        ("gpt2", "L0H9 -> L1H0.q", "expected an edge of the model, found none"),
        ("gpt2", "L0H0 -> L1KV7.k", "it has 4 heads and 4 receivers of the kind k in that layer"),
        ("gpt2", "L0H0 -> L5H0.q", "it has no such heads and 0 receivers of the kind q in that layer"),
    ],
)
def test_an_edge_that_the_model_has_not_is_refused(architecture: str, name: str, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        wires_of(small(architecture)).mask([parse_edge(name, 9)])


def test_nothing_of_it_is_left_on_the_model() -> None:
    model = small("gpt2")
    before = runs_on(model).clean
    wired(runs_on(model), [some_edges(wires_of(model), 0)])

    assert np.array_equal(runs_on(model).clean, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())
    assert torch.is_grad_enabled()

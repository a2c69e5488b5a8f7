"""AtP is the slope of exact patching, integrated gradients end at it, and AtP* sees what AtP misses."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from derivatives import Derivatives
from pairs import random_pairs
from small_models import bound, random_module

from pytest_circuits.attribution.exact import noising
from pytest_circuits.attribution.gradients import differentiable
from pytest_circuits.attribution.graph import receivers_of, senders_of
from pytest_circuits.attribution.nodes import _attended_again, atp, atp_star, integrated
from pytest_circuits.attribution.twins import twins_of
from pytest_circuits.checkpoints.model import EMBED, Site
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import InstrumentError
from pytest_circuits.spec.components import Embedding, Head, Mlp
from pytest_circuits.spec.edges import Receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_circuits.attribution.nodes import Node
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

ARCHITECTURES = ["gpt2", "llama", "gemma2", "olmo2"]
PADDED = [[0, 1, 2]]
RAGGED = (7, 5, 7)


def small(architecture: str, *, layers: int = 2, heads: int = 4) -> BoundModel:
    return bound(random_module(architecture, layers=layers, heads=heads), architecture, layers=layers, heads=heads)


def runs_on(model: BoundModel, pairs: list[Encoded] | None = None, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, pairs or random_pairs(RAGGED), **settings)


def everything(model: BoundModel) -> list[Node]:
    return [*senders_of(model), *(one for one in receivers_of(model) if one.kind in ("q", "k", "v"))]


def slopes(oracle: Derivatives, runs: Runs, nodes: Sequence[Node]) -> np.ndarray:
    """Return the slope of exact patching, (nodes, prompts), each prompt run alone."""
    found = []
    for row in runs.encoded:
        changes = oracle.ablation(row, runs.encoded, runs.value)
        found.append([oracle.slope(row.clean, node, oracle.of_node(changes, node)) for node in nodes])
    return np.array(found).T


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_atp_is_the_slope_of_exact_patching(architecture: str, value: str) -> None:
    model = small(architecture)
    runs, nodes = runs_on(model, value=value, together=PADDED), everything(model)
    expected = slopes(Derivatives(model), runs, nodes)

    assert np.abs(atp(runs, nodes) - expected).max() < 1e-4
    assert (np.abs(expected).max(1) > 1e-3).all()


@pytest.mark.parametrize(
    "options", [{"kept": (0, 2)}, {"last": True}, {"prefix": 3}, {"prefix": 0}], ids=["kept", "last", "late", "early"]
)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_atp_leaves_kept_positions_alone_and_starts_where_something_changes(
    architecture: str, options: dict[str, Any]
) -> None:
    model, pairs = small(architecture), random_pairs(RAGGED, **options)
    oracle, nodes = Derivatives(model), everything(model)[::3]
    for value in ("resample", "zero", "mean"):
        runs = runs_on(model, pairs, value=value, together=PADDED)
        assert np.abs(atp(runs, nodes) - slopes(oracle, runs, nodes)).max() < 1e-4


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_atp_of_a_probability_is_its_slope(architecture: str) -> None:
    model = small(architecture)
    runs, nodes = runs_on(model, metric="prob_diff", together=PADDED), everything(model)
    expected = slopes(Derivatives(model, "prob_diff"), runs, nodes)

    assert np.abs(atp(runs, nodes) - expected).max() < 1e-5
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("method", [atp, integrated, atp_star])
@pytest.mark.parametrize("value", ["resample", "mean"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_how_prompts_are_run_changes_nothing(architecture: str, value: str, method: Any) -> None:
    model = small(architecture)
    nodes = everything(model)
    expected = method(runs_on(model, value=value, together=[[0], [1], [2]]), nodes)
    for options in ({"together": PADDED}, {}, {"batch_size": 2}, {"batch_size": 7}):
        found = method(runs_on(model, value=value, **options), nodes)
        assert found.shape == (len(nodes), 3)
        assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_nodes_can_be_asked_for_in_any_order_and_after_other_runs() -> None:
    model = small("llama")
    runs, nodes = runs_on(model, value="mean"), everything(model)
    _ = noising(runs, [Head(0, 0)])
    expected = atp(runs, nodes)

    assert np.array_equal(atp(runs, nodes[::-1]), expected[::-1])
    assert np.abs(atp(runs, [nodes[7]])[0] - expected[7]).max() < 1e-5
    assert np.abs(atp(runs_on(model, value="mean"), [nodes[7]])[0] - expected[7]).max() < 1e-5


@pytest.mark.parametrize("receiver", [Receiver(1, "mlp"), Receiver(2, "logits")])
def test_what_only_reads_is_no_node(receiver: Receiver) -> None:
    model = small("gpt2")
    with pytest.raises(ValueError, match=f"{receiver} only reads; a node is what a part puts out"):
        atp(runs_on(model), [receiver])


def test_queries_of_attention_that_is_not_called_by_name_are_refused() -> None:
    with pytest.raises(InstrumentError, match="queries can be reached only where attention is called by name"):
        atp(runs_on(small("gpt_neo")), [Receiver(0, "q")])


@pytest.mark.parametrize(
    ("value", "numbers"), [("resample", (1, 4, 16, 64)), ("mean", (1, 4, 16, 64)), ("zero", (16, 64, 256))]
)
def test_integrated_gradients_of_the_embedding_end_at_exact_patching(value: str, numbers: tuple[int, ...]) -> None:
    """Near an embedding of nothing a norm bends sharply: zero ablation takes more steps."""
    runs = runs_on(small("gpt2"), value=value)
    (exact,) = noising(runs, [Embedding()])
    misses = [np.abs(integrated(runs, [Embedding()], steps=steps)[0] - exact).max() for steps in numbers]

    assert misses == sorted(misses, reverse=True)
    assert misses[-1] < 0.01 * np.abs(exact).max()
    assert np.abs(atp(runs, [Embedding()])[0] - exact).max() > 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_integrated_gradients_are_the_mean_slope_on_the_way(architecture: str) -> None:
    model = small(architecture)
    runs, nodes, oracle = runs_on(model, together=PADDED), senders_of(model), Derivatives(model)
    at, weights = np.polynomial.legendre.leggauss(3)
    expected = np.zeros((len(nodes), 3))
    for index, row in enumerate(runs.encoded):
        changes = oracle.ablation(row, runs.encoded, "resample")
        places = [*changes]
        for point, weight in zip((at + 1) / 2, weights / 2, strict=True):
            away = (1 - point) * changes["embed", 0]
            gradients = oracle.gradients(row.clean, places, start=away)
            for number, node in enumerate(nodes):
                place, _ = oracle.place(node)
                expected[number, index] += weight * float((gradients[place] * oracle.of_node(changes, node)).sum())

    assert np.abs(integrated(runs, nodes, steps=3) - expected).max() < 1e-4


# -- AtP* --------------------------------------------------------------------------------------------------------------


def sizes(oracle: Derivatives, runs: Runs, nodes: Sequence[Node], *, layers: int) -> np.ndarray:
    """Return AtP* by its formula: a gradient for each layer that is left out, and attention run again for each node."""
    out = np.zeros((len(nodes), len(runs.encoded)))
    places = [("embed", 0), *((kind, layer) for layer in range(layers) for kind in ("z", "mlp", "v"))]
    for index, row in enumerate(runs.encoded):
        changes = oracle.ablation(row, runs.encoded, runs.value)
        dropped = [oracle.gradients(row.clean, places, dropped=layer) for layer in range(layers)]
        for number, node in enumerate(nodes):
            (place, _), change = oracle.place(node), oracle.of_node(changes, node)
            if place[0] in ("q", "k"):
                assert isinstance(node, Receiver)
                place, change = ("z", node.layer), oracle.attended(row.clean, node, change)
            others = [at for at in range(layers) if isinstance(node, Embedding) or at != node.layer]
            terms = [abs(float((dropped[at][place] * change).sum())) for at in others]
            out[number, index] = sum(terms) / len(terms)
    return out


@pytest.mark.parametrize(
    ("architecture", "value"), [*((name, "resample") for name in ARCHITECTURES), ("gpt2", "zero"), ("llama", "mean")]
)
def test_atp_star_is_its_formula(architecture: str, value: str) -> None:
    model = small(architecture, layers=3)
    runs, nodes = runs_on(model, value=value, together=PADDED), everything(model)
    expected = sizes(Derivatives(model), runs, nodes, layers=3)

    assert np.abs(atp_star(runs, nodes) - expected).max() < 1e-4
    assert (np.abs(expected).max(1) > 1e-3).all()


def test_of_one_layer_nothing_is_left_out() -> None:
    model = small("gpt2", layers=1)
    runs, nodes = runs_on(model, together=PADDED), [one for one in everything(model) if str(one)[-1] not in "qk"]

    assert np.abs(atp_star(runs, nodes) - np.abs(atp(runs, nodes))).max() < 1e-5


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["q", "k"])
def test_attention_that_is_run_again_is_what_replacing_each_node_alone_gives(architecture: str, kind: Any) -> None:
    model = small(architecture, layers=3)
    runs, oracle = runs_on(model, together=PADDED), Derivatives(model)
    sites = [EMBED, *(Site(name, layer) for layer in range(3) for name in ("z", kind))]
    (twins,) = twins_of(runs, tuple(site for site in sites if site.kind == kind))
    graph = differentiable(twins, [*sites, Site("residual", 1), Site("residual", 2)])
    found = _attended_again(twins, graph)

    assert set(found) == set(twins.sites)
    for index, row in enumerate(runs.encoded):
        changes = oracle.ablation(row, runs.encoded, "resample")
        for node in (one for one in receivers_of(model) if one.kind == kind):
            expected = oracle.attended(row.clean, node, oracle.of_node(changes, node))[twins.first :]
            own = found[Site(kind, node.layer)][index, : len(expected), node.unit]
            reading = model.heads // model.groups if kind == "k" else 1
            of_heads = expected[:, node.unit * reading : (node.unit + 1) * reading].flatten(1)
            assert (own - of_heads).abs().max() < 1e-5
            assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["q", "k"])
def test_saturated_attention_is_missed_by_atp_and_seen_by_atp_star(kind: Any) -> None:
    """Where all attention lies on one token, a small step of a query moves nothing, and a whole patch all of it."""
    model, node = small("gpt2"), Receiver(1, kind, 1)
    attention, (width, head) = model.blocks[1].attn, (32, slice(8, 16))
    attention.c_attn.weight.data[:, head] *= 100  # its queries
    attention.c_attn.bias.data[head] *= 100
    attention.c_proj.weight.data[head] *= 0.01  # what follows it is as good as linear
    assert attention.c_attn.weight.shape[1] == 3 * width
    runs, oracle = runs_on(model), Derivatives(model)
    exact = []
    for row in runs.encoded:
        change = oracle.of_node(oracle.ablation(row, runs.encoded, "resample"), node)
        exact.append(oracle.patched(row.clean, node, change, 0) - oracle.patched(row.clean, node, change))
    largest = int(np.abs(exact).argmax())
    missed, seen = (method(runs, [node])[0, largest] for method in (atp, atp_star))

    assert abs(missed) < 0.01 * abs(exact[largest])
    assert abs(seen - abs(exact[largest])) < 0.05 * abs(exact[largest])


def cancelled(model: BoundModel, pairs: list[Encoded], node: Node) -> None:
    """Scale what the last MLP adds until the slopes of the two ways by which a node acts cancel on the first prompt."""
    weight = model.blocks[-1].mlp.c_proj.weight
    own = weight.data.clone()

    def slope(scale: float) -> float:
        weight.data = scale * own
        return float(atp(runs_on(model, pairs), [node])[0, 0])

    ends = [(slope(scale), scale) for scale in np.linspace(-6, 6, 13)]
    (before, low), (_, high) = next((one, other) for one, other in pairwise(ends) if one[0] * other[0] < 0)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) * before > 0 else (low, middle)


@pytest.mark.parametrize("node", [Head(0, 0), Embedding(), Mlp(0)])
def test_ways_that_cancel_are_missed_by_atp_and_seen_by_atp_star(node: Node) -> None:
    model, pairs = small("gpt2", layers=3), random_pairs((7,))
    cancelled(model, pairs, node)
    runs = runs_on(model, pairs)
    ((exact,),) = noising(runs, [node])  # type: ignore[list-item]
    missed, seen = (float(method(runs, [node])[0, 0]) for method in (atp, atp_star))

    assert abs(missed) < 1e-4
    assert seen > 0.05
    assert abs(exact) > 0.05


def test_who_watches_is_told_and_a_batch_is_halved_where_memory_is_out() -> None:
    model = small("gpt2")

    def full(_: Any, args: Any) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    told: list[tuple[str, int, int]] = []
    nodes = everything(model)
    runs, expected = runs_on(model, watch=lambda *it: told.append(it)), atp(runs_on(model), nodes)
    atp_star(runs, nodes)
    integrated(runs, nodes, steps=2)
    with model.blocks[1].register_forward_pre_hook(full):
        found = atp(runs, nodes)

    assert told[:2] == [("gradients", done, 3) for done in (1, 3)]
    assert {what for what, _, _ in told} == {"gradients"}
    assert runs.notices == ("memory was out on 'random': 1 prompts run in a forward at most",)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_half_precision_stays_near_float32(architecture: str, dtype: torch.dtype) -> None:
    model = small(architecture)
    nodes = senders_of(model)
    whole = atp(runs_on(model), nodes)
    model.module.to(dtype)

    assert np.abs(atp(runs_on(model), nodes) - whole).max() < 32 * torch.finfo(dtype).eps * np.abs(whole).max()

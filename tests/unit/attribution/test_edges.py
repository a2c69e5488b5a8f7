"""EAP is the derivative by what one part adds to the input of one other, edge by edge, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from derivatives import READINGS, Derivatives
from pairs import random_pairs
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.attribution import edges, layouts, readers
from pytest_circuits.attribution.edges import eap, eap_ig
from pytest_circuits.attribution.exact import noising
from pytest_circuits.attribution.graph import is_parallel, receivers_of, senders_of
from pytest_circuits.attribution.nodes import atp, integrated
from pytest_circuits.attribution.readers import Readers
from pytest_circuits.checkpoints import ov
from pytest_circuits.engine.patches import Ablated
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import InstrumentError, MeasurementError, PromptError
from pytest_circuits.spec.components import Embedding, Head, Mlp
from pytest_circuits.spec.edges import Receiver

if TYPE_CHECKING:
    from pytest_circuits.attribution.edges import Edges
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded
    from pytest_circuits.spec.edges import Sender

PADDED = [[0, 1, 2]]
RAGGED = (7, 5, 7)
WITHOUT = {"deepseek_v3": "pass a bottleneck", "falcon-grouped": "repeated before attention uses them"}
WITH_EDGES = [name for name in VARIANT_NAMES if name not in WITHOUT]


def small(architecture: str, *, layers: int = 2, heads: int = 4) -> BoundModel:
    return bound(random_module(architecture, layers=layers, heads=heads), architecture, layers=layers, heads=heads)


def runs_on(model: BoundModel, pairs: list[Encoded] | None = None, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, pairs or random_pairs(RAGGED), **settings)


def largest_miss(found: Edges, runs: Runs, *, points: Any = None, moved: tuple[str, int] = ("embed", 0)) -> float:
    """Return how far edges are from the naive ones, all senders with each receiver on each prompt by itself."""
    oracle, expected = Derivatives(runs.model, runs.metric), np.full(found.effects.shape, np.nan)
    for index, row in enumerate(runs.encoded):
        changes = oracle.ablation(row, runs.encoded, runs.value)
        for number, receiver in enumerate(found.receivers):
            for point, weight in points or [(1.0, 1.0)]:
                derivatives = oracle.edges(row.clean, receiver, changes, moved, 1 - point)
                for sender, one in derivatives.items():
                    at = found.senders.index(sender), number, index
                    expected[at] = np.nan_to_num(expected[at]) + weight * one
    of_moved = [moved in (("embed", 0), oracle.place(sender)[0]) for sender in found.senders]
    assert np.array_equal(np.isnan(found.effects), np.isnan(expected))
    assert (np.nanmax(np.abs(expected), axis=(1, 2)) > 1e-3).all()
    return float(np.nanmax(np.abs(found.effects - expected)[of_moved]))


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
@pytest.mark.parametrize("architecture", READINGS)
def test_every_edge_is_the_naive_derivative(architecture: str, value: str) -> None:
    runs = runs_on(small(architecture), value=value, together=PADDED)

    assert largest_miss(eap(runs), runs) < 1e-4


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_every_edge_of_a_probability_is_the_naive_derivative(architecture: str) -> None:
    pairs = random_pairs(RAGGED, kept=(0, 2))
    runs = runs_on(small(architecture, layers=3), pairs, metric="prob_diff")

    assert largest_miss(eap(runs), runs) < 1e-5


@pytest.mark.parametrize("options", [{"last": True}, {"kept": (1,)}, {"prefix": 3}], ids=["last", "kept", "late"])
def test_every_edge_leaves_kept_positions_alone(options: dict[str, Any]) -> None:
    runs = runs_on(small("llama"), random_pairs(RAGGED, **options), value="mean", together=PADDED)

    assert largest_miss(eap(runs), runs) < 1e-4


def legendre(steps: int) -> list[tuple[float, float]]:
    at, weights = np.polynomial.legendre.leggauss(steps)
    return list(zip((at + 1) / 2, weights / 2, strict=True))


@pytest.mark.parametrize("architecture", READINGS)
def test_along_inputs_every_edge_is_the_mean_of_naive_derivatives(architecture: str) -> None:
    runs = runs_on(small(architecture), together=PADDED)

    assert largest_miss(eap_ig(runs, steps=2), runs, points=legendre(2)) < 1e-4


@pytest.mark.parametrize("moved", [("z", 0), ("mlp", 0), ("z", 1)])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_along_activations_every_edge_is_the_mean_on_its_senders_way(architecture: str, moved: tuple[str, int]) -> None:
    runs = runs_on(small(architecture), random_pairs(RAGGED[:2]), together=[[0, 1]])
    found = eap_ig(runs, steps=2, along="activations")

    assert np.array_equal(found.effects[0], eap_ig(runs, steps=2).effects[0], equal_nan=True)  # the embedding's way
    assert largest_miss(found, runs, points=legendre(2), moved=moved) < 1e-4


def edges_by_stage(model: BoundModel) -> list[tuple[Sender, Receiver]]:
    """Return every edge, in the receivers' order: a layer's heads write at stage 2i and its MLP at 2i + 1.

    What reads sees all stages before its own; beside the heads, an MLP reads what they read.
    """
    written = {Embedding(): -1, **{Mlp(layer): 2 * layer + 1 for layer in range(model.layers)}}
    for layer in range(model.layers):
        written |= {Head(layer, head): 2 * layer for head in range(model.heads)}
    late = 0 if is_parallel(model) else 1
    return [
        (sender, receiver)
        for receiver in receivers_of(model)
        for sender in senders_of(model)
        if written[sender] < 2 * receiver.layer + late * (receiver.kind == "mlp")
    ]


# -- sums --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", WITH_EDGES)
def test_the_edges_of_a_sender_add_up_to_its_own_effect(architecture: str) -> None:
    model = small(architecture)
    runs = runs_on(model, together=PADDED)
    found, senders = eap(runs), senders_of(model)
    own = atp(runs, senders)

    assert found.senders == senders
    assert found.receivers == receivers_of(model)
    assert np.abs(np.nansum(found.effects, axis=1) - own).max() < 1e-5 * max(1, np.abs(own).max())
    assert list(found) == edges_by_stage(model)
    assert len(found) == len(list(found))
    assert all(np.isfinite(found.of(*edge)).all() for edge in found)
    assert (np.abs(own) > 0).all()


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_along_inputs_the_edges_add_up_to_integrated_gradients(architecture: str) -> None:
    model = small(architecture)
    for value in ("resample", "zero", "mean"):
        runs = runs_on(model, value=value)
        own = integrated(runs, senders_of(model), steps=3)

        assert np.abs(np.nansum(eap_ig(runs, steps=3).effects, axis=1) - own).max() < 1e-4


def test_along_inputs_the_embeddings_edges_end_at_exact_patching() -> None:
    runs = runs_on(small("gpt2"))
    (exact,) = noising(runs, [Embedding()])
    misses = [np.abs(np.nansum(eap_ig(runs, steps=steps).effects[0], axis=0) - exact).max() for steps in (2, 8, 32)]

    assert misses == sorted(misses, reverse=True)
    assert misses[-1] < 0.01 * np.abs(exact).max()
    assert misses[0] > 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_along_activations_the_edges_of_a_layer_end_at_exact_patching(architecture: str) -> None:
    model = small(architecture)
    runs = runs_on(model, random_pairs(RAGGED[:2]))
    parts = [
        Ablated(frozenset(what))
        for layer in range(2)
        for what in ([Head(layer, head) for head in range(4)], [Mlp(layer)])
    ]
    exact = noising(runs, parts)
    misses = []
    for steps in (1, 6, 32):
        own = np.nansum(eap_ig(runs, steps=steps, along="activations").effects, axis=1)[1:]
        by_layer = own.reshape(2, 5, -1)
        found = np.concatenate([np.stack([one[:4].sum(0), one[4]]) for one in by_layer])
        misses.append(np.abs(found - exact).max())

    assert misses[-1] < 0.01 * np.abs(exact).max()
    assert misses[-1] < misses[1] < misses[0]


def test_along_the_way_a_divergence_has_edges_and_at_the_clean_run_it_has_none() -> None:
    runs = runs_on(small("gpt2"), metric="kl")

    assert np.nanmax(np.abs(eap_ig(runs, steps=2).effects)) > 1e-3
    with pytest.raises(MeasurementError, match=r"(?s)kl is the distance from that very run.*take eap-ig"):
        eap(runs)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_how_prompts_are_run_changes_nothing(architecture: str) -> None:
    model = small(architecture)
    for method in (
        eap,
        lambda runs: eap_ig(runs, steps=2),
        lambda runs: eap_ig(runs, steps=2, along="activations"),
    ):
        expected = method(runs_on(model, together=[[0], [1], [2]])).effects
        for options in ({"together": PADDED}, {"batch_size": 1}, {"batch_size": 5}):
            found = method(runs_on(model, **options)).effects
            assert np.nanmax(np.abs(found - expected)) < 1e-5 * max(1, np.nanmax(np.abs(expected)))
            assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize(
    ("architecture", "dtype"), [("gpt2", torch.float16), ("llama", torch.bfloat16), ("gemma2", torch.bfloat16)]
)
def test_half_precision_stays_near_float32(architecture: str, dtype: torch.dtype) -> None:
    model = small(architecture)
    whole = eap(runs_on(model)).effects
    model.module.to(dtype)
    half = eap(runs_on(model)).effects

    assert np.nanmax(np.abs(half - whole)) < 32 * torch.finfo(dtype).eps * np.nanmax(np.abs(whole))


def test_who_watches_is_told_and_a_batch_is_halved_where_memory_is_out() -> None:
    model = small("gpt2")

    def full(_: Any, args: Any) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    told: list[tuple[str, int, int]] = []
    pairs, watch = random_pairs((7, 5, 7, 7)), lambda *it: told.append(it)
    expected, runs = eap(runs_on(model, pairs)), runs_on(model, pairs, watch=watch, batch_size=4)
    with model.blocks[1].register_forward_pre_hook(full):
        found = eap(runs)

    assert told == [("edges", 1, 4), ("edges", 1, 4), ("edges", 3, 4), ("edges", 4, 4)]
    assert runs.notices == ("memory was out on 'random': 2 prompts run in a forward at most",)
    assert np.nanmax(np.abs(found.effects - expected.effects)) < 1e-4


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", WITHOUT)
def test_heads_without_weights_of_their_own_have_no_edges(architecture: str) -> None:
    runs = runs_on(small(architecture))

    assert atp(runs, [Head(0, 0)]).any()
    with pytest.raises(PromptError, match=f"(?s){WITHOUT[architecture]}.*Its heads and MLPs can be attributed"):
        eap(runs)


MISSING = [Receiver(0, "q"), Receiver(1, "v", 2), Receiver(1, "mlp"), Receiver(2, "logits")]


@pytest.mark.parametrize("missing", MISSING, ids=str)
def test_a_reader_that_is_left_out_is_an_error(missing: Receiver) -> None:
    model = small("gpt2")
    number = [one for one in receivers_of(model) if one.layer == missing.layer].index(missing)
    plain = Readers.pulled_back

    def without(self: Readers, layer: int, gradients: Any) -> torch.Tensor:
        found = plain(self, layer, gradients)
        if layer == missing.layer:
            found[number] = 0
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Readers, "pulled_back", without)
        with pytest.raises(InstrumentError, match=r"edges of a part should add up .* they miss it by .*allowed"):
            eap(runs_on(model))


def test_readers_that_see_nothing_are_an_error() -> None:
    model = small("gpt2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Readers, "_note", lambda *_: None)
        with pytest.raises(InstrumentError, match=r"5 tensors through which .* should have passed, found 4"):
            eap(runs_on(model))


def test_a_norm_that_is_not_seen_is_an_error() -> None:
    model = small("gpt2")
    blind = replace(model, architecture=replace(model.architecture, attention_norm=""))

    with pytest.raises(InstrumentError, match="edges of a part should add up"):
        eap(runs_on(blind))


def test_heads_behind_a_norm_that_is_not_named_are_an_error() -> None:
    model = small("gemma2")
    blind = replace(model, architecture=replace(model.architecture, attention_adds=""))

    with pytest.raises(InstrumentError, match="edges of a part should add up"):
        eap(runs_on(blind))


@pytest.mark.parametrize(("architecture", "wrong"), [("gpt2", True), ("gpt_neox", False)])
def test_an_mlp_that_is_taken_to_stand_elsewhere_is_an_error(architecture: str, wrong: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges, "is_parallel", lambda model: wrong)
        with pytest.raises(InstrumentError, match="edges of a part should add up"):
            eap(runs_on(small(architecture)))


@pytest.mark.parametrize(
    ("architecture", "layout"),
    [
        ("gpt2", "interleaved"),
        ("gpt2", "codegen"),
        ("gpt_neox", "packed"),
        ("gpt_neox", "codegen"),
        ("codegen", "interleaved"),
        ("phi3", "interleaved"),
    ],
)
def test_a_layout_that_is_not_the_models_is_an_error(architecture: str, layout: Any) -> None:
    """Their edges add up all the same: all features are there, each under another head's name."""
    model = small(architecture)
    wrong = replace(model, architecture=replace(model.architecture, value_layout=layout))

    with pytest.raises(InstrumentError, match=f"layer 0: a head's . should be where .* laid out as '{layout}'"):
        eap(runs_on(wrong))


EVERY = ["qkv -> qvk", "qkv -> kqv", "qkv -> vkq", "qkv -> kvq", "qkv -> vqk"]


@pytest.mark.parametrize(
    ("architecture", "exchanged"),
    [
        *((name, one) for name in ("gpt2", "gpt_neox") for one in EVERY),
        *((name, EVERY[0]) for name in ("llama", "qwen3", "gpt_oss")),
    ],
)
def test_keys_that_are_taken_for_values_are_an_error(architecture: str, exchanged: str) -> None:
    model = small(architecture, layers=1)
    other = dict(zip(*exchanged.split(" -> "), strict=True))
    plain, makes = ov.split, ov.maker
    with pytest.MonkeyPatch.context() as patch:
        for module in (ov, readers, layouts):
            patch.setattr(module, "split", lambda f, layout, kind, **it: plain(f, layout, other[kind], **it))
            patch.setattr(module, "maker", lambda model, layer, kind: makes(model, layer, other[kind]))
        if model.architecture.value_layout != "own":
            patch.setattr(ov, "maker", makes)
        with pytest.raises(InstrumentError, match=r"layer 0: a head's . should be where .* another token"):
            eap(runs_on(model))


@pytest.mark.parametrize("kind", ["q", "k", "v"])
@pytest.mark.parametrize("architecture", ["gpt2", "olmo2"])
def test_heads_in_another_order_are_an_error(architecture: str, kind: str) -> None:
    model, plain = small(architecture), ov.split
    with pytest.MonkeyPatch.context() as patch:
        for module in (ov, readers, layouts):
            patch.setattr(
                module,
                "split",
                lambda f, layout, one, **it: (
                    plain(f, layout, one, **it).flip(-2) if one == kind else plain(f, layout, one, **it)
                ),
            )
        with pytest.raises(InstrumentError, match=f"layer 0: a head's {kind} should be where"):
            eap(runs_on(model))


def test_a_head_whose_keys_are_nothing_moves_nothing_and_is_no_error() -> None:
    model = small("gpt2")
    for block in model.blocks:
        block.attn.c_attn.weight.data[:, 32:64] = 0
        block.attn.c_attn.bias.data[32:64] = 0

    found = eap(runs_on(model))
    assert not found.of(Embedding(), Receiver(1, "q", 0)).any()
    assert found.of(Embedding(), Receiver(1, "v", 0)).any()


def test_nothing_is_left_in_the_model() -> None:
    model = small("gpt2")
    before = runs_on(model).clean
    eap(runs_on(model))

    assert sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.module.modules()) == 0
    assert np.array_equal(runs_on(model).clean, before)

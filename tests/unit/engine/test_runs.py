"""The runs equal a naive loop: one prompt at a time, one plain hook, no batches."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.errors import MeasurementError
from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.components import Component, Head, Mlp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_circuits.checkpoints.model import BoundModel

TEMPLATES = ("a", "a", "b", "b", "b", "a")
LENGTHS = (7, 7, 5, 5, 9, 7)


def encoded_pairs(*, kept: tuple[int, ...] = ()) -> list[Encoded]:
    """Return random pairs of three lengths that differ at 1, 2 and the last; positions in `kept` are not replaced."""
    rng = np.random.default_rng(0)
    rows = []
    for template, length in zip(TEMPLATES, LENGTHS, strict=True):
        clean = rng.integers(0, 101, length)
        corrupt = clean.copy()
        corrupt[[1, 2, -1]] = (clean[[1, 2, -1]] + rng.integers(1, 100, 3)) % 101
        pair = Pair("c", "x", "a", "f", template, {}, "slot", {})
        source = tuple(-1 if i in kept else i for i in range(length))
        clean_ids, corrupt_ids = tuple(map(int, clean)), tuple(map(int, corrupt))
        rows.append(Encoded(pair, clean_ids, corrupt_ids, 3, 70, {"slot": (1, 2)}, (1, 2), source, 0))
    return rows


def runs_on(model: BoundModel, encoded: list[Encoded], *, value: str = "resample", metric: str = "logit_diff") -> Runs:
    return Runs(model, encoded, [[0, 1], [5], [2, 3], [4]], value=value, metric=metric)  # type: ignore[arg-type]


class Naive:
    """The oracle: forwards of single prompts with hooks of its own, written against transformers' module names."""

    def __init__(self, model: BoundModel) -> None:
        gpt2 = model.architecture.model_type == "gpt2"
        self.module: Any = model.module
        self.blocks = self.module.transformer.h if gpt2 else self.module.model.layers
        self.projections = [b.attn.c_proj if gpt2 else b.self_attn.o_proj for b in self.blocks]
        self.heads = model.heads

    def values(self, ids: tuple[int, ...]) -> dict[Any, torch.Tensor]:
        kept: dict[Any, torch.Tensor] = {}
        with ExitStack() as stack, torch.no_grad():
            for layer, block in enumerate(self.blocks):
                stack.enter_context(
                    self.projections[layer].register_forward_pre_hook(
                        lambda _, a, layer=layer: kept.__setitem__(("z", layer), a[0][0].clone())
                    )
                )
                stack.enter_context(
                    block.mlp.register_forward_hook(
                        lambda _, a, o, layer=layer: kept.__setitem__(("mlp", layer), o[0].clone())
                    )
                )
            self.module(torch.tensor([ids]))
        return kept

    def logits(self, ids: tuple[int, ...], parts: Any = (), values: Any = None, where: Any = ()) -> torch.Tensor:
        def z_hook(layer: int, heads: list[int]) -> Any:
            def hook(_: Any, args: Any) -> Any:
                z = args[0].clone()
                width = z.shape[-1] // self.heads
                for position, head in itertools.product(where, heads):
                    piece = slice(head * width, (head + 1) * width)
                    z[0, position, piece] = values["z", layer][position, piece]
                return (z, *args[1:])

            return hook

        def mlp_hook(layer: int) -> Any:
            def hook(_: Any, args: Any, output: Any) -> Any:
                out = output.clone()
                out[0, where] = values["mlp", layer][where]
                return out

            return hook

        with ExitStack() as stack, torch.no_grad():
            for layer, block in enumerate(self.blocks):
                heads = [p.head for p in parts if isinstance(p, Head) and p.layer == layer]
                stack.enter_context(self.projections[layer].register_forward_pre_hook(z_hook(layer, heads)))
                if Mlp(layer) in parts:
                    stack.enter_context(block.mlp.register_forward_hook(mlp_hook(layer)))
            logits: torch.Tensor = self.module(torch.tensor([ids])).logits[0, -1]
            return logits

    def ablated(self, row: Encoded, rows: list[Encoded], parts: frozenset[Component], value: str) -> torch.Tensor:
        where = [i for i, source in enumerate(row.source) if source >= 0]
        return self.logits(row.clean, parts, self.ablation(row, rows, value), where)

    def ablation(self, row: Encoded, rows: list[Encoded], value: str) -> dict[Any, torch.Tensor]:
        assert row.corrupt is not None
        corrupt = self.values(row.corrupt)
        if value == "resample":
            return corrupt
        if value == "zero":
            return {key: torch.zeros_like(found) for key, found in corrupt.items()}
        same = [other for other in rows if other.pair.template == row.pair.template]
        seen = [self.values(ids) for other in same for ids in (other.clean, other.corrupt) if ids]
        length = len(row.clean)
        return {
            key: torch.stack(
                [
                    torch.stack([v[key][len(v[key]) - back] for v in seen if len(v[key]) >= back]).mean(0)
                    for back in range(length, 0, -1)
                ]
            )
            for key in corrupt
        }


def some_parts(model: BoundModel) -> Iterator[frozenset[Component]]:
    every = [Head(i, j) for i in range(model.layers) for j in range(model.heads)]
    yield frozenset({Head(1, 2)})
    yield frozenset({Mlp(0)})
    yield frozenset({Head(0, 0), Head(0, 3), Head(2, 1), Mlp(1)})
    yield frozenset({*every, *(Mlp(i) for i in range(model.layers))})


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
def test_ablated_runs_equal_the_naive_loop(model: BoundModel, value: str) -> None:
    encoded = encoded_pairs(kept=(0,))
    naive, runs = Naive(model), runs_on(model, encoded, value=value)

    for parts in some_parts(model):
        found = runs.ablated(Ablated(parts))
        expected = [float(v[3] - v[70]) for v in (naive.ablated(row, encoded, parts, value) for row in encoded)]
        assert np.abs(found - expected).max() < 1e-5
        assert np.abs(found - runs.clean).max() > 1e-3  # the parts matter, so equality says something


def test_plain_runs_equal_single_forwards(model: BoundModel) -> None:
    encoded = encoded_pairs()
    naive, runs = Naive(model), runs_on(model, encoded)

    for ids, found in (("clean", runs.clean), ("corrupt", runs.corrupt)):
        logits = [naive.logits(getattr(row, ids)) for row in encoded]
        assert np.abs(found - [float(v[3] - v[70]) for v in logits]).max() < 1e-5


def test_metrics_equal_their_definitions(model: BoundModel) -> None:
    encoded, parts = encoded_pairs(), frozenset({Head(1, 2), Mlp(0)})
    naive = Naive(model)
    clean = [naive.logits(row.clean).log_softmax(-1) for row in encoded]
    patched = [naive.ablated(row, encoded, parts, "resample").log_softmax(-1) for row in encoded]

    prob = runs_on(model, encoded, metric="prob_diff").ablated(Ablated(parts))
    kl = runs_on(model, encoded, metric="kl").ablated(Ablated(parts))

    assert np.abs(prob - [float(p[3].exp() - p[70].exp()) for p in patched]).max() < 1e-6
    expected = [-float((c.exp() * (c - p)).sum()) for c, p in zip(clean, patched, strict=True)]
    assert np.abs(kl - expected).max() < 1e-5
    assert np.abs(runs_on(model, encoded, metric="kl").clean).max() == 0.0


def test_padding_and_another_batch_size_change_nothing_beyond_rounding(model: BoundModel) -> None:
    encoded = encoded_pairs()
    parts = frozenset({Head(0, 1), Head(2, 3), Mlp(1)})
    groupings = ([[0, 1, 2, 3, 4, 5]], [[0], [1], [2], [3], [4], [5]], [[4, 0], [2, 5, 1], [3]])

    for value in ("resample", "mean", "zero"):
        reference = runs_on(model, encoded, value=value).ablated(Ablated(parts))
        for groups in groupings:
            runs = Runs(model, encoded, groups, value=value, metric="logit_diff")  # type: ignore[arg-type]
            assert np.abs(runs.ablated(Ablated(parts)) - reference).max() < 1e-5


def test_replacing_everything_and_the_embedding_gives_the_corrupt_run(model: BoundModel) -> None:
    runs = runs_on(model, encoded_pairs())
    *_, everything = some_parts(model)

    assert np.abs(runs.ablated(Ablated(everything, embedding=True)) - runs.corrupt).max() < 1e-5
    assert np.abs(runs.ablated(Ablated(everything)) - runs.corrupt).max() > 1e-3  # the embedding stays clean


def test_a_pair_of_unequal_lengths_takes_the_positions_that_its_map_names(model: BoundModel) -> None:
    pair = Pair("c", "x", "a", "f", "t", {}, "slot", {})
    clean, corrupt = (5, 6, 7, 8), (5, 60, 61, 7, 8)
    row = Encoded(pair, clean, corrupt, 3, 70, {"slot": (1,)}, (1,), (0, -1, 3, 4), 1)
    naive = Naive(model)
    values = {key: value[[0, 0, 3, 4]] for key, value in naive.values(corrupt).items()}

    found = Runs(model, [row], [[0]], value="resample", metric="logit_diff").ablated(Ablated(frozenset({Head(1, 1)})))
    expected = naive.logits(clean, frozenset({Head(1, 1)}), values, [0, 2, 3])

    assert abs(found[0] - float(expected[3] - expected[70])) < 1e-5


def test_attention_of_the_answer_position_equals_eager_attention(model: BoundModel) -> None:
    encoded = encoded_pairs()
    found = runs_on(model, encoded).attention([Head(0, 1), Head(2, 3)], lambda row: row.spans["slot"])

    model.module.set_attn_implementation("eager")
    for index, row in enumerate(encoded):
        with torch.no_grad():
            patterns = model.module(torch.tensor([row.clean]), output_attentions=True).attentions
        for head, values in found.items():
            expected = patterns[head.layer][0, head.head, -1, [1, 2]].sum()
            assert abs(values[index] - float(expected)) < 1e-5


def test_reading_attention_leaves_the_model_as_it_was(model: BoundModel) -> None:
    runs = runs_on(model, encoded_pairs())
    before = runs.clean.copy()
    runs.attention([Head(0, 1)], lambda row: row.spans["slot"])

    assert model.module.config._attn_implementation == "sdpa"
    assert np.array_equal(before, runs_on(model, encoded_pairs()).clean)


def test_logits_that_are_not_finite_are_an_error_that_names_a_prompt(model: BoundModel) -> None:
    model.module.get_output_embeddings().weight.data[50] = float("nan")

    with pytest.raises(MeasurementError, match="logits that are not finite"):
        _ = runs_on(model, encoded_pairs()).clean


def test_prompts_without_a_twin_have_no_corrupt_run(model: BoundModel) -> None:
    pair = Pair("c", None, "a", "f", "t", {}, None, {})  # type: ignore[arg-type]
    row = Encoded(pair, (5, 6, 7), None, 3, 70, {}, (), (0, 1, 2), 0)
    runs = Runs(model, [row], [[0]], value="zero", metric="logit_diff")

    assert np.isfinite(runs.ablated(Ablated(frozenset({Head(0, 0)})))).all()
    with pytest.raises(MeasurementError, match="no corrupt twin"):
        _ = runs.corrupt


def test_two_runs_are_identical_bit_for_bit(model: BoundModel) -> None:
    parts = Ablated(frozenset({Head(0, 1), Mlp(2)}))
    first, second = runs_on(model, encoded_pairs()), runs_on(model, encoded_pairs())

    assert np.array_equal(first.ablated(parts), second.ablated(parts))


def test_noise_is_small_in_float32_and_not_zero_in_half_precision(model: BoundModel) -> None:
    assert runs_on(model, encoded_pairs()).noise() < 1e-4
    namespace = SimpleNamespace(dtype=torch.bfloat16)
    model.module.to(namespace.dtype)

    assert 0 <= runs_on(model, encoded_pairs()).noise() < 1

"""The runs equal a naive loop: one prompt at a time, one plain hook, no batches."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from naive import Naive
from pairs import ANSWER, FOIL, random_pairs

from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.errors import MeasurementError
from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.components import Component, Head, KeyValue, Mlp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_circuits.checkpoints.model import BoundModel


def runs_on(model: BoundModel, encoded: list[Encoded], *, value: str = "resample", metric: str = "logit_diff") -> Runs:
    return Runs(model, encoded, value=value, metric=metric)  # type: ignore[arg-type]


def some_parts(model: BoundModel) -> Iterator[frozenset[Component]]:
    every = [Head(i, j) for i in range(model.layers) for j in range(model.heads)]
    yield frozenset({Head(1, 2)})
    yield frozenset({Mlp(0)})
    yield frozenset({Head(0, 0), Head(0, 3), Head(2, 1), Mlp(1)})
    yield frozenset({*every, *(Mlp(i) for i in range(model.layers))})


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
def test_ablated_runs_equal_the_naive_loop(model: BoundModel, value: str) -> None:
    encoded = random_pairs(kept=(0,))
    naive, runs = Naive(model), runs_on(model, encoded, value=value)

    for parts in some_parts(model):
        found = runs.ablated(Ablated(parts))
        expected = [float(v[3] - v[70]) for v in (naive.ablated(row, encoded, parts, value) for row in encoded)]
        assert np.abs(found - expected).max() < 1e-5
        assert np.abs(found - runs.clean).max() > 1e-3  # the parts matter, so equality says something


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
def test_the_first_token_is_replaced_as_any_other(model: BoundModel, value: str) -> None:
    encoded, parts = random_pairs(prefix=0), frozenset({Head(0, 1), Mlp(0)})
    found = runs_on(model, encoded, value=value).ablated(Ablated(parts))
    expected = [Naive(model).ablated(row, encoded, parts, value) for row in encoded]

    assert np.abs(found - [float(one[ANSWER] - one[FOIL]) for one in expected]).max() < 1e-5


def test_keys_and_values_can_be_asked_for_after_heads(model: BoundModel) -> None:
    parts = Ablated(frozenset({KeyValue(1, 0)}))
    runs = runs_on(model, random_pairs())
    runs.ablated(Ablated(frozenset({Head(1, 2)})))

    assert np.abs(runs.ablated(parts) - runs_on(model, random_pairs()).ablated(parts)).max() < 1e-5


def test_plain_runs_equal_single_forwards(model: BoundModel) -> None:
    encoded = random_pairs()
    naive, runs = Naive(model), runs_on(model, encoded)

    for ids, found in (("clean", runs.clean), ("corrupt", runs.corrupt)):
        logits = [naive.logits(getattr(row, ids)) for row in encoded]
        assert np.abs(found - [float(v[3] - v[70]) for v in logits]).max() < 1e-5


def test_metrics_equal_their_definitions(model: BoundModel) -> None:
    encoded, parts = random_pairs(), frozenset({Head(1, 2), Mlp(0)})
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
    encoded = random_pairs()
    parts = frozenset({Head(0, 1), Head(2, 3), Mlp(1)})
    groupings = ([[0, 1, 2, 3, 4, 5]], [[0], [1], [2], [3], [4], [5]], [[4, 0], [2, 5, 1], [3]])

    for value in ("resample", "mean", "zero"):
        reference = runs_on(model, encoded, value=value).ablated(Ablated(parts))
        for groups in groupings:
            runs = Runs(model, encoded, together=groups, value=value, metric="logit_diff")  # type: ignore[arg-type]
            assert np.abs(runs.ablated(Ablated(parts)) - reference).max() < 1e-5


def test_replacing_everything_and_the_embedding_gives_the_corrupt_run(model: BoundModel) -> None:
    runs = runs_on(model, random_pairs())
    *_, everything = some_parts(model)

    assert np.abs(runs.ablated(Ablated(everything, embedding=True)) - runs.corrupt).max() < 1e-5
    assert np.abs(runs.ablated(Ablated(everything)) - runs.corrupt).max() > 1e-3  # the embedding stays clean


def test_a_pair_of_unequal_lengths_takes_the_positions_that_its_map_names(model: BoundModel) -> None:
    pair = Pair("c", "x", "a", "f", "t", {}, "slot", {})
    clean, corrupt = (5, 6, 7, 8), (5, 60, 61, 7, 8)
    row = Encoded(pair, clean, corrupt, 3, 70, {"slot": (1,)}, (1,), (0, -1, 3, 4), 1)
    naive = Naive(model)
    values = {key: value[[0, 0, 3, 4]] for key, value in naive.values(corrupt).items()}

    found = Runs(model, [row], value="resample", metric="logit_diff").ablated(Ablated(frozenset({Head(1, 1)})))
    expected = naive.logits(clean, frozenset({Head(1, 1)}), values, [0, 2, 3])

    assert abs(found[0] - float(expected[3] - expected[70])) < 1e-5


def test_attention_of_the_answer_position_equals_eager_attention(model: BoundModel) -> None:
    encoded = random_pairs()
    found = runs_on(model, encoded).attention([Head(0, 1), Head(2, 3)], lambda row: row.spans["slot"])

    model.module.set_attn_implementation("eager")
    for index, row in enumerate(encoded):
        with torch.no_grad():
            patterns = model.module(torch.tensor([row.clean]), output_attentions=True).attentions
        for head, values in found.items():
            expected = patterns[head.layer][0, head.head, -1, [1, 2]].sum()
            assert abs(values[index] - float(expected)) < 1e-5


def test_reading_attention_leaves_the_model_as_it_was(model: BoundModel) -> None:
    runs = runs_on(model, random_pairs())
    before = runs.clean.copy()
    runs.attention([Head(0, 1)], lambda row: row.spans["slot"])

    assert model.module.config._attn_implementation == "sdpa"
    assert np.array_equal(before, runs_on(model, random_pairs()).clean)


def test_logits_that_are_not_finite_are_an_error_that_names_a_prompt(model: BoundModel) -> None:
    model.module.get_output_embeddings().weight.data[3] = float("nan")  # the answer

    with pytest.raises(MeasurementError, match="logits that are not finite"):
        _ = runs_on(model, random_pairs()).clean


def test_prompts_without_a_twin_have_no_corrupt_run(model: BoundModel) -> None:
    pair = Pair("c", None, "a", "f", "t", {}, None, {})  # type: ignore[arg-type]
    row = Encoded(pair, (5, 6, 7), None, 3, 70, {}, (), (0, 1, 2), 0)
    runs = Runs(model, [row], value="zero", metric="logit_diff")

    assert np.isfinite(runs.ablated(Ablated(frozenset({Head(0, 0)})))).all()
    with pytest.raises(MeasurementError, match="no corrupt twin"):
        _ = runs.corrupt


def test_two_runs_are_identical_bit_for_bit(model: BoundModel) -> None:
    parts = Ablated(frozenset({Head(0, 1), Mlp(2)}))
    first, second = runs_on(model, random_pairs()), runs_on(model, random_pairs())

    assert np.array_equal(first.ablated(parts), second.ablated(parts))


def test_noise_is_small_in_float32(model: BoundModel) -> None:
    assert runs_on(model, random_pairs()).noise() < 1e-4


def test_noise_of_a_divergence_is_not_that_of_its_flat_top(model: BoundModel) -> None:
    """Around the own clean run a divergence has no slope, and where it is measured it has one."""
    pairs = random_pairs((7,) * 6)
    with model.blocks[2].register_forward_pre_hook(lambda _, args: (args[0] * (1 + 1e-3 * len(args[0])), *args[1:])):
        together = runs_on(model, pairs, metric="kl")
        alone = Runs(model, pairs, value="resample", metric="kl", together=[[at] for at in range(6)])
        change = np.abs(together.corrupt - alone.corrupt).max()

        assert change > 1e-4
        assert together.noise() > change / 4


def without_key_value(model: BoundModel, row: Encoded, layer: int, group: int) -> float:
    """Return the metric of one prompt in which a group's keys and values come from its twin, in plain hooks."""
    if model.architecture.model_type == "gpt2":
        block, width = model.module.transformer.h[layer].attn, 32
        places = [(block.c_attn, slice(at + group * 8, at + group * 8 + 8)) for at in (width, 2 * width)]
    else:
        block = model.module.model.layers[layer].self_attn
        places = [(module, slice(group * 8, group * 8 + 8)) for module in (block.k_proj, block.v_proj)]
    kept: list[torch.Tensor] = []
    with ExitStack() as stack:
        for module, piece in places:
            stack.enter_context(module.register_forward_hook(lambda _, a, o, p=piece: kept.append(o[..., p].clone())))
        Naive(model).run(row.corrupt or ())

    def put(output: torch.Tensor, piece: slice, value: torch.Tensor) -> torch.Tensor:
        out = output.clone()
        out[..., piece] = value
        return out

    with ExitStack() as stack:
        for (module, piece), value in zip(places, kept, strict=True):
            stack.enter_context(module.register_forward_hook(lambda _, a, o, p=piece, v=value: put(o, p, v)))
        logits = Naive(model).run(row.clean)
    return float(logits[ANSWER] - logits[FOIL])


def test_a_key_value_head_is_replaced_for_every_head_that_reads_it(model: BoundModel) -> None:
    pairs, group = random_pairs(), model.groups - 1
    runs = runs_on(model, pairs)
    found = runs.ablated(Ablated(frozenset({KeyValue(1, group)})))
    readers = frozenset(Head(1, head) for head in range(model.heads) if head * model.groups // model.heads == group)

    assert np.abs(found - [without_key_value(model, row, 1, group) for row in pairs]).max() < 1e-5
    assert np.abs(found - runs.clean).max() > 1e-3
    assert np.abs(found - runs.ablated(Ablated(readers))).max() > 1e-3  # their queries stay clean: another patch


def test_many_patches_in_one_request_are_each_what_they_are_alone(model: BoundModel) -> None:
    parts = [Ablated(some) for some in some_parts(model)] + [Ablated(frozenset({Mlp(2)}), embedding=True)]
    for value in ("resample", "zero", "mean"):
        for size in (1, 5, 256):
            runs = Runs(model, random_pairs(), value=value, metric="logit_diff", batch_size=size)  # type: ignore[arg-type]
            alone = [runs_on(model, random_pairs(), value=value).ablated(one) for one in parts]
            assert np.abs(runs.sweep("some", parts) - alone).max() < 1e-5


def test_a_part_that_is_replaced_at_one_position_runs_that_position_only(model: BoundModel) -> None:
    pairs, parts = random_pairs(last=True), frozenset({Head(1, 2), Mlp(0)})
    runs, naive, ran = runs_on(model, pairs), Naive(model), []
    _ = runs.corrupt
    with model.blocks[1].register_forward_pre_hook(lambda _, args: ran.append(args[0].shape[1])):
        found = runs.ablated(Ablated(parts))

    expected = [naive.ablated(row, pairs, parts, "resample") for row in pairs]
    assert np.abs(found - [float(one[ANSWER] - one[FOIL]) for one in expected]).max() < 1e-5
    assert set(ran) == {1}


def test_layers_below_a_patch_are_not_run_and_the_prefix_is_not_either(model: BoundModel) -> None:
    runs = Runs(model, random_pairs((8, 8), prefix=5), value="resample", metric="logit_diff")
    _ = runs.corrupt
    ran: list[tuple[int, int]] = []
    handles = [
        block.register_forward_pre_hook(lambda _, args, at=at: ran.append((at, args[0].shape[1])))
        for at, block in enumerate(model.blocks)
    ]
    runs.sweep("last layer", [Ablated(frozenset({Head(2, head)})) for head in range(model.heads)])
    for handle in handles:
        handle.remove()

    assert ran == [(2, 3)]  # one forward for all heads: the last layer, and the three tokens behind the prefix


def test_who_watches_is_told_of_every_forward(model: BoundModel) -> None:
    told: list[tuple[str, int, int]] = []
    watch = lambda *it: told.append(it)  # noqa: E731
    runs = Runs(model, random_pairs(), value="resample", metric="logit_diff", batch_size=4, watch=watch)
    runs.sweep("heads", [Ablated(frozenset({Head(layer, 0)})) for layer in range(3)])

    assert told == [("heads", done, 9) for done in range(1, 10)]  # three layers on batches of three lengths


class Full:
    """A device on which a forward of more than `rows` rows finds no memory."""

    def __init__(self, rows: int, error: RuntimeError) -> None:
        self.rows, self.error, self.refused = rows, error, 0

    def __call__(self, module: object, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > self.rows:
            self.refused += 1
            raise self.error


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory")]
)
def test_where_memory_is_out_the_batch_is_halved_and_it_is_said(model: BoundModel, error: RuntimeError) -> None:
    request = [Ablated(frozenset({Head(0, head)})) for head in range(model.heads)]
    expected = runs_on(model, random_pairs()).sweep("heads", request)
    runs, full = runs_on(model, random_pairs()), Full(3, error)
    with model.blocks[2].register_forward_pre_hook(full):
        found = runs.sweep("heads", request)

    assert full.refused
    assert runs.batch_size == 2
    assert runs.notices == ("memory was out on 'random': 2 prompts run in a forward at most",)
    assert np.abs(found - expected).max() < 1e-5


def test_one_prompt_that_finds_no_memory_is_an_error_that_says_what_to_do(model: BoundModel) -> None:
    full = Full(0, torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nand more"))
    with (
        model.blocks[0].register_forward_pre_hook(full),
        pytest.raises(
            MeasurementError, match=r"(?s)one prompt .* does not: CUDA out of memory. Tried 2 GiB\n.*bfloat16"
        ),
    ):
        _ = runs_on(model, random_pairs()).clean


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_noise_is_read_within_the_memory_that_there_is(model: BoundModel, rows: int) -> None:
    runs = runs_on(model, random_pairs((6,) * 6))
    with model.blocks[2].register_forward_pre_hook(Full(rows, torch.OutOfMemoryError("CUDA out of memory."))):
        assert runs.noise() < 1e-4

    assert runs.notices


def test_another_error_of_the_device_is_not_taken_for_a_lack_of_memory(model: BoundModel) -> None:
    with (
        model.blocks[0].register_forward_pre_hook(Full(0, RuntimeError("device-side assert"))),
        pytest.raises(RuntimeError, match="device-side assert"),
    ):
        _ = runs_on(model, random_pairs()).clean


def test_plain_runs_of_no_more_prompts_than_a_batch_are_held(model: BoundModel) -> None:
    runs = Runs(model, random_pairs((6,) * 8), value="resample", metric="logit_diff", batch_size=4)
    runs.sweep("heads", [Ablated(frozenset({Head(1, 0)}))])

    assert [plain.batch.rows for plain in runs._shelf.held.values()] == [4]
    assert len(runs.batches) == 2


def test_the_plain_runs_that_were_asked_for_last_are_held(model: BoundModel) -> None:
    runs = Runs(model, random_pairs((5, 5, 6, 6, 7, 7)), value="zero", metric="logit_diff", batch_size=4)
    _ = runs.clean

    assert list(runs._shelf.held) == [(2, 3), (4, 5)]


@pytest.mark.parametrize(("value", "kept"), [("resample", 7), ("zero", 0), ("mean", 0)])
def test_of_a_corrupt_run_only_what_a_patch_takes_is_held(model: BoundModel, value: str, kept: int) -> None:
    runs = runs_on(model, random_pairs((6,)), value=value)
    runs.ablated(Ablated(frozenset({Head(1, 0)})))
    _ = runs.corrupt

    (plain,) = runs._shelf.held.values()
    assert len(plain.corrupt.values) == kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(model: BoundModel, dtype: torch.dtype) -> None:
    heads = [Ablated(frozenset({Head(layer, head)})) for layer in range(3) for head in range(model.heads)]
    whole = runs_on(model, random_pairs()).sweep("heads", heads)
    model.module.to(dtype)
    runs = runs_on(model, random_pairs())
    half = runs.sweep("heads", heads)

    assert np.abs(whole - half).max() < 32 * torch.finfo(dtype).eps * np.abs(whole).max()
    assert 0 <= runs.noise() < 32 * torch.finfo(dtype).eps * np.abs(whole).max()

"""Exact patching in both directions equals the naive loop, and keeps the rules of its sums."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from naive import Naive
from pairs import ANSWER, FOIL, random_pairs

from pytest_circuits.attribution.exact import denoising, noising
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.errors import MeasurementError
from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.components import Embedding, Head, KeyValue, Mlp

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

PADDED = [[0, 1, 2, 3, 4, 5]]
NOTHING = Ablated(frozenset())


def runs_on(model: BoundModel, pairs: list[Encoded] | None = None, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, pairs or random_pairs(), **settings)


def every(model: BoundModel) -> list[Head | Mlp]:
    layers = range(model.layers)
    return [*(Head(i, j) for i in layers for j in range(model.heads)), *(Mlp(i) for i in layers)]


def difference(logits: torch.Tensor) -> float:
    return float(logits[ANSWER] - logits[FOIL])


@pytest.mark.parametrize("options", [{}, {"together": PADDED}, {"batch_size": 1}])
def test_both_directions_equal_the_naive_loop(model: BoundModel, options: dict[str, Any]) -> None:
    pairs, parts, naive = random_pairs(kept=(2,)), every(model), Naive(model)
    noised, denoised = (
        noising(runs_on(model, pairs, **options), parts),
        denoising(runs_on(model, pairs, **options), parts),
    )

    for index, row in enumerate(pairs):
        assert row.corrupt is not None
        where = [at for at, source in enumerate(row.source) if source >= 0]
        clean, corrupt = naive.values(row.clean), naive.values(row.corrupt)
        c, x = difference(naive.run(row.clean)), difference(naive.run(row.corrupt))
        for number, part in enumerate(parts):
            lost = c - difference(naive.logits(row.clean, {part}, corrupt, where))
            gained = difference(naive.logits(row.corrupt, {part}, clean, where)) - x
            assert abs(noised[number, index] - lost) < 1e-5
            assert abs(denoised[number, index] - gained) < 1e-5
    assert (np.abs(noised - denoised).max(axis=1) > 1e-4).all()  # two measures, of every part


def test_patching_everything_is_the_whole_effect_both_ways_and_nothing_is_none(model: BoundModel) -> None:
    whole = [Ablated(frozenset(every(model)), embedding=True), NOTHING]
    for metric in ("logit_diff", "prob_diff"):
        runs = runs_on(model, metric=metric)
        for effects in (noising(runs, whole), denoising(runs, whole)):
            assert np.abs(effects[0] - (runs.clean - runs.corrupt)).max() < 1e-5
            assert np.abs(effects[1]).max() < 1e-5


def test_the_embedding_alone_is_the_corrupt_prompt_with_the_clean_one_inside(model: BoundModel) -> None:
    """Where the embedding is replaced at every position that differs, the whole run is the other prompt's."""
    runs = runs_on(model)
    (noised,), (denoised,) = noising(runs, [Embedding()]), denoising(runs, [Embedding()])

    assert np.abs(noised - (runs.clean - runs.corrupt)).max() < 1e-5
    assert np.abs(denoised - (runs.clean - runs.corrupt)).max() < 1e-5


def test_key_value_heads_are_patched_in_both_directions(model: BoundModel) -> None:
    found = [patch(runs_on(model), [KeyValue(1, 0), Head(0, 0)]) for patch in (noising, denoising)]

    for effects in found:
        assert effects.shape == (2, 6)
        assert (np.abs(effects).max(axis=1) > 1e-4).all()


def test_a_pair_of_unequal_lengths_takes_clean_values_back_to_where_they_belong(model: BoundModel) -> None:
    pair = Pair("c", "x", "a", "f", "t", {}, "slot", {})
    clean, corrupt, source = (5, 6, 7, 8), (5, 60, 61, 7, 8), (0, -1, 3, 4)
    row = Encoded(pair, clean, corrupt, ANSWER, FOIL, {"slot": (1,)}, (1,), source, 1)
    naive, parts = Naive(model), [Head(1, 1), Mlp(0)]
    values = {key: value[[0, 0, 0, 2, 3]] for key, value in naive.values(clean).items()}

    found = denoising(runs_on(model, [row]), parts)
    for number, part in enumerate(parts):
        gained = naive.logits(corrupt, {part}, values, [0, 3, 4])
        assert abs(found[number, 0] - (difference(gained) - difference(naive.run(corrupt)))) < 1e-5


def test_who_watches_is_told_and_what_memory_did_is_noted(model: BoundModel) -> None:
    def full(_: Any, args: Any) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    told: list[str] = []
    runs = runs_on(model, watch=lambda what, done, total: told.append(what))
    expected = denoising(runs_on(model), [Head(1, 0)])
    with model.blocks[2].register_forward_pre_hook(full):
        found = denoising(runs, [Head(1, 0)])

    assert np.abs(found - expected).max() < 1e-5
    assert "denoising" in told
    assert runs.notices == ("memory was out on 'random': 2 prompts run in a forward at most",)


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_a_value_of_neither_run_has_no_way_back(model: BoundModel, value: str) -> None:
    assert noising(runs_on(model, value=value), [Head(0, 0)]).any()
    with pytest.raises(MeasurementError, match=f"this ablation is '{value}'.*\n.*or ask for noising"):
        denoising(runs_on(model, value=value), [Head(0, 0)])


def test_a_divergence_has_no_corrupt_side(model: BoundModel) -> None:
    assert (noising(runs_on(model, metric="kl"), [Head(0, 0)]) > 0).all()
    with pytest.raises(MeasurementError, match="denoising cannot be measured by kl, .*\n.*logit_diff or prob_diff"):
        denoising(runs_on(model, metric="kl"), [Head(0, 0)])


def test_prompts_without_a_twin_have_no_corrupt_run_to_denoise(model: BoundModel) -> None:
    first, *_ = random_pairs()
    alone = replace(first, corrupt=None, pair=replace(first.pair, corrupt=None))

    with pytest.raises(MeasurementError, match="'c' has no corrupt twin"):
        denoising(runs_on(model, [alone]), [Head(0, 0)])

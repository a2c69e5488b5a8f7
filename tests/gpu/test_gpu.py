"""On a GPU everything is what it is on the CPU: sweeps, half precision, memory that runs out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pairs import random_pairs
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.spec.components import Component, Head, Mlp

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and torch finds none here"),
]


def request_of(model: BoundModel) -> list[Ablated]:
    heads = [Head(layer, head) for layer in range(model.layers) for head in range(model.heads)]
    parts: list[Component] = [*heads, *(Mlp(layer) for layer in range(model.layers))]
    return [Ablated(frozenset({part})) for part in parts] + [Ablated(frozenset(parts[::2]))]


def swept(model: BoundModel, *, value: str = "resample") -> np.ndarray:
    runs = Runs(model, random_pairs(prefix=2), value=value, metric="logit_diff")  # type: ignore[arg-type]
    return np.array([runs.clean, runs.corrupt, *runs.sweep("all", request_of(model))])


@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_a_sweep_is_that_of_the_cpu(name: str) -> None:
    module = random_module(name)
    here, there = swept(bound(module, name)), swept(bound(copy.deepcopy(module).cuda(), name))

    assert np.abs(here - there).max() < 1e-4 * max(1.0, np.abs(here).max())


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_other_ablations_are_those_of_the_cpu(value: str) -> None:
    module = random_module("llama")
    here = swept(bound(module, "llama"), value=value)
    there = swept(bound(copy.deepcopy(module).cuda(), "llama"), value=value)

    assert np.abs(here - there).max() < 1e-4 * max(1.0, np.abs(here).max())


def test_two_runs_are_identical_bit_for_bit() -> None:
    model = bound(random_module("llama").cuda(), "llama")

    assert np.array_equal(swept(model), swept(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "falcon"])
def test_half_precision_stays_near_float32(name: str, dtype: torch.dtype) -> None:
    module = random_module(name)
    whole = swept(bound(copy.deepcopy(module).cuda(), name))
    half = swept(bound(module.cuda().to(dtype), name))

    assert np.abs(whole - half).max() < 32 * torch.finfo(dtype).eps * np.abs(whole).max()


def test_float32_is_not_tensorfloat32() -> None:
    model = bound(random_module("gpt2").cuda(), "gpt2")
    left, right = torch.randn(2, 512, 512, device=model.device)

    assert (left @ right - (left.double() @ right.double())).abs().max() < 1e-3


def test_where_the_memory_of_the_gpu_is_out_the_batch_is_halved() -> None:
    model = bound(random_module("gpt2").cuda(), "gpt2")
    pairs = random_pairs((24,) * 512, prefix=2)
    expected = Runs(model, pairs, value="resample", metric="logit_diff", batch_size=64).sweep("all", request_of(model))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(model.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 64 * 2**20) / total)
    try:
        runs = Runs(model, pairs, value="resample", metric="logit_diff", batch_size=8192)
        found = runs.sweep("all", request_of(model))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert runs.batch_size < 8192
    assert "memory was out" in runs.notices[0]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

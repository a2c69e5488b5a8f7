"""A model on several devices, part of it brought to its device only while it runs, is measured as on one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pairs import random_pairs
from small_models import bound, random_module

from pytest_circuits.checkpoints import devices
from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.checkpoints.load import _moved
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.errors import MeasurementError, MissingExtra
from pytest_circuits.spec.components import Head, Mlp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_circuits.checkpoints.model import BoundModel

accelerate = pytest.importorskip("accelerate", reason="what splits a model, accelerate, is not installed")


def swept(model: BoundModel) -> np.ndarray:
    runs = Runs(model, random_pairs(prefix=2), value="resample", metric="logit_diff")
    heads = [Head(layer, head) for layer in range(model.layers) for head in range(model.heads)]
    return np.array([runs.clean, runs.corrupt, *runs.sweep("all", [Ablated(frozenset({p})) for p in (*heads, Mlp(1))])])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "falcon", "bloom", "gpt_neo", "mixtral"])
def test_layers_that_are_elsewhere_until_they_run_are_measured_as_if_they_were_here(name: str) -> None:
    here = bound(random_module(name), name)
    module = copy.deepcopy(here.module)
    for part in (module.get_submodule(here.architecture.blocks)[1], module.get_output_embeddings()):
        accelerate.cpu_offload(part, execution_device=torch.device("cpu"))
    split = bound(module, name)

    assert any(parameter.is_meta for parameter in module.parameters())
    assert np.abs(swept(split) - swept(here)).max() < 1e-5


def test_a_checkpoint_can_be_opened_split(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    split, whole = (open_checkpoint(f"m={folder}", device=device).bound for device in ("split", "cpu"))

    assert np.abs(swept(split) - swept(whole)).max() < 1e-4


def test_a_checkpoint_of_which_a_part_would_stay_on_disk_is_refused(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    whole = LlamaForCausalLM.from_pretrained

    def with_disk(*args: Any, **options: Any) -> Any:
        module, report = whole(*args, **options)
        module.hf_device_map = {"model.layers.0": "cpu", "model.layers.1": "disk"}
        return module, report

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", with_disk)

    with pytest.raises(MeasurementError, match=r"(?s)memory of all GPUs and the CPU, and a part .* larger machine"):
        _ = open_checkpoint(f"m={saved('llama')}", device="split").bound


def test_without_accelerate_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)

    with pytest.raises(MissingExtra, match=r"(?s)split needs accelerate.*pip install accelerate"):
        devices.device_named("split")


def test_a_split_device_is_described_by_its_gpus() -> None:
    names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]

    assert devices.describe_device("split") == f"split ({', '.join(names) or 'cpu'})"


def test_weights_for_which_a_device_has_no_room_are_told_with_what_to_do() -> None:
    class Large(torch.nn.Module):
        def to(self, *args: Any, **options: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB.\nmore")

    with pytest.raises(MeasurementError, match=r"(?s)'big' should fit on cpu.*Tried 9 GiB\..*split.*bfloat16") as told:
        _moved(Large(), torch.device("cpu"), "big")
    assert "more" not in str(told.value)

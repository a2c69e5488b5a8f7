"""A forward that starts late sees the same queries, keys and values as the whole one, and edits of them act alike."""

from __future__ import annotations

import pytest
import torch
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.checkpoints.attention import dispatches
from pytest_circuits.checkpoints.model import Site
from pytest_circuits.checkpoints.past import Known
from pytest_circuits.errors import InstrumentError

IDS = (torch.arange(22).view(2, 11) * 9 + 3) % 101
FIRST = 4


def later(value: torch.Tensor) -> torch.Tensor:
    return torch.cat([value[:, :FIRST], -value[:, FIRST:]], 1)


@pytest.mark.parametrize("architecture", VARIANT_NAMES)
def test_edits_inside_attention_act_alike_in_a_run_that_starts_late(architecture: str) -> None:
    model = bound(random_module(architecture), architecture)
    kinds = ("q", "k", "v") if dispatches(model.module) else ("k", "v")
    past = model.forward(IDS, note=FIRST).past
    for kind in kinds:
        site = Site(kind, 1)
        whole = model.forward(IDS, edits={site: later}, keep=[site])
        resumed = model.forward(IDS, edits={site: torch.neg}, keep=[site], known=Known(past))

        torch.testing.assert_close(resumed.logits, whole.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(resumed.values[site], whole.values[site][:, FIRST:], atol=1e-4, rtol=1e-4)
        assert (whole.logits - model.forward(IDS).logits).abs().max() > 1e-3
        assert whole.values[site].shape[2] == (model.heads if kind == "q" else model.groups)


def test_noted_keys_and_values_hold_no_memory_of_later_tokens() -> None:
    past = bound(random_module("llama"), "llama").forward(IDS, note=FIRST).past

    for noted in (tensor for pair in past.layers.values() for tensor in pair):
        assert noted.untyped_storage().nbytes() == noted.numel() * noted.element_size()


def test_queries_of_a_model_with_attention_code_of_its_own_are_refused() -> None:
    model = bound(random_module("bloom"), "bloom")

    with pytest.raises(InstrumentError, match="attention is called by name, and a bloom has attention code of its own"):
        model.forward(IDS, keep=[Site("q", 0)])


def test_float32_is_computed_in_float32_whatever_precision_was_asked_for_before() -> None:
    model = bound(random_module("gpt2"), "gpt2")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        model.forward(torch.zeros(1, 2, dtype=torch.long))
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)

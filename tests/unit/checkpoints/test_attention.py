"""Where heads attend is what the library's eager code tells, on every architecture, or is refused."""

from __future__ import annotations

import pytest
import torch
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.checkpoints.attention import attention_of_last
from pytest_circuits.errors import InstrumentError

IDS = (torch.arange(22).view(2, 11) * 9 + 3) % 101


@pytest.mark.parametrize("architecture", [name for name in VARIANT_NAMES if name != "falcon-alibi"])
def test_patterns_are_those_of_eager_code(architecture: str) -> None:
    module = random_module(architecture)
    module.config._attn_implementation = "eager"
    with torch.inference_mode():
        told = module(IDS, attention_mask=torch.ones_like(IDS), output_attentions=True, use_cache=False).attentions
    model = bound(random_module(architecture), architecture)
    before = model.module.config._attn_implementation
    found = attention_of_last(model, IDS)

    torch.testing.assert_close(found, torch.stack([pattern[:, :, -1] for pattern in told]), atol=1e-5, rtol=0)
    assert found.shape == (3, 2, 4, 11)
    assert model.module.config._attn_implementation == before


def test_a_local_layer_attends_to_the_last_tokens_alone() -> None:
    found = attention_of_last(bound(random_module("gemma2"), "gemma2"), IDS)

    assert (found[0, ..., :-3] == 0).all()
    assert (found[1] > 0).all()


def test_a_sink_takes_its_part_of_the_attention() -> None:
    found = attention_of_last(bound(random_module("gpt_oss"), "gpt_oss"), IDS)

    assert found.sum(-1).min() < 0.5


def test_patterns_of_other_code_than_the_model_runs_are_refused() -> None:
    """The library's eager code counts Falcon's linear biases twice."""
    model = bound(random_module("falcon-alibi"), "falcon-alibi")

    with pytest.raises(
        InstrumentError, match="the attention read in layer 0 does not give its output .*\n.*Drop the rol"
    ):
        attention_of_last(model, IDS)
    assert model.module.config._attn_implementation == "sdpa"

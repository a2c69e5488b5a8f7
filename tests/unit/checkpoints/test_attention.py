"""Where heads attend is what the library's eager code tells, on every architecture, or is refused."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from small_models import VARIANT_NAMES, bound, random_module
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pytest_circuits.checkpoints import attention
from pytest_circuits.checkpoints.attention import attention_of, attention_of_last
from pytest_circuits.errors import InstrumentError

IDS = (torch.arange(22).view(2, 11) * 9 + 3) % 101
OPEN = {"is_causal": False}


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
    every = attention_of(model, IDS, lambda pattern: pattern)
    torch.testing.assert_close(every, torch.stack(told), atol=1e-5, rtol=0)
    some = attention_of(model, IDS, lambda pattern: pattern.amax(-1), queries=slice(3, 7))
    torch.testing.assert_close(some, every[..., 3:7, :].amax(-1))
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


def test_a_misfit_at_any_query_is_refused() -> None:
    """A kernel that sees the future: the last query's pattern fits, those before do not."""
    model = bound(random_module("llama"), "llama")
    module = model.module
    seeing = partial(attention._run, lambda *args, **options: sdpa_attention_forward(*args, **options | OPEN))
    AttentionInterface.register("pytest_circuits_sdpa", seeing)
    try:
        attention_of_last(model, IDS)
        with pytest.raises(InstrumentError, match="does not give its output"):
            attention_of(model, IDS, lambda pattern: pattern.amax(-1))
    finally:
        AttentionInterface.register("pytest_circuits_sdpa", partial(attention._run, sdpa_attention_forward))
    assert module.config._attn_implementation == "sdpa"


def test_one_layer_is_reduced_before_the_next_one_runs() -> None:
    model = bound(random_module("llama"), "llama")
    live: list[int] = []
    held: list[weakref.ref[torch.Tensor]] = []

    def reduce(pattern: torch.Tensor) -> torch.Tensor:
        live.append(sum(one() is not None for one in held))
        held.append(weakref.ref(pattern))
        return pattern.amax((-1, -2))

    attention_of(model, IDS, reduce)

    assert live == [0, 0, 0]


def test_a_layer_that_tells_nothing_is_an_error() -> None:
    model = bound(random_module("gpt_neo"), "gpt_neo")
    model.blocks[1].attn.register_forward_hook(lambda _, args, output: (output[0], None))

    with pytest.raises(InstrumentError, match=r"read in 3 layers of 'random', was in \[0, 2\].\n.*Drop these roles"):
        attention_of_last(model, IDS)

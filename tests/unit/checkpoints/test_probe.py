"""An architecture without a row is measured with the parts that it shows, or refused in words; never with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_models import VARIANT_NAMES, bound, change, random_module
from transformers import AutoModelForCausalLM

from pytest_circuits.checkpoints import load
from pytest_circuits.checkpoints.architectures import ARCHITECTURES
from pytest_circuits.checkpoints.attention import attention_of_last
from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.checkpoints.model import Site
from pytest_circuits.checkpoints.ov import value_weights
from pytest_circuits.errors import CheckpointRefused, InstrumentError, PromptError
from pytest_circuits.roles import ov_circuit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_circuits.checkpoints.model import BoundModel

IDS = (torch.arange(22).view(2, 11) * 9 + 3) % 101
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 12, "qk_rope_head_dim": 4}
FOREIGN: dict[str, dict[str, Any]] = {
    "arcee": {},
    "biogpt": {},
    "ctrl": {},
    "deepseek_v2": {
        **LATENT,
        "head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 6,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
    },
    "ernie4_5": {},
    "exaone4": {"sliding_window": 3},
    "glm": {},
    "granitemoe": {"residual_multiplier": 0.4},
    "helium": {},
    "hunyuan_v1_dense": {},
    "nanochat": {},
    "nemotron": {},
    "olmo3": {"sliding_window": 3},
    "persimmon": {},
    "xglm": {},
}


def all_values(model: BoundModel) -> Any:
    kinds = ("residual", "z", "mlp", "k", "v")
    return model.forward(IDS, keep=[Site(kind, layer) for kind in kinds for layer in range(3)])


# an architecture that has a row


@pytest.mark.parametrize("architecture", VARIANT_NAMES)
def test_what_is_probed_is_what_the_row_says(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = bound(random_module(architecture), architecture)
    monkeypatch.delitem(ARCHITECTURES, architecture.partition("-")[0])
    probed = bound(random_module(architecture), architecture)
    monkeypatch.undo()
    expected, found = all_values(known), all_values(probed)

    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(found.values[site], value) for site, value in expected.values.items())
    assert probed.architecture.sinks == known.architecture.sinks
    with torch.inference_mode():
        first = [ov_circuit.first_stage(model, IDS[0]) for model in (known, probed)]
        assert torch.equal(first[0], first[1])
        if architecture != "deepseek_v3":
            scores = [ov_circuit.final_states(model, 1, first[0]) for model in (known, probed)]
            assert torch.equal(scores[0], scores[1])


# one that has none


@pytest.mark.parametrize("architecture", FOREIGN)
def test_an_architecture_without_a_row_is_probed(architecture: str) -> None:
    module = random_module(architecture, **FOREIGN[architecture])
    module.config._attn_implementation = "eager"
    with torch.inference_mode():
        told = module(IDS, attention_mask=torch.ones_like(IDS), output_attentions=True, use_cache=False)
    model = bound(random_module(architecture, **FOREIGN[architecture]), architecture)
    found = attention_of_last(model, IDS)

    assert model.probed
    torch.testing.assert_close(model.forward(IDS).logits, told.logits[:, -1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, torch.stack([one[:, :, -1] for one in told.attentions]), atol=1e-5, rtol=0)


def test_parts_that_add_a_share_are_found_with_their_scale() -> None:
    assert bound(random_module("granitemoe", residual_multiplier=0.4), "granitemoe").architecture.scale_key == (
        "residual_multiplier"
    )


def test_a_norm_that_does_nothing_in_the_first_layer_is_found() -> None:
    """NanoChat normalises its embedding, so that layer 0 would do without; and its final norm runs twice."""
    row = bound(random_module("nanochat"), "nanochat").architecture

    assert (row.attention_norm, row.final_norm) == ("input_layernorm", "model.norm")


def test_a_dropout_before_the_final_norm_is_not_taken_for_it() -> None:
    module = random_module("arcee")
    module.model.norm = torch.nn.Sequential(torch.nn.Dropout(), module.model.norm).eval()

    assert bound(module, "arcee").architecture.final_norm == "model.norm.1"


def test_values_of_a_probed_bottleneck_have_no_weights() -> None:
    with pytest.raises(PromptError, match="a deepseek_v2 has none"):
        value_weights(bound(random_module("deepseek_v2", **FOREIGN["deepseek_v2"]), "deepseek_v2"), 0)


REFUSED = [
    ("afmoe", {}, "heads do not put out the values that they read"),  # a gate between heads and projection
    ("bitnet", {}, "heads do not put out the values that they read"),  # a norm between heads and projection
    ("diffllama", {}, "heads do not put out the values that they read"),  # two attentions, subtracted
    ("gpt_neox_japanese", {}, "layer 2: heads . MLP . input is not the block's output"),  # a bias in the last layer
]


@pytest.mark.parametrize(("architecture", "changes", "complaint"), REFUSED)
def test_parts_that_do_not_pass_a_check_are_refused_with_what_was_found(
    architecture: str, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InstrumentError, match=complaint) as told:
        bound(random_module(architecture, **changes), architecture)

    assert f"{architecture!r} has no row, so its parts were probed: blocks " in str(told.value)
    assert "add a row: docs/how-to/add-an-architecture.md" in str(told.value)


@pytest.mark.parametrize(
    ("architecture", "changes", "complaint"),
    [
        ("bert", {}, "did not find what adds up to what layer 0 adds to the residual stream \\(found blocks 'bert.enc"),
        ("doge", {}, "did not find what adds up to what layer 0 adds"),
        ("jetmoe", {}, "did not find what adds up to what layer 0 adds"),
        ("minimax", {}, "does not run as the instrument needs it: ValueError .MiniMax uses cache of its own"),
        ("roberta-prelayernorm", {}, "does not run as the instrument needs it: TypeError"),
    ],
)
def test_an_architecture_whose_parts_are_not_found_is_refused(
    architecture: str, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointRefused, match=f"refused: .*{architecture!r} has no row, and .*{complaint}"):
        bound(random_module(architecture, **changes), architecture)


def test_a_list_of_layers_that_is_not_there_is_told() -> None:
    with pytest.raises(CheckpointRefused, match="'arcee' has no row, and probing did not find a list of 5 layers.\n"):
        bound(random_module("arcee"), "arcee", layers=5)


# as a checkpoint


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointRefused) as told:
        _ = open_checkpoint(f"odd={folder}", device="cpu").bound
    return str(told.value)


@pytest.mark.parametrize("architecture", ["arcee", "ernie4_5", "olmo3", "xglm"])
def test_an_opened_checkpoint_is_the_librarys(architecture: str, saved: Callable[..., Path]) -> None:
    folder = saved(architecture)
    handle = open_checkpoint(f"odd={folder}", device="cpu")
    module = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        expected = module(IDS).logits[:, -1]

    assert handle.shape.probed
    torch.testing.assert_close(handle.bound.forward(IDS).logits, expected)


def test_a_key_that_nobody_has_looked_at_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved("arcee", strange=None, architectures=["ArceeForCausalLM"], output_router_logits=True)
    assert open_checkpoint(f"odd={folder}", device="cpu").bound.probed

    change(folder / "config.json", strange=1)
    expected = "config.json sets 'strange' to 1, and ArceeConfig does not declare it.\n  'arcee' has no row that says"
    assert expected in refusal(folder)


@pytest.mark.parametrize("model_type", ["nonesuch", "t5"])
def test_what_the_library_has_not_is_refused(model_type: str, saved: Callable[..., Path]) -> None:
    folder = saved("llama", model_type=model_type)

    assert f"has no causal language model {model_type!r} of its own; supported: bloom, " in refusal(folder)


HYBRID = [
    (
        "falcon_h1",
        {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
        "layers 0-2 have two",
    ),
    ("qwen3_next", {"layer_types": ("linear_attention", "full_attention")}, "layers 0, 2 have no attention heads"),
    ("recurrent_gemma", {"block_types": ["recurrent", "recurrent", "attention"]}, "layers 0-1 have no attention heads"),
    ("lfm2", {"layer_types": ("conv", "full_attention")}, "layers 0, 2 have no attention heads ('conv', a Lfm2ShortC"),
    ("jamba", {"attn_layer_period": 3, "attn_layer_offset": 1}, "layers 0, 2 have no attention heads ('mamba', a Jam"),
]


@pytest.mark.parametrize(("architecture", "changes", "complaint"), HYBRID)
def test_layers_that_mix_tokens_without_attention_are_refused_before_weights_are_read(
    architecture: str,
    changes: dict[str, Any],
    complaint: str,
    saved: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = saved(architecture, made=changes)
    monkeypatch.setattr(load, "_refuse_two_names", lambda *_: pytest.fail("weights were read"))

    found = refusal(folder)
    assert f"refused: in a {architecture} {complaint}" in found
    assert "Supported are models in which every layer has softmax attention and an MLP." in found


@pytest.mark.parametrize("architecture", ["mamba", "rwkv", "falcon_mamba"])
def test_a_model_without_any_attention_is_refused_at_once(architecture: str, saved: Callable[..., Path]) -> None:
    folder = saved(architecture)

    with pytest.raises(
        CheckpointRefused, match="states no number of attention heads .*\n.*a state-space model has none"
    ):
        open_checkpoint(f"odd={folder}", device="cpu")

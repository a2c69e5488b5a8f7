"""Small models with random weights, built from their configs, in which every trap of their architecture is open."""

from __future__ import annotations

import json
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from pytest_circuits.checkpoints.architectures import Shape
from pytest_circuits.checkpoints.load import bind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_circuits.checkpoints.model import BoundModel

VOCABULARY = 101
LOCAL = 3
"""Tokens that a local layer sees: fewer than any prompt has."""

WIDE = {"head_dim": 12}  # four such heads are wider than the residual stream
VARIANTS: dict[str, dict[str, Any]] = {
    "bloom": {},
    "codegen": {"rotary_dim": 4},
    "cohere": {"logit_scale": 0.7, "use_qk_norm": True},
    "cohere2": {"logit_scale": 0.7, "sliding_window": LOCAL, "layer_types": ("sliding_attention", "full_attention")},
    "deepseek_v3": {
        "num_key_value_heads": None,
        "head_dim": 4,  # of the rotated part
        "q_lora_rank": 16,
        "kv_lora_rank": 12,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 6,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "falcon": {"bias": True},
    "falcon-grouped": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-sequential": {"multi_query": False, "parallel_attn": False, "bias": True},
    "falcon-alibi": {"alibi": True, "multi_query": False, "parallel_attn": False},
    "gemma": WIDE,
    "gemma2": {
        **WIDE,
        "query_pre_attn_scalar": 5,
        "sliding_window": LOCAL,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {
        **WIDE,
        "query_pre_attn_scalar": 5,
        "sliding_window": LOCAL,
        "final_logit_softcapping": 3.0,
        "layer_types": ("sliding_attention", "full_attention"),
    },
    "glm4": WIDE,
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_bigcode-multi_head": {"multi_query": False},
    "gpt_neo": {"window_size": LOCAL, "attention_types": ("global", "local")},
    "gpt_neox": {},
    "gpt_neox-sequential": {"use_parallel_residual": False},
    "gpt_oss": {**WIDE, "sliding_window": LOCAL},
    "gptj": {"rotary_dim": 4},
    "granite": {
        "embedding_multiplier": 1.5,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.4,
        "attention_multiplier": 0.3,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama": {},
    "mistral": {"sliding_window": LOCAL},
    "mixtral": {**WIDE, "sliding_window": LOCAL},
    "mpt": {"max_seq_len": 32, "attn_config": {"clip_qkv": 2.0, "softmax_scale": 0.3}},
    "olmo": {"clip_qkv": 1.0},
    "olmo2": {},
    "olmoe": {"clip_qkv": 1.0},
    "opt": {"ffn_dim": 48, "init_std": 0.3},
    "phi": {"qk_layernorm": True},
    "phi3": {"sliding_window": LOCAL},
    "qwen2": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 16, "mlp_only_layers": [1]},
    "qwen3": {
        **WIDE,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": LOCAL,
        "max_window_layers": 1,
    },
    "qwen3_moe": {**WIDE, "norm_topk_prob": True},
    "smollm3": {"no_rope_layer_interval": 2},
    "stablelm": {"use_qkv_bias": True, "qk_layernorm": True},
    "stablelm-parallel": {"use_parallel_residual": True},
    "starcoder2": {"sliding_window": LOCAL},
}
VARIANT_NAMES = tuple(VARIANTS)
"""Architectures, and after a dash the other layouts that one has: `random_module` and `bound` take each."""

ARCHITECTURE_NAMES = tuple(dict.fromkeys(name.partition("-")[0] for name in VARIANTS))


def random_module(architecture: str, *, layers: int = 3, heads: int = 4, seed: int = 0, **changes: Any) -> Any:
    """Return a small module with random weights, biases and norms, large enough that every part matters."""
    torch.manual_seed(seed)
    config_class = CONFIG_MAPPING[model_type(architecture)]
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 8,
        "max_position_embeddings": 32,
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "initializer_range": 0.3,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    known = {*config_class().to_dict(), *config_class.attribute_map}
    settings = {key: size for key, size in sizes.items() if key in known} | VARIANTS.get(architecture, {}) | changes
    config = config_class(**{key: _by_layer(key, value, layers) for key, value in settings.items()})
    module = MODEL_FOR_CAUSAL_LM_MAPPING[config_class](config).eval()
    with torch.no_grad():
        for tensor in _starting_equal(module):
            tensor += 0.3 * torch.randn_like(tensor)
    return module


def model_type(architecture: str) -> str:
    """Return the name of an architecture without its layout."""
    return architecture.partition("-")[0] if architecture in VARIANTS else architecture


def _by_layer(key: str, value: Any, layers: int) -> Any:
    """Return a pattern that alternates, given as a tuple, in the words of the config."""
    if not isinstance(value, tuple):
        return value
    kinds = list(islice(cycle(value), layers))
    return [[[kind], 1] for kind in kinds] if key == "attention_types" else kinds


def _starting_equal(module: Any) -> Iterable[torch.Tensor]:
    """Yield what is initialised to zeros or ones: with it a norm or a bias that is left out would not be seen."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 or name.endswith("bias"):
            yield parameter
    for name, buffer in module.named_buffers():
        if name.endswith("correction_bias"):
            yield buffer


def bound(module: Any, architecture: str, *, layers: int = 3, heads: int = 4) -> BoundModel:
    """Return a module bound, after the self-checks."""
    shape = Shape(model_type(architecture), layers, heads)
    return bind(module, None, shape=shape, name="random", fingerprint="0")


def change(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

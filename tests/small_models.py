"""Small models with random weights, built from their configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

from pytest_circuits.checkpoints.architectures import Shape
from pytest_circuits.checkpoints.load import bind

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

VOCABULARY = 101


def random_module(architecture: str, *, layers: int = 3, heads: int = 4, seed: int = 0) -> Any:
    """Return a small module with random weights, large enough that every part matters."""
    torch.manual_seed(seed)
    if architecture == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=layers, n_head=heads, initializer_range=0.3
        )
        return transformers.GPT2LMHeadModel(config).eval()
    stem = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}[architecture]
    config = getattr(transformers, f"{stem}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=8,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    return getattr(transformers, f"{stem}ForCausalLM")(config).eval()


def bound(module: Any, architecture: str, *, layers: int = 3, heads: int = 4) -> BoundModel:
    """Return a module bound, after the self-checks."""
    return bind(module, None, shape=Shape(architecture, layers, heads), name="random", fingerprint="0")

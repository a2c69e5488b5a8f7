"""The modules and weights of a head's OV circuit in small GPT-2s and Llamas, by the library's names for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.spec.components import Head


def stages(model: BoundModel) -> tuple[Any, ...]:
    """The modules of the formula, by the names that transformers gives them."""
    inner = model.module.transformer if model.architecture.model_type == "gpt2" else model.module.model
    if model.architecture.model_type == "gpt2":
        return inner.wte, inner.h[0].ln_2, inner.h[0].mlp, [block.ln_1 for block in inner.h], inner.ln_f
    norms = [block.input_layernorm for block in inner.layers]
    return inner.embed_tokens, inner.layers[0].post_attention_layernorm, inner.layers[0].mlp, norms, inner.norm


def naive_value(model: BoundModel, head: Head) -> torch.Tensor:
    """W_V of the head as (head_width, width)."""
    if model.architecture.model_type == "gpt2":
        weight = model.module.transformer.h[head.layer].attn.c_attn.weight
        width = 32 // 4
        start = 2 * 32 + head.head * width
        return weight[:, start : start + width].T
    weight = model.module.model.layers[head.layer].self_attn.v_proj.weight
    group = head.head // 2  # two query heads share a key/value head
    return weight[group * 8 : group * 8 + 8]


def naive_output(model: BoundModel, head: Head) -> torch.Tensor:
    """W_O of the head as (head_width, width)."""
    rows = slice(head.head * 8, head.head * 8 + 8)
    if model.architecture.model_type == "gpt2":
        return model.module.transformer.h[head.layer].attn.c_proj.weight[rows]
    return model.module.model.layers[head.layer].self_attn.o_proj.weight[:, rows].T

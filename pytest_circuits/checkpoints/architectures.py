"""Where each Hugging Face architecture keeps its parts, as a table of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CheckpointRefused

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Architecture:
    """The names of one architecture's parts: module paths, and the keys of its `config.json`.

    A head is the slice of the INPUT of `projection`; an MLP is what `mlp` puts out, which is also what it adds to the
    residual stream. Paths below `blocks` are relative to one block.
    """

    model_type: str
    classes: tuple[str, str]  # the config's and the model's class in transformers
    layers_key: str
    heads_key: str
    blocks: str
    attention: str
    projection: str
    mlp: str
    attention_norm: str
    mlp_norm: str
    final_norm: str
    values: str  # the module whose weight makes the values
    value_layout: Literal["fused-thirds", "own"]
    renamed_keys: tuple[str, ...] = ()  # older spellings in config.json that the config class still understands


GPT2 = Architecture(
    model_type="gpt2",
    classes=("GPT2Config", "GPT2LMHeadModel"),
    layers_key="n_layer",
    heads_key="n_head",
    blocks="transformer.h",
    attention="attn",
    projection="attn.c_proj",
    mlp="mlp",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    final_norm="transformer.ln_f",
    values="attn.c_attn",
    value_layout="fused-thirds",
)


def _llama_like(model_type: str, stem: str) -> Architecture:
    """Return the row of an architecture that is laid out as Llama is."""
    return Architecture(
        model_type=model_type,
        classes=(f"{stem}Config", f"{stem}ForCausalLM"),
        layers_key="num_hidden_layers",
        heads_key="num_attention_heads",
        blocks="model.layers",
        attention="self_attn",
        projection="self_attn.o_proj",
        mlp="mlp",
        attention_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        final_norm="model.norm",
        values="self_attn.v_proj",
        value_layout="own",
        renamed_keys=("rope_theta", "rope_scaling"),
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    row.model_type: row
    for row in (GPT2, _llama_like("llama", "Llama"), _llama_like("mistral", "Mistral"), _llama_like("qwen2", "Qwen2"))
}


@dataclass(frozen=True)
class Shape:
    """What a spec says of its model, and what a checkpoint's config says of itself."""

    architecture: str
    layers: int
    heads: int

    def __str__(self) -> str:
        return f"{self.architecture} with {self.layers} layers x {self.heads} heads"


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Return the row for a checked `config.json`.

    Raises:
        CheckpointRefused: the architecture is not in the table.
    """
    name = config.get("model_type")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise CheckpointRefused(
            f"refused: the architecture {name!r} is not supported; supported: {', '.join(sorted(ARCHITECTURES))}.\n"
            "  Its parts would have to be guessed, and a wrong tensor gives a wrong verdict silently."
        )
    return ARCHITECTURES[name]


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a checked `config.json` states.

    Raises:
        CheckpointRefused: the architecture is unknown, or its numbers of layers and heads are missing.
    """
    row = architecture_of(config)
    return Shape(row.model_type, _size(config, row.layers_key), _size(config, row.heads_key))


def _size(config: Mapping[str, Any], key: str) -> int:
    size = config.get(key)
    if type(size) is not int or size < 1:
        raise CheckpointRefused(f"refused: config.json should state {key!r} as a positive integer, found {size!r}.")
    return size

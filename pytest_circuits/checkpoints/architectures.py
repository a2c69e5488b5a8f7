"""Where each Hugging Face architecture keeps its parts, as a table of data."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CheckpointRefused

if TYPE_CHECKING:
    from collections.abc import Mapping


ROTATION = ("rope_theta", "rope_scaling")
ADD_A_ROW = "docs/how-to/add-an-architecture.md"
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
Layout = Literal["own", "packed", "interleaved", "codegen", "latent"]


@dataclass(frozen=True)
class Architecture:
    """The names of one architecture's parts: module paths, and the keys of its `config.json`.

    A head is the slice of the INPUT of `projection`. Paths below `blocks` are relative to one block; where a part goes
    by other names in other layouts of the architecture they stand side by side as `ln_mlp|input_layernorm`, and the
    first that a block has is meant. The defaults are Llama's.

    Attributes:
        model_type: as in config.json.
        classes: the config's and the model's class in transformers.
        blocks: the list of layers.
        attention: what computes attention, its first output being the projection's.
        projection: the linear map that follows the heads.
        mlp: what computes the MLP; empty where no module does.
        attention_adds: whose output attention adds to the residual stream, where a norm follows the projection.
        mlp_adds: whose output the MLP adds, where that is not `mlp`: a norm follows it, or it holds the residual.
        attention_norm: what normalises the residual stream before attention; empty where nothing does.
        mlp_norm: likewise before the MLP.
        final_norm: the norm before the unembedding.
        values: what computes the values; its features are laid out as `value_layout` says.
        value_layout: `own` values alone; `packed` queries, keys, values; `interleaved` so in each group of heads;
            `codegen` four blocks of queries, values, keys; `latent` through a bottleneck, so that no head has a W_V.
        layers_key: the key of the number of layers.
        heads_key: the key of the number of query heads.
        scale_key: what heads and MLP add is multiplied with the value of this key first; empty where it is not.
        sinks: attention weights of a query need not sum to one.
        renamed_keys: keys of config.json that the config class obeys and does not declare: mostly older spellings.
        needs: keys of config.json of which only this value is supported.
    """

    model_type: str
    classes: tuple[str, str]
    blocks: str = "model.layers"
    attention: str = "self_attn"
    projection: str = "self_attn.o_proj"
    mlp: str = "mlp"
    attention_adds: str = ""
    mlp_adds: str = ""
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    final_norm: str = "model.norm"
    values: str = "self_attn.v_proj"
    value_layout: Layout = "own"
    layers_key: str = "num_hidden_layers"
    heads_key: str = "num_attention_heads"
    scale_key: str = ""
    sinks: bool = False
    renamed_keys: tuple[str, ...] = (*ROTATION, "head_dim")
    needs: tuple[tuple[str, Any], ...] = ()

    @property
    def found(self) -> str:
        """What is where, in words: the fields that say more than Llama's row."""
        return ", ".join(
            f"{one.name} {getattr(self, one.name)!r}"
            for one in fields(self)
            if one.name not in ("model_type", "classes", "layers_key", "heads_key", "renamed_keys", "needs")
            and getattr(self, one.name)
        )


def _row(model_type: str, stem: str, base: Architecture | None = None, **others: Any) -> Architecture:
    """Return the row of an architecture that is laid out as `base` is, Llama where it is None, but for `others`."""
    classes = (f"{stem}Config", f"{stem}ForCausalLM")
    return replace(base or Architecture("", ("", "")), **{"model_type": model_type, "classes": classes, **others})


_GPT2 = Architecture(
    model_type="gpt2",
    classes=("GPT2Config", "GPT2LMHeadModel"),
    blocks="transformer.h",
    attention="attn",
    projection="attn.c_proj",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    final_norm="transformer.ln_f",
    values="attn.c_attn",
    value_layout="packed",
    layers_key="n_layer",
    heads_key="n_head",
    renamed_keys=(),
)
_GPTJ = _row(
    "gptj", "GPTJ", _GPT2, projection="attn.out_proj", mlp_norm="ln_1", values="attn.v_proj", value_layout="own"
)
_BLOOM = _row(
    "bloom",
    "Bloom",
    blocks="transformer.h",
    attention="self_attention",
    projection="self_attention.dense",
    mlp_adds="mlp.dense_4h_to_h",  # as the attention, the MLP adds the residual stream itself
    final_norm="transformer.ln_f",
    values="self_attention.query_key_value",
    value_layout="interleaved",
    layers_key="n_layer",
    heads_key="n_head",
    renamed_keys=("n_embed",),
    needs=(("apply_residual_connection_post_layernorm", False), ("slow_but_exact", False)),
)
_PHI = _row(
    "phi",
    "Phi",
    projection="self_attn.dense",
    mlp_norm="input_layernorm",
    final_norm="model.final_layernorm",
    renamed_keys=(*ROTATION, "partial_rotary_factor", "head_dim"),
)
_POST_NORMED: Mapping[str, Any] = {
    "attention_adds": "post_attention_layernorm",
    "mlp_adds": "post_feedforward_layernorm",
}
_PARALLEL: Mapping[str, Any] = {"mlp_norm": "input_layernorm"}
_ROWS = (
    _BLOOM,
    _row("codegen", "CodeGen", _GPTJ, values="attn.qkv_proj", value_layout="codegen"),
    _row("cohere", "Cohere", **_PARALLEL),
    _row("cohere2", "Cohere2", **_PARALLEL, renamed_keys=(*ROTATION, "head_dim", "sliding_window_pattern")),
    _row("deepseek_v3", "DeepseekV3", values="self_attn.kv_b_proj", value_layout="latent"),
    _row(
        "falcon",
        "Falcon",
        _BLOOM,
        mlp_adds="",
        attention_norm="ln_attn|input_layernorm",
        mlp_norm="ln_mlp|post_attention_layernorm|input_layernorm",
        layers_key="num_hidden_layers",
        heads_key="num_attention_heads",
        renamed_keys=(*ROTATION, "n_embed"),
        needs=(),
    ),
    _row("gemma", "Gemma"),
    _row("gemma2", "Gemma2", **_POST_NORMED, mlp_norm="pre_feedforward_layernorm"),
    Architecture(
        "gemma3_text",
        ("Gemma3TextConfig", "Gemma3ForCausalLM"),
        **_POST_NORMED,
        mlp_norm="pre_feedforward_layernorm",
        renamed_keys=(*ROTATION, "rope_local_base_freq", "sliding_window_pattern"),
    ),
    _row(
        "glm4",
        "Glm4",
        attention_adds="post_self_attn_layernorm",
        mlp_adds="post_mlp_layernorm",
        renamed_keys=(*ROTATION, "partial_rotary_factor"),
    ),
    _GPT2,
    _row("gpt_bigcode", "GPTBigCode", _GPT2, value_layout="interleaved"),
    _row(
        "gpt_neo",
        "GPTNeo",
        _GPT2,
        projection="attn.attention.out_proj",
        values="attn.attention.v_proj",
        value_layout="own",
        layers_key="num_layers",
        heads_key="num_heads",
    ),
    _row(
        "gpt_neox",
        "GPTNeoX",
        blocks="gpt_neox.layers",
        attention="attention",
        projection="attention.dense",
        final_norm="gpt_neox.final_layer_norm",
        values="attention.query_key_value",
        value_layout="interleaved",
        renamed_keys=("rope_scaling", "rotary_emb_base", "rotary_pct"),
    ),
    _row("gpt_oss", "GptOss", sinks=True),
    _GPTJ,
    _row("granite", "Granite", scale_key="residual_multiplier"),
    _row("llama", "Llama"),
    _row("mistral", "Mistral"),
    _row("mixtral", "Mixtral"),
    _row(
        "mpt",
        "Mpt",
        _GPT2,
        blocks="transformer.blocks",
        projection="attn.out_proj",
        mlp="ffn",
        mlp_adds="ffn.down_proj",  # the MLP adds the residual stream itself
        attention_norm="norm_1",
        mlp_norm="norm_2",
        final_norm="transformer.norm_f",
        values="attn.Wqkv",
        layers_key="n_layers",
        heads_key="n_heads",
    ),
    _row("olmo", "Olmo"),
    _row("olmo2", "Olmo2", **_POST_NORMED, attention_norm="", mlp_norm=""),
    _row("olmoe", "Olmoe"),
    _row(
        "opt",
        "OPT",
        blocks="model.decoder.layers",
        projection="self_attn.out_proj",
        mlp="",
        mlp_adds="fc2",
        attention_norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",  # a layer's; the model has one of the same name
        final_norm="model.decoder.final_layer_norm",
        renamed_keys=(),
        needs=(("do_layer_norm_before", True), ("_remove_final_layer_norm", False)),
    ),
    _PHI,
    _row(
        "phi3",
        "Phi3",
        values="self_attn.qkv_proj",
        value_layout="packed",
        renamed_keys=(*ROTATION, "partial_rotary_factor", "head_dim"),
    ),
    _row("qwen2", "Qwen2"),
    _row("qwen2_moe", "Qwen2Moe"),
    _row("qwen3", "Qwen3"),
    _row("qwen3_moe", "Qwen3Moe"),
    _row("smollm3", "SmolLM3"),
    _row(
        "stablelm",
        "StableLm",
        mlp_norm="post_attention_layernorm|input_layernorm",
        renamed_keys=(*ROTATION, "partial_rotary_factor", "head_dim"),
    ),
    _row("starcoder2", "Starcoder2"),
)
ARCHITECTURES: Mapping[str, Architecture] = {row.model_type: row for row in _ROWS}


@dataclass(frozen=True)
class Shape:
    """What a spec says of its model, and what a checkpoint's config says of itself."""

    architecture: str
    layers: int
    heads: int

    @property
    def probed(self) -> bool:
        """Whether the architecture has no row, so that its parts are found on the model itself."""
        return self.architecture not in ARCHITECTURES

    def __str__(self) -> str:
        return f"{self.architecture} with {self.layers} layers x {self.heads} heads"


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a checked `config.json` states; whether its architecture can be probed is seen later.

    Raises:
        CheckpointRefused: a setting is not supported, or the numbers of layers and heads are missing.
    """
    name = config.get("model_type")
    if not isinstance(name, str) or not name:
        raise CheckpointRefused(f"refused: config.json should name the architecture as 'model_type', found {name!r}.")
    if name not in ARCHITECTURES:
        return Shape(name, _any_size(config, LAYERS, "layers"), _any_size(config, HEADS, "attention heads"))
    row = ARCHITECTURES[name]
    for key, value in row.needs:
        if config.get(key, value) != value:
            raise CheckpointRefused(
                f"refused: config.json sets {key!r} to {repr(config[key])[:80]}, expected {value!r}: with it a "
                f"{name} adds up its parts in another way, which is not supported.\n"
                "  What heads and MLPs put out would not be what the residual stream gets."
            )
    return Shape(name, _size(config, row.layers_key), _size(config, row.heads_key))


def _any_size(config: Mapping[str, Any], keys: tuple[str, ...], what: str) -> int:
    key = next((key for key in keys if key in config), None)
    if key is None:
        raise CheckpointRefused(
            f"refused: {config['model_type']!r} has no row, and config.json states no number of {what} "
            f"({', '.join(map(repr, keys))}).\n  What is measured are the heads of layers that have attention: a "
            "state-space model has none in any layer, and of a model of several parts only the text part can be "
            f"measured, saved by itself. With rows: {', '.join(sorted(ARCHITECTURES))}."
        )
    return _size(config, key)


def _size(config: Mapping[str, Any], key: str) -> int:
    size = config.get(key)
    if type(size) is not int or size < 1:
        raise CheckpointRefused(f"refused: config.json should state {key!r} as a positive integer, found {size!r}.")
    return size

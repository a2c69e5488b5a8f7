"""The oracle: one forward for each prompt and patch, with plain hooks, written against transformers' module names."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from pytest_circuits.spec.components import Component, Head, Mlp

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

LLAMA = ("model.layers", "self_attn.o_proj", "mlp")
LAYOUTS = {  # where the layers are, what follows the heads in one, and what puts out what its MLP adds
    "gpt2": ("transformer.h", "attn.c_proj", "mlp"),
    "gpt_bigcode": ("transformer.h", "attn.c_proj", "mlp"),
    "gpt_neo": ("transformer.h", "attn.attention.out_proj", "mlp"),
    "gptj": ("transformer.h", "attn.out_proj", "mlp"),
    "codegen": ("transformer.h", "attn.out_proj", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention.dense", "mlp"),
    "bloom": ("transformer.h", "self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon": ("transformer.h", "self_attention.dense", "mlp"),
    "mpt": ("transformer.blocks", "attn.out_proj", "ffn.down_proj"),
    "opt": ("model.decoder.layers", "self_attn.out_proj", "fc2"),
    "phi": ("model.layers", "self_attn.dense", "mlp"),
    "gemma2": ("model.layers", "self_attn.o_proj", "post_feedforward_layernorm"),
    "gemma3_text": ("model.layers", "self_attn.o_proj", "post_feedforward_layernorm"),
    "olmo2": ("model.layers", "self_attn.o_proj", "post_feedforward_layernorm"),
    "glm4": ("model.layers", "self_attn.o_proj", "post_mlp_layernorm"),
}

Values = dict[tuple[str, int], torch.Tensor]


class Naive:
    """Runs one prompt at a time, whole, with nothing known beforehand."""

    def __init__(self, model: BoundModel) -> None:
        blocks, projection, mlp = LAYOUTS.get(model.architecture.model_type, LLAMA)
        self.module: Any = model.module
        self.blocks = list(self.module.get_submodule(blocks))
        self.projections = [block.get_submodule(projection) for block in self.blocks]
        self.mlps = [block.get_submodule(mlp) for block in self.blocks]
        self.heads = model.heads

    def values(self, ids: tuple[int, ...]) -> Values:
        """Return z and what the MLP adds in each layer, of shape (seq, width)."""
        kept: Values = {}

        def keep(name: str, layer: int, tensor: Any) -> None:
            tensor = tensor if isinstance(tensor, torch.Tensor) else tensor[0]
            kept[name, layer] = tensor.reshape(len(ids), -1).clone()

        with ExitStack() as stack:
            for at, (projection, mlp) in enumerate(zip(self.projections, self.mlps, strict=True)):
                stack.enter_context(projection.register_forward_pre_hook(lambda _, a, at=at: keep("z", at, a[0])))
                stack.enter_context(mlp.register_forward_hook(lambda _, a, out, at=at: keep("mlp", at, out)))
            self.run(ids)
        return kept

    def logits(self, ids: tuple[int, ...], parts: Any = (), values: Any = None, where: Any = ()) -> torch.Tensor:
        """Return the logits after the last token, `parts` taking `values` at the positions `where`."""

        def z_hook(layer: int, heads: list[int]) -> Any:
            def hook(_: Any, args: Any) -> Any:
                z = args[0].clone()
                rows, width = z.view(len(ids), -1), z.shape[-1] // self.heads
                for position, head in itertools.product(where, heads):
                    piece = slice(head * width, (head + 1) * width)
                    rows[position, piece] = values["z", layer][position, piece]
                return (z, *args[1:])

            return hook

        def mlp_hook(layer: int) -> Any:
            def hook(_: Any, args: Any, output: Any) -> Any:
                out = (output if isinstance(output, torch.Tensor) else output[0]).clone()
                out.view(len(ids), -1)[where] = values["mlp", layer][where]
                return out if isinstance(output, torch.Tensor) else (out, *output[1:])

            return hook

        with ExitStack() as stack:
            for layer, (projection, mlp) in enumerate(zip(self.projections, self.mlps, strict=True)):
                heads = [p.head for p in parts if isinstance(p, Head) and p.layer == layer]
                stack.enter_context(projection.register_forward_pre_hook(z_hook(layer, heads)))
                if Mlp(layer) in parts:
                    stack.enter_context(mlp.register_forward_hook(mlp_hook(layer)))
            return self.run(ids)

    def run(self, ids: tuple[int, ...]) -> torch.Tensor:
        """Return the logits after the last token of one forward."""
        tokens = torch.tensor([ids])
        with torch.no_grad():
            logits: torch.Tensor = self.module(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False
            ).logits[0, -1]
        return logits

    def ablated(self, row: Encoded, rows: list[Encoded], parts: frozenset[Component], value: str) -> torch.Tensor:
        """Return the logits of a pair's clean prompt with parts at their ablated value, as the spec defines it."""
        where = [i for i, source in enumerate(row.source) if source >= 0]
        return self.logits(row.clean, parts, self.ablation(row, rows, value), where)

    def ablation(self, row: Encoded, rows: list[Encoded], value: str) -> Values:
        """Return the ablated value of every part, at the clean positions."""
        assert row.corrupt is not None
        corrupt = self.values(row.corrupt)
        if value == "resample":
            return corrupt
        if value == "zero":
            return {key: torch.zeros_like(found) for key, found in corrupt.items()}
        same = [other for other in rows if other.pair.template == row.pair.template]
        seen = [self.values(ids) for other in same for ids in (other.clean, other.corrupt) if ids]
        return {
            key: torch.stack(
                [
                    torch.stack([v[key][len(v[key]) - back] for v in seen if len(v[key]) >= back]).mean(0)
                    for back in range(len(row.clean), 0, -1)
                ]
            )
            for key in corrupt
        }

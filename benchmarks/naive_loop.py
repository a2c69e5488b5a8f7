"""The naive loop that a sweep is compared with: a whole forward of all prompts for each head, by plain hooks."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from workload import plain_forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from pytest_circuits.prompts.encode import Encoded
    from pytest_circuits.spec.components import Head

LAYOUTS = {"gpt2": ("transformer.h", "attn.c_proj")}
"""Where an architecture has its layers, and in one of them what the heads feed; the others are laid out as Llama."""


class NaiveLoop:
    """Reads prompts of one length on a transformers model; nothing that it ran before is used again but z."""

    def __init__(self, module: Any, rows: Sequence[Encoded]) -> None:
        blocks, projection = LAYOUTS.get(module.config.model_type, ("model.layers", "self_attn.o_proj"))
        self.module, self.heads = module, module.config.num_attention_heads
        self.projections = [block.get_submodule(projection) for block in module.get_submodule(blocks)]
        place = module.get_input_embeddings().weight.device
        self.clean_ids = torch.tensor([row.clean for row in rows], device=place)
        self.corrupt_ids = torch.tensor([row.corrupt for row in rows], device=place)
        self.read = torch.tensor([(row.answer, row.foil) for row in rows], device=place)
        self.where = [at for at, source in enumerate(rows[0].source) if source >= 0]
        self.z: list[Tensor] = []

    def clean(self) -> Float[Tensor, " pairs"]:
        """Return the logit differences of the clean prompts."""
        return self._difference(plain_forward(self.module, self.clean_ids))

    def corrupt(self) -> Float[Tensor, " pairs"]:
        """Return those of the corrupt prompts, and keep what their heads put out."""
        self.z = []
        with ExitStack() as stack:
            for projection in self.projections:
                keep = lambda _, args: self.z.append(args[0].clone())  # noqa: E731
                stack.enter_context(projection.register_forward_pre_hook(keep))
            return self._difference(plain_forward(self.module, self.corrupt_ids))

    def without(self, head: Head) -> Float[Tensor, " pairs"]:
        """Return those of the clean prompts with a head's output from the corrupt run; `corrupt` was called before."""
        corrupt = self.z[head.layer]
        width = corrupt.shape[-1] // self.heads
        piece = slice(head.head * width, (head.head + 1) * width)

        def replace(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            z = args[0].clone()
            z[:, self.where, piece] = corrupt[:, self.where, piece]
            return (z, *args[1:])

        with self.projections[head.layer].register_forward_pre_hook(replace):
            return self._difference(plain_forward(self.module, self.clean_ids))

    def _difference(self, logits: Tensor) -> Float[Tensor, " pairs"]:
        two = logits[:, -1].float().gather(1, self.read)
        return two[:, 0] - two[:, 1]

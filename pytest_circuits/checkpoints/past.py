"""What a forward starts from when its first tokens and its first layers have run before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Float

    from .attention import Kind


@dataclass(frozen=True)
class Past:
    """The keys and values of the first `tokens` of each row, by layer, as the model's attention made them."""

    tokens: int
    layers: Mapping[int, tuple[Float[Tensor, "batch groups tokens width"], Float[Tensor, "batch groups tokens width"]]]

    def first(self, tokens: int) -> Past:
        """Return the same for fewer tokens."""
        return Past(tokens, {at: (k[:, :, :tokens], v[:, :, :tokens]) for at, (k, v) in self.layers.items()})


NOTHING = Past(0, {})


@dataclass(frozen=True)
class Known:
    """What of a forward is known, and is not run.

    Attributes:
        past: keys and values of the tokens that are not run.
        layer: the first layer that is run.
        residual: the input of `layer` at the tokens that are run; None where `layer` is 0.
        copies: how many times each row runs, side by side: row r of copy n is row n x rows + r of the forward.
    """

    past: Past = NOTHING
    layer: int = 0
    residual: Float[Tensor, "batch seq width"] | None = None
    copies: int = 1


class Resumed(DynamicCache):  # type: ignore[misc]  # transformers has no types
    """Lends a model the keys and values of tokens that are not run, and sees those of the tokens that are.

    Nothing that is lent is copied before its layer needs it, nor kept after.
    """

    def __init__(self, known: Known, see: Callable[[Kind, int, Tensor], Tensor], *, note: int = 0) -> None:
        """Lend what is known, and note the keys and values of the first `note` tokens.

        Args:
            known: what is lent.
            see: gets "k" or "v", the layer and what its tokens that are run have, of shape (batch, seq, groups, width),
                and returns what the model is to go on with.
            note: how many first tokens are noted.
        """
        super().__init__()
        self.known, self.see, self.note = known, see, note
        self.noted: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values of all tokens, in front those that are lent."""
        key_states = self.see("k", layer_idx, key_states.transpose(1, 2)).transpose(1, 2)
        value_states = self.see("v", layer_idx, value_states.transpose(1, 2)).transpose(1, 2)
        if self.known.past.tokens:
            keys, values = (
                lent.repeat(self.known.copies, *[1] * (lent.ndim - 1)) for lent in self.known.past.layers[layer_idx]
            )
            key_states, value_states = torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)
        if self.note:
            self.noted[layer_idx] = (key_states[:, :, : self.note].clone(), value_states[:, :, : self.note].clone())
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens that are not run."""
        return self.known.past.tokens

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many keys a mask is over, and the first one's position; older libraries pass the positions."""
        length = query_length if isinstance(query_length, int) else len(query_length)
        return self.known.past.tokens + length, 0

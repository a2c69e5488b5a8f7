"""How a model reads its logits from the last residual stream: a norm, the unembedding, a constant, perhaps a cap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..checkpoints.ov import at_hand
from ..checkpoints.rounding import gap
from ..errors import InstrumentError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from ..checkpoints.model import BoundModel

FAINT, LOUD = 2.0**-12, 2.0**4
"""Shares of the final state at which logits are read: at one no cap is felt, at the other every cap is."""
SOME = 64
"""Tokens of the vocabulary whose logits are read there."""


@dataclass(frozen=True)
class Unembedding:
    """What makes logits of the final state.

    Attributes:
        model: whose it is.
        scale: what the model multiplies its logits with; in front of the cap, where it has one.
        capped: whether logits grow less than their scale says.
    """

    model: BoundModel
    scale: float
    capped: bool

    def difference(
        self, answers: Int[Tensor, "batch 2"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """Return the direction in the final state along which logit(answer) - logit(foil) grows, and its constant."""
        weight, bias = rows(self.model, answers)
        return self.scale * (weight[:, 0] - weight[:, 1]), self.scale * (bias[:, 0] - bias[:, 1])


def unembedding_of(model: BoundModel, ids: Int[Tensor, "1 seq"]) -> Unembedding:
    """Return how a model makes its logits, found on one prompt: nothing of it is known by name.

    Raises:
        InstrumentError: even faint logits are not in proportion to the products of state and unembedding.
    """
    tokens = torch.arange(SOME, device=ids.device) * model.vocabulary // SOME
    faint, products = _logits(model, ids, tokens, FAINT)
    size = faint.abs().max()
    scale = (faint * products).sum() / products.square().sum()
    largest, allowed = gap(scale * products / size, faint / size, torch.float32)
    if not largest <= allowed:
        raise InstrumentError(
            f"instrument: the logits of {model.name!r} should be a constant times state x unembedding, and are not "
            f"(largest difference {largest:.3g} of the largest logit, allowed {allowed:.3g}).\n"
            "  What a part adds to a logit could not be said. Please report the architecture."
        )
    loud, products = _logits(model, ids, tokens, LOUD)
    largest, allowed = gap(scale * products, loud, torch.float32)
    return Unembedding(model, float(scale), capped=not largest <= allowed)


def final_norm(model: BoundModel) -> Any:
    """Return what stands between the last residual stream and the unembedding."""
    path = model.architecture.final_norm
    return model.module.get_submodule(path) if path else nn.Identity()


def rows(
    model: BoundModel, tokens: Int[Tensor, "*tokens"]
) -> tuple[Float[Tensor, "*tokens width"], Float[Tensor, "*tokens"]]:
    """Return the unembedding and its bias of some tokens, in float32."""
    head = model.module.get_output_embeddings()
    weight = at_hand(head)
    tokens = tokens.to(weight.device)
    found = weight[tokens].float()
    return found, found.new_zeros(tokens.shape) if head.bias is None else at_hand(head, "bias")[tokens].float()


def _logits(model: BoundModel, ids: Tensor, tokens: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return logits that a model makes of a share of its final state, and the products of share and unembedding."""
    states: list[Tensor] = []

    def scaled(_: Any, args: Any, output: Tensor | tuple[Any, ...]) -> Tensor | tuple[Any, ...]:
        state = share * (output if isinstance(output, Tensor) else output[0])
        states.append(state[0, -1])
        return state if isinstance(output, Tensor) else (state, *output[1:])

    before = final_norm(model) if model.architecture.final_norm else model.blocks[-1]
    with before.register_forward_hook(scaled):
        logits = model.forward(ids, read=tokens[None]).logits[0]
    weight, bias = rows(model, tokens)
    return logits, weight @ states[0].to(weight.device).float() + bias.to(logits.device)

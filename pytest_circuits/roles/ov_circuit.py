"""The OV circuit of a head, read from weights alone: what it says of the next token where it attends to a token t.

    l(t) = W_U  LN_f( W_OV^h  LN_l( MLP_0(LN_0(W_E[t])) ) )

MLP_0 is the first stage that Gould et al. found (arXiv:2312.09230): it turns a token into what later layers read. They
fold the norms away; here the model's own norms are applied, so that a scale it learned is not lost: those before MLP_0
and the head, and those behind them where the architecture has any. W_E[t] is what the embedding puts into the residual
stream, without a learned position. What is the same for every token is no head's and is left out: the biases of W_V and
W_O, of the norms behind the head, and of the unembedding. A head that writes nothing has logits of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..attribution.norms import frozen
from ..attribution.unembedding import final_norm, rows
from ..checkpoints.model import EMBED, Site
from ..checkpoints.ov import output_weight, value_weights
from ..checkpoints.rounding import gap, tolerance
from ..errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Float, Int

    from ..checkpoints.model import BoundModel
    from ..records import Watch

VOCABULARY_AT_ONCE = 2**12
"""Tokens of the vocabulary whose logits are held at once, for all heads of a layer."""


def logits_of(
    model: BoundModel, tokens: Sequence[int], watch: Watch
) -> Iterator[tuple[int, Float[Tensor, "heads tokens tokens"]]]:
    """Yield each layer, and what its heads' OV circuits say of each token: logits over the same tokens, in float32.

    Raises:
        PromptError: a head has no W_V, or something stands between embedding and residual stream.
    """
    ids = torch.tensor(tokens, device=model.device)
    for layer, states in _states(model, ids, watch):
        yield layer, states @ rows(model, ids)[0].to(states.device).T


def beaten_by(
    model: BoundModel, tokens: Sequence[int], watch: Watch
) -> Iterator[tuple[int, Int[Tensor, "heads tokens"], Int[Tensor, "heads tokens"]]]:
    """Yield each layer, and for each of its heads and each token t how many other tokens have no less logit than t.

    Behind that, how many have no more. The logits are the OV circuit's for t, over the whole vocabulary. What rounding
    cannot tell apart counts in both, so that a head that writes nothing puts no token first and none last.

    Raises:
        PromptError: as `logits_of`.
    """
    ids = torch.tensor(tokens, device=model.device)
    for layer, states in _states(model, ids, watch):
        read = rows(model, ids)[0].to(states.device)
        own = torch.einsum("htd,td->ht", states, read)[..., None]
        slack = tolerance(torch.float32) * (states.norm(dim=-1) * read.norm(dim=-1))[..., None]
        above, below = (torch.zeros(own.shape[:2], dtype=torch.long, device=own.device) for _ in range(2))
        for start in range(0, model.vocabulary, VOCABULARY_AT_ONCE):
            some = torch.arange(start, min(start + VOCABULARY_AT_ONCE, model.vocabulary), device=model.device)
            logits = states @ rows(model, some)[0].to(states.device).T
            other = (some != ids[:, None]).to(states.device)
            above += ((logits >= own - slack) & other).sum(-1)
            below += ((logits <= own + slack) & other).sum(-1)
        yield layer, above, below


def _states(
    model: BoundModel, ids: Int[Tensor, " tokens"], watch: Watch
) -> Iterator[tuple[int, Float[Tensor, "heads tokens width"]]]:
    first = first_stage(model, ids)
    for layer in range(model.layers):
        with torch.inference_mode():
            states = final_states(model, layer, first)
        watch("weights", layer + 1, model.layers)
        yield layer, states


def first_stage(model: BoundModel, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens width"]:
    """Return what the first layer's MLP adds where the residual stream holds the token's embedding and nothing else.

    Raises:
        PromptError: between embedding and residual stream there is a map that the formula does not have.
    """
    row = model.architecture
    embedded = _embedded(model, tokens)
    site = Site("mlp", 0)
    with model.part(0, row.mlp_norm or row.mlp).register_forward_pre_hook(
        lambda _, args: (embedded.reshape(args[0].shape), *args[1:])
    ):
        return model.forward(tokens[:, None], keep=[site]).values[site][:, 0]


def final_states(
    model: BoundModel, layer: int, first: Float[Tensor, "tokens width"]
) -> Float[Tensor, "heads tokens width"]:
    """Return what each head of a layer writes of each token, as the unembedding reads it, in float32."""
    row = model.architecture
    normed = model.part(layer, row.attention_norm)(first) if row.attention_norm else first
    values, output = value_weights(model, layer), output_weight(model, layer)
    written = torch.einsum("td,hdw,hwe->hte", normed.to(values.device).float(), values, output.float())
    if row.attention_adds:
        written = _made_of(model.part(layer, row.attention_adds), written, model.dtype)
    return _made_of(final_norm(model), written, model.dtype)


def _made_of(
    norm: Callable[[Tensor], Tensor], written: Float[Tensor, "heads tokens width"], dtype: torch.dtype
) -> Float[Tensor, "heads tokens width"]:
    """Return what a norm makes of what heads write alone, without the bias that it adds whatever is written."""
    return frozen(norm, written.to(dtype)).apply(written)


def _embedded(model: BoundModel, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens width"]:
    """Return what the embedding of each token puts into the residual stream, a learned position left out."""
    stream = model.forward(tokens[:, None], keep=[EMBED]).values[EMBED][:, 0]
    with torch.inference_mode():
        embedded: Tensor = model.module.get_input_embeddings()(tokens).to(stream.device)
    if embedded.shape != stream.shape:
        raise PromptError(
            "a role that is read from a head's weights reads it through the embedding, which in "
            f"{model.name!r} has {embedded.shape[-1]} numbers, and the residual stream {stream.shape[-1]}.\n"
            "  What maps one to the other is no part of the role's formula, so the score would not be the published "
            "one. Drop the role for this checkpoint."
        )
    added = stream - embedded
    largest, allowed = gap(added, added[:1].expand_as(added), model.dtype)
    return embedded if largest <= allowed else stream  # a position adds the same to all; a scale or a norm does not

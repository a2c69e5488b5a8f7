"""What each part adds to the logits directly, past all that is behind it; and the logits read from each layer.

A part's direct effect is what it adds to logit(answer) - logit(foil) at the answer position, with the scale of every
norm that its output passes held at its live value (direct logit attribution: Elhage et al. 2021, Wang et al.,
arXiv:2211.00593). The terms sum to the logit difference, and a batch in which they do not is an error.

Where a model caps its logits (Gemma 2), the difference is the one in front of the cap: behind it nothing adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..checkpoints.model import EMBED, Site
from ..checkpoints.ov import output_weight, projected
from .graph import senders_of
from .last import Last, along, refuse_other_sum
from .norms import frozen
from .unembedding import Unembedding, final_norm, unembedding_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor

    from ..checkpoints.model import BoundModel
    from ..engine.patches import Ablated
    from ..engine.runs import Runs
    from ..records import PerPrompt
    from ..spec.edges import Sender


@dataclass(frozen=True)
class Direct:
    """What each part adds to the logit difference directly, in logits.

    Attributes:
        parts: embedding, heads, MLPs, in the order of the model.
        effects: of shape (parts, prompts).
        bias: what belongs to no part: biases of projections, norms and unembedding.
        total: the logit difference, in front of a cap; effects and bias sum to it.
    """

    parts: tuple[Sender, ...]
    effects: Float[np.ndarray, "parts prompts"]
    bias: PerPrompt
    total: PerPrompt

    def of(self, part: Sender) -> PerPrompt:
        """Return the direct effect of one part."""
        return np.asarray(self.effects[self.parts.index(part)])


def direct_effects(runs: Runs, *, without: Ablated | None = None) -> Direct:
    """Return what each part adds directly to logit(answer) - logit(foil) on the clean prompts.

    Args:
        runs: the prompts; their metric is not read.
        without: parts that take their ablated value meanwhile; norms then have the scale of that run.

    Raises:
        InstrumentError: the terms do not sum to the model's own logit difference, or a norm has no fixed scale.
    """
    patches = () if without is None else (without,)
    runs.keep_keys_and_values(patches)
    return runs.with_room(lambda: _direct(runs, patches))


def is_capped(runs: Runs) -> bool:
    """Say whether a model caps its logits, so that direct effects sum to another difference than its own."""
    return _unembedding(runs).capped


def logit_lens(runs: Runs) -> Float[np.ndarray, "layers+1 prompts"]:
    """Return the logit difference read from the residual stream into each layer of the clean run, and behind the last.

    Each is read through the final norm, at the scale that it has there, and the unembedding (nostalgebraist 2020).

    Raises:
        InstrumentError: the last is not the model's own logit difference.
    """
    return runs.with_room(lambda: _lens(runs))


def _direct(runs: Runs, patches: tuple[Ablated, ...]) -> Direct:
    model, parts, head = runs.model, senders_of(runs.model), _unembedding(runs)
    effects = np.full((len(parts) + 2, len(runs.encoded)), np.nan)
    for done, batch in enumerate(runs.batches, start=1):
        last = Last.of(runs, batch, model.sites, patches)
        weight, constant = head.difference(batch.answers)
        norm = frozen(final_norm(model), last.stream.to(weight.device))
        direction = norm.adjoint(weight)
        terms, beside = _terms(model, last.values, direction)
        beside = beside + weight @ norm.bias + constant
        whole = last.difference(head, weight, constant)
        refuse_other_sum("the direct effects", model, terms.sum(0) + beside, whole, last.stream, direction)
        effects[:, list(batch.indices)] = torch.cat([terms, beside[None], whole[None]]).cpu().numpy()
        runs.watch("direct effects", done, len(runs.batches))
    return Direct(parts, effects[:-2], effects[-2], effects[-1])


def _terms(
    model: BoundModel, values: Mapping[Site, Tensor], direction: Float[Tensor, "batch width"]
) -> tuple[Float[Tensor, "parts batch"], Float[Tensor, " batch"]]:
    """Return what each part adds along a direction of the last residual stream, and what no part adds."""
    terms, beside = [along(values[EMBED], direction)[None]], torch.zeros_like(direction[:, 0])
    into = model.scale * direction  # of what heads and MLPs put out: the model scales that before it is added
    for layer in range(model.layers):
        z, weight = values[Site("z", layer)], output_weight(model, layer)
        offset = projected(model, layer, torch.zeros_like(z[:1, None]))[0, 0].to(direction.device)
        through = into
        if model.architecture.attention_adds:
            put = projected(model, layer, z[:, None])[:, 0].to(z.dtype)
            norm = frozen(model.part(layer, model.architecture.attention_adds), put.to(direction.device))
            beside, through = beside + into @ norm.bias, norm.adjoint(into)
        beside = beside + through @ offset
        heads = torch.einsum("bhw,hwd->bhd", z.float(), weight.float()).to(direction.device)
        terms += [torch.einsum("bhd,bd->hb", heads, through), along(values[Site("mlp", layer)], into)[None]]
    return torch.cat(terms), beside


def _lens(runs: Runs) -> Float[np.ndarray, "layers+1 prompts"]:
    model, head = runs.model, _unembedding(runs)
    sites = [Site("residual", layer) for layer in range(model.layers)]
    out = np.full((model.layers + 1, len(runs.encoded)), np.nan)
    for done, batch in enumerate(runs.batches, start=1):
        last = Last.of(runs, batch, sites)
        weight, constant = head.difference(batch.answers)
        with torch.no_grad():
            states = [final_norm(model)(last.values[site].to(last.stream.device)) for site in sites]
        read = [along(state, weight) + constant for state in states]
        out[:, list(batch.indices)] = torch.stack([*read, last.difference(head, weight, constant)]).cpu().numpy()
        runs.watch("logit lens", done, len(runs.batches))
    return out


def _unembedding(runs: Runs) -> Unembedding:
    return unembedding_of(runs.model, torch.tensor([runs.encoded[0].clean], device=runs.model.device))

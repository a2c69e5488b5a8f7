"""The metrics of a spec: logits at the answer position become one number a prompt, more being better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from .batch import Batch

Metric = Literal["logit_diff", "prob_diff", "kl"]


def logit_diff(logits: Float[Tensor, "batch vocabulary"], batch: Batch) -> Float[Tensor, " batch"]:
    """Return the answer's logit minus the foil's, in logits."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, batch.answer] - logits[rows, batch.foil]


def prob_diff(logits: Float[Tensor, "batch vocabulary"], batch: Batch) -> Float[Tensor, " batch"]:
    """Return the answer's probability minus the foil's. It saturates: tolerances of logits do not carry over."""
    return logit_diff(logits.softmax(-1), batch)


def negative_kl(
    clean: Float[Tensor, "batch vocabulary"], logits: Float[Tensor, "batch vocabulary"]
) -> Float[Tensor, " batch"]:
    """Return -KL(own clean run || this run), in nats: 0 where nothing changed, less where more did."""
    before, after = clean.log_softmax(-1), logits.log_softmax(-1)
    return -(before.exp() * (before - after)).sum(-1)


def read(
    metric: Metric,
    logits: Float[Tensor, "batch vocabulary"],
    clean: Float[Tensor, "batch vocabulary"],
    batch: Batch,
) -> Float[Tensor, " batch"]:
    """Return the metric of one run, given the logits of the clean run of the same prompts."""
    if metric == "kl":
        return negative_kl(clean, logits)
    return (logit_diff if metric == "logit_diff" else prob_diff)(logits, batch)

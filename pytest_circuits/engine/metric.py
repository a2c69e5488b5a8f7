"""The metrics of a spec: logits at the answer position become one number a prompt, more being better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from .batch import Batch

Metric = Literal["logit_diff", "prob_diff", "kl"]
ROWS = 32
"""Rows of the whole vocabulary that a divergence is computed of at once: it takes several times their memory."""


def tokens_read(metric: Metric, batch: Batch) -> Tensor | None:
    """Return the tokens whose logits a metric reads, of shape (batch, 2); None where it reads the whole vocabulary."""
    return batch.answers if metric == "logit_diff" else None


def logit_diff(logits: Float[Tensor, "batch read"], batch: Batch, metric: Metric) -> Float[Tensor, " batch"]:
    """Return the answer's logit minus the foil's, in logits, among the logits that the metric reads."""
    two = logits if metric == "logit_diff" else logits.gather(1, batch.answers.to(logits.device))
    return two[:, 0] - two[:, 1]


def prob_diff(logits: Float[Tensor, "batch vocabulary"], batch: Batch) -> Float[Tensor, " batch"]:
    """Return the answer's probability minus the foil's. It saturates: tolerances of logits do not carry over."""
    return logit_diff(logits.softmax(-1), batch, "prob_diff")


def negative_kl(
    clean: Float[Tensor, "batch vocabulary"], logits: Float[Tensor, "batch vocabulary"]
) -> Float[Tensor, " batch"]:
    """Return -KL(own clean run || this run), in nats: 0 where nothing changed, less where more did."""
    pieces = zip(torch.split(clean, ROWS), torch.split(logits, ROWS), strict=True)
    return torch.cat([_negative_kl(*piece) for piece in pieces])


def _negative_kl(clean: Tensor, logits: Tensor) -> Tensor:
    before, after = clean.log_softmax(-1), logits.log_softmax(-1)
    return -(before.exp() * (before - after)).sum(-1)


def read(
    metric: Metric, logits: Float[Tensor, "batch read"], clean: Float[Tensor, "batch read"], batch: Batch
) -> Float[Tensor, " batch"]:
    """Return the metric of one run, given the logits of the clean run of the same prompts."""
    if metric == "kl":
        return negative_kl(clean, logits)
    return logit_diff(logits, batch, metric) if metric == "logit_diff" else prob_diff(logits, batch)

"""The clean and the corrupt run of one batch: what its patched runs start from, and take their values from."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.model import Site
from ..checkpoints.past import Known
from ..errors import MeasurementError
from .metric import tokens_read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..checkpoints.model import BoundModel, Forward
    from .batch import Batch
    from .metric import Metric


@dataclass(frozen=True)
class Unpatched:
    """The plain runs of a batch, each made when it is first asked for.

    `sites` are those whose values in the corrupt run are kept.
    """

    model: BoundModel
    batch: Batch
    metric: Metric
    sites: tuple[Site, ...]

    @cached_property
    def clean(self) -> Forward:
        """The clean run: its logits, its residual stream from `start` on, its keys and values in front of that."""
        batch = self.batch
        return self.model.forward(
            batch.clean,
            batch.clean_lengths,
            keep=[Site("residual", layer) for layer in range(1, self.model.layers)],
            keep_from=batch.start,
            read=tokens_read(self.metric, batch),
            note=max(batch.start, batch.shared),
        )

    @cached_property
    def corrupt(self) -> Forward:
        """The corrupt run: its logits, and the values of its sites from `shared` on; the tokens before are clean."""
        ids, lengths = twins(self.batch)
        return self.model.forward(
            ids,
            lengths,
            keep=self.sites,
            keep_from=self.batch.shared,
            read=tokens_read(self.metric, self.batch),
            known=Known(self.clean.past.first(self.batch.shared)),
        )

    def known(self, layer: int, copies: int) -> Known:
        """Return what a patched run need not do whose patches lie in `layer` and above."""
        residual = self.clean.values[Site("residual", layer)] if layer else None
        return Known(self.clean.past.first(self.batch.start), layer, residual, copies)

    def resampled(self, site: Site) -> Tensor:
        """Return a site's value in the corrupt run, laid out at the clean positions from `start` on."""
        positions = (self.batch.source[:, self.batch.start :] - self.batch.shared).clamp(min=0)
        values = self.corrupt.values[site]
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values[rows, positions.to(values.device)]


class Shelf:
    """The plain runs of the batches that were asked for last, of so many prompts in all: memory has a bound."""

    def __init__(self, model: BoundModel, metric: Metric, sites: tuple[Site, ...], limit: int) -> None:
        self.model, self.metric, self.sites, self.limit = model, metric, sites, limit
        self.held: OrderedDict[tuple[int, ...], Unpatched] = OrderedDict()

    def of(self, batch: Batch) -> Unpatched:
        """Return the plain runs of a batch, made again where they had to go."""
        found = self.held.pop(batch.indices, None) or Unpatched(self.model, batch, self.metric, self.sites)
        while self.held and sum(map(len, self.held)) + batch.rows > self.limit:
            self.held.popitem(last=False)
        self.held[batch.indices] = found
        return found


def twins(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the corrupt prompts of a batch, and their lengths.

    Raises:
        MeasurementError: they have none.
    """
    if batch.corrupt is None or batch.corrupt_lengths is None:
        raise MeasurementError("these prompts have no corrupt twin: only zero and mean ablation exist for them.")
    return batch.corrupt, batch.corrupt_lengths


def prompts(batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
    """Return the clean prompts of a batch and, where there are any, the corrupt ones."""
    clean = [(batch.clean, batch.clean_lengths)]
    return clean if batch.corrupt is None else [*clean, twins(batch)]

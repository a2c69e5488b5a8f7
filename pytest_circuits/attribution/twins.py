"""A batch of prompts with the ablated value of its sites, from the first token on that an ablation may change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.past import NOTHING, Known, Past
from ..engine.metric import tokens_read
from ..engine.unpatched import twins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Bool

    from ..checkpoints.model import Forward, Site
    from ..engine.batch import Batch
    from ..engine.runs import Runs


@dataclass(frozen=True)
class Twins:
    """The plain runs that a gradient needs beside its own: no more than it needs.

    The tokens that clean and corrupt prompts have in common run once. `sites` are those whose values are at hand.
    """

    runs: Runs
    batch: Batch
    sites: tuple[Site, ...]

    @property
    def first(self) -> int:
        """The first token that is run: nothing in front of it changes."""
        return self.batch.shared if self.runs.value == "resample" else self.batch.start

    @cached_property
    def known(self) -> Known:
        """The keys and values of the tokens that are not run."""
        return Known(self._prefix)

    @cached_property
    def _prefix(self) -> Past:
        if not self.first:
            return NOTHING
        ids = self.batch.clean[:, : self.first]
        return self.runs.model.forward(ids, read=self.batch.answers, note=self.first).past

    @cached_property
    def where(self) -> Bool[Tensor, "batch seq"]:
        """Which of the tokens that are run are replaced."""
        return self.batch.source[:, self.first :] >= 0

    @cached_property
    def clean(self) -> Forward:
        """The clean run."""
        batch = self.batch
        return self.runs.model.forward(
            batch.clean,
            batch.clean_lengths,
            keep=self.sites,
            read=tokens_read(self.runs.metric, batch),
            known=self.known,
        )

    @cached_property
    def corrupt(self) -> Mapping[Site, Tensor]:
        """The values of the corrupt run, laid out at the clean positions."""
        ids, lengths = twins(self.batch)
        run = self.runs.model.forward(ids, lengths, keep=self.sites, read=self.batch.answers, known=self.known)
        positions = (self.batch.source[:, self.first :] - self.first).clamp(min=0)
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        return {site: value[rows.to(value.device), positions.to(value.device)] for site, value in run.values.items()}

    def prepare(self) -> None:
        """Run what ablated values are taken from: a forward cannot be run in the midst of another."""
        needed = {"resample": (self, "corrupt"), "mean": (self.runs, "means"), "zero": (self, "known")}
        getattr(*needed[self.runs.value])
        _ = self.known

    def ablated(self, site: Site, own: Tensor) -> Tensor:
        """Return a site's own value, (batch, seq, ...), with the ablated one where it is replaced."""
        where = self.where.to(own.device).reshape(*self.where.shape, *[1] * (own.ndim - 2))
        return torch.where(where, self._value(site, own), own)

    def _value(self, site: Site, own: Tensor) -> Tensor:
        if self.runs.value == "resample":
            return self.corrupt[site]
        return torch.zeros_like(own) if self.runs.value == "zero" else self._mean(site, own)

    def _mean(self, site: Site, own: Tensor) -> Tensor:
        return self.runs.means.at(site, self.batch, own.dtype).to(own.device)


def twins_of(runs: Runs, sites: tuple[Site, ...], *, copies: int = 1, most: int | None = None) -> Iterator[Twins]:
    """Yield all prompts in batches of which `copies` fit into a forward side by side, of `most` prompts at most."""
    size = max(1, min(runs.batch_size // copies, most or runs.batch_size))
    for whole in runs.batches:
        for at in range(0, whole.rows, size):
            yield Twins(runs, runs.batch(whole.indices[at : at + size]), sites)

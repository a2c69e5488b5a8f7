"""Mean ablation: what a site has on average, per template and position, over clean and corrupt prompts equally."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .unpatched import prompts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..checkpoints.model import BoundModel, Site
    from ..prompts.encode import Encoded
    from .batch import Batch


class Means:
    """The mean value of each site over a template's prompts, position by position counted from the end.

    The prompts run in batches, whose values are summed in float64 and let go.
    """

    def __init__(
        self, model: BoundModel, encoded: Sequence[Encoded], batches: Sequence[Batch], sites: Collection[Site]
    ) -> None:
        """Run every prompt once."""
        self.templates = [row.pair.template for row in encoded]
        self.names = sorted(set(self.templates))
        self.longest = max(int(lengths.max()) for batch in batches for _, lengths in prompts(batch))
        sums: dict[Site, Tensor] = {}
        counts = torch.zeros(len(self.names), self.longest + 1, dtype=torch.float64)
        for batch in batches:
            for ids, lengths in prompts(batch):
                at = self._strata(batch), self._from_end(ids.shape[1], lengths)
                counts.index_put_(at, torch.ones_like(at[1], dtype=torch.float64), accumulate=True)
                for site, value in model.forward(ids, lengths, keep=sites, read=batch.answers).values.items():
                    sums.setdefault(site, torch.zeros(*counts.shape, *value.shape[2:], dtype=torch.float64))
                    sums[site].index_put_(at, value.double().cpu(), accumulate=True)
        self.means: Mapping[Site, Tensor] = {
            site: total / counts.view(*counts.shape, *[1] * (total.ndim - 2)) for site, total in sums.items()
        }

    def at(self, site: Site, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Return a site's mean value, laid out at a batch's clean positions from its start on."""
        back = self._from_end(batch.clean.shape[1], batch.clean_lengths)[:, batch.start :]
        return self.means[site][self._strata(batch), back].to(dtype)

    def _strata(self, batch: Batch) -> Tensor:
        """Return each row's template as a number, of shape (batch, 1)."""
        return torch.tensor([self.names.index(self.templates[index]) for index in batch.indices])[:, None]

    def _from_end(self, width: int, lengths: Tensor) -> Tensor:
        """Return each position's distance from its row's last token, (batch, width); padding is put at the end."""
        back = lengths.cpu()[:, None] - 1 - torch.arange(width)
        return torch.where(back < 0, self.longest, back)

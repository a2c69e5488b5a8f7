"""The runs of a spec on one model: clean, corrupt, and with any set of parts ablated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.attention import attention_of_last
from ..checkpoints.model import EMBED, BoundModel, Edit, Site
from ..errors import MeasurementError
from ..spec.components import Component, Head, Mlp
from .batch import Batch, batch_of
from .metric import Metric, logit_diff, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jaxtyping import Float

    from ..prompts.encode import Encoded

    PerPrompt = Float[np.ndarray, "prompts"]


@dataclass(frozen=True)
class Ablated:
    """What an ablation takes out of a forward: heads and MLPs, and the embedding where it is named."""

    parts: frozenset[Component]
    embedding: bool = False


class Runs:
    """Every run that one spec asks of one model, over all its prompts.

    The clean run, the corrupt run and the ablation values are made once and kept as long as this object lives; each
    ablated run is one forward a batch. Arrays that come out have shape (prompts,), in the order of `encoded`.
    """

    def __init__(
        self,
        model: BoundModel,
        encoded: Sequence[Encoded],
        batches: Sequence[Sequence[int]],
        *,
        value: Literal["resample", "zero", "mean"],
        metric: Metric,
    ) -> None:
        self.model = model
        self.encoded = encoded
        self.batches = tuple(batch_of(encoded, indices, model.device) for indices in batches)
        self.value = value
        self.metric = metric

    # -- plain runs ------------------------------------------------------------------------------------------------

    @cached_property
    def _clean(self) -> tuple[Tensor, ...]:
        return tuple(self._logits(b, b.clean, b.clean_lengths) for b in self.batches)

    @cached_property
    def clean(self) -> PerPrompt:
        """c: the metric of the clean run."""
        return self._over(lambda i, b: self._clean[i])

    @cached_property
    def clean_logit_diff(self) -> PerPrompt:
        """Answer minus foil on the clean prompt, in logits."""
        return self._gather([logit_diff(logits, b) for logits, b in zip(self._clean, self.batches, strict=True)])

    @cached_property
    def corrupt(self) -> PerPrompt:
        """x: the metric of the corrupt run."""
        return self._over(lambda i, b: self._logits(b, *_twins(b)))

    # -- ablated runs ----------------------------------------------------------------------------------------------

    def ablated(self, what: Ablated) -> PerPrompt:
        """Return the metric of the clean run in which these parts take their ablated value."""
        return self._over(lambda i, b: self._logits(b, b.clean, b.clean_lengths, edits=self._edits(i, what)))

    def _edits(self, index: int, what: Ablated) -> dict[Site, Edit]:
        """Return what replaces the sites of a batch: the ablated value for the named parts at the named positions."""
        here = self.batches[index].source >= 0
        edits: dict[Site, Edit] = {}
        for layer in range(self.model.layers):
            heads = sorted(part.head for part in what.parts if isinstance(part, Head) and part.layer == layer)
            if heads:
                chosen = torch.zeros(self.model.heads, dtype=torch.bool, device=here.device)
                chosen[heads] = True
                site = Site("z", layer)
                edits[site] = _replace(here[:, :, None, None] & chosen[:, None], self._ablation(index, site))
            if Mlp(layer) in what.parts:
                site = Site("mlp", layer)
                edits[site] = _replace(here[:, :, None], self._ablation(index, site))
        if what.embedding:
            edits[EMBED] = _replace(here[:, :, None], self._ablation(index, EMBED))
        return edits

    def _ablation(self, index: int, site: Site) -> Tensor:
        """Return the ablated value of a site, laid out at a batch's clean positions."""
        batch = self.batches[index]
        if self.value == "zero":
            return torch.zeros((), device=self.model.device, dtype=self.model.dtype)
        if self.value == "resample":
            return _at(self._corrupt_values[index][site], batch.source.clamp(min=0))
        return self._mean_values[index][site]

    @cached_property
    def _corrupt_values(self) -> tuple[Mapping[Site, Tensor], ...]:
        sites = self.model.sites
        return tuple(self.model.forward(*_twins(batch), keep=sites).values for batch in self.batches)

    @cached_property
    def _mean_values(self) -> tuple[Mapping[Site, Tensor], ...]:
        """The mean over a template's clean and corrupt prompts, position by position counted from the end."""
        longest = max(lengths.max().item() for batch in self.batches for _, lengths in _prompts(batch))
        names = sorted({row.pair.template for row in self.encoded})
        sums: dict[Site, Tensor] = {}
        counts = torch.zeros(len(names), int(longest) + 1, dtype=torch.float64, device=self.model.device)
        for batch in self.batches:
            for ids, lengths in _prompts(batch):
                at = self._strata(batch, names), _from_end(ids.shape[1], lengths, int(longest))
                counts.index_put_(at, torch.ones_like(at[1], dtype=torch.float64), accumulate=True)
                for site, value in self.model.forward(ids, lengths, keep=self.model.sites).values.items():
                    sums.setdefault(site, value.new_zeros(*counts.shape, *value.shape[2:], dtype=torch.float64))
                    sums[site].index_put_(at, value.double(), accumulate=True)
        means = {site: total / counts.view(*counts.shape, *[1] * (total.ndim - 2)) for site, total in sums.items()}
        return tuple(
            {
                site: mean[self._strata(b, names), _from_end(b.clean.shape[1], b.clean_lengths, int(longest))].to(
                    self.model.dtype
                )
                for site, mean in means.items()
            }
            for b in self.batches
        )

    def _strata(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """Return each row's template as a number, of shape (batch, 1)."""
        rows = [names.index(self.encoded[index].pair.template) for index in batch.indices]
        return torch.tensor(rows, device=self.model.device)[:, None]

    # -- readings beside the metric --------------------------------------------------------------------------------

    def attention(self, heads: Collection[Head], slot: Callable[[Encoded], Sequence[int]]) -> dict[Head, PerPrompt]:
        """Return each head's attention from the answer position to the positions of `slot`, summed over them.

        Prompts run one length at a time, because the last column of a padded row is no answer position.
        """
        out = {head: np.full(len(self.encoded), np.nan) for head in heads}
        lengths = sorted({len(row.clean) for row in self.encoded})
        for length in lengths:
            rows = [i for i, row in enumerate(self.encoded) if len(row.clean) == length]
            patterns = attention_of_last(self.model, batch_of(self.encoded, rows, self.model.device).clean)
            for at, index in enumerate(rows):
                for head in heads:
                    to = patterns[head.layer, at, head.head, list(slot(self.encoded[index]))]
                    out[head][index] = float(to.sum())
        return out

    def noise(self, prompts: int = 8) -> float:
        """Return the largest change of the clean metric when prompts run alone instead of together."""
        first = max(self.batches, key=lambda batch: len(batch.indices))
        if len(first.indices) == 1:  # alone in its batch already: beside itself it is in another
            first = batch_of(self.encoded, first.indices * 2, self.model.device)
        together = self._logits(first, first.clean, first.clean_lengths)
        largest = 0.0
        for row, index in enumerate(first.indices[:prompts]):
            single, own = batch_of(self.encoded, [index], self.model.device), together[row : row + 1]
            alone = self._logits(single, single.clean, single.clean_lengths)
            change = read(self.metric, alone, own, single) - read(self.metric, own, own, single)
            largest = max(largest, abs(float(change[0])))
        return largest

    # -- one forward -----------------------------------------------------------------------------------------------

    def _logits(
        self, batch: Batch, ids: Tensor, lengths: Tensor, edits: Mapping[Site, Edit] | None = None
    ) -> Float[Tensor, "batch vocabulary"]:
        logits = self.model.forward(ids, lengths, edits=edits).logits
        finite = logits.isfinite().all(-1)
        if not bool(finite.all()):
            bad = [batch.indices[row] for row in (~finite).nonzero()[:, 0].tolist()]
            raise MeasurementError(
                f"{len(bad)} of {len(finite)} prompts give logits that are not finite on {self.model.name!r}, first "
                f"{self.encoded[bad[0]].pair.clean!r}.\n  A mean over the rest would hide it, so nothing is judged."
            )
        return logits

    def _read(self, index: int, batch: Batch, logits: Tensor) -> Tensor:
        return read(self.metric, logits, self._clean[index], batch)

    def _over(self, run: Callable[[int, Batch], Tensor]) -> PerPrompt:
        return self._gather([self._read(i, batch, run(i, batch)) for i, batch in enumerate(self.batches)])

    def _gather(self, parts: Sequence[Tensor]) -> PerPrompt:
        out = np.full(len(self.encoded), np.nan)
        for batch, part in zip(self.batches, parts, strict=True):
            out[list(batch.indices)] = part.double().cpu().numpy()
        return out


def _twins(batch: Batch) -> tuple[Tensor, Tensor]:
    if batch.corrupt is None or batch.corrupt_lengths is None:
        raise MeasurementError("these prompts have no corrupt twin: only zero and mean ablation exist for them.")
    return batch.corrupt, batch.corrupt_lengths


def _prompts(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Return the clean prompts of a batch and, where there are any, the corrupt ones."""
    clean = [(batch.clean, batch.clean_lengths)]
    return clean if batch.corrupt is None else [*clean, _twins(batch)]


def _replace(where: Tensor, value: Tensor) -> Edit:
    return lambda own: torch.where(where, value, own)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """Return the values of shape (batch, from, ...) at positions of shape (batch, to)."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, positions]


def _from_end(width: int, lengths: Tensor, beyond: int) -> Tensor:
    """Return each position's distance from its row's last token, shape (batch, width); padding is put at `beyond`."""
    back = lengths[:, None] - 1 - torch.arange(width, device=lengths.device)
    return torch.where(back < 0, beyond, back)

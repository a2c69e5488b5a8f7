"""Path patching: what a part does through chosen readers of the residual stream and through nothing else.

Two runs a sender, as Wang et al. (arXiv:2211.00593) and Goldowsky-Dill et al. (arXiv:2304.05969) define it. In the
first the sender takes its corrupt value and every other head keeps its clean one, so that the change reaches the
receivers directly, or through MLPs where these are free; what the receivers then have is noted. The second is the clean
run in which the receivers have that. Nothing is linearised: norms, rotations and shared keys act as the model has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.model import Site
from ..engine.metric import tokens_read
from ..engine.patches import Ablated, plan
from ..errors import MeasurementError
from .graph import reaches, receivers_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jaxtyping import Bool, Float

    from ..checkpoints.model import BoundModel, Edit, Forward
    from ..engine.batch import Batch
    from ..engine.runs import Runs
    from ..engine.unpatched import Unpatched
    from ..spec.components import Head, Mlp
    from ..spec.edges import Receiver


def path_effects(
    runs: Runs, senders: Sequence[Head | Mlp], receivers: Collection[Receiver], *, mlps: Literal["free", "frozen"]
) -> Float[np.ndarray, "senders prompts"]:
    """Return c - p: the metric that is lost when a sender's corrupt value reaches the answer through receivers only.

    Args:
        runs: the prompts; their ablation resamples, at the positions that it names.
        senders: each is patched by itself.
        receivers: the logits; or queries of heads, keys and values of key/value heads, which all heads that share them
            then read. They are replaced together.
        mlps: whether MLPs from the sender's layer on pass a change on, or keep their clean value as heads do.

    Raises:
        MeasurementError: the ablation does not resample, a receiver cannot be replaced, or a sender reaches none.
        InstrumentError: the receivers are queries, and the architecture has attention code of its own.
    """
    _refuse_other_values(runs)
    _refuse_receivers(runs.model, receivers)
    _refuse_unreached(senders, receivers)
    clean = runs.clean
    return np.asarray(clean - runs.with_room(lambda: _patched(runs, senders, tuple(receivers), mlps)))


def _patched(
    runs: Runs, senders: Sequence[Head | Mlp], receivers: tuple[Receiver, ...], mlps: Literal["free", "frozen"]
) -> Float[np.ndarray, "senders prompts"]:
    """Return p, the metric of the last run of each sender; senders of one layer share their forwards."""
    request = [Ablated(frozenset({sender})) for sender in senders]
    plans = [(batch, plan(request, rows=batch.rows, limit=runs.batch_size)) for batch in runs.batches]
    done, total = 0, sum(len(groups) for _, groups in plans)
    out = np.full((len(senders), len(runs.encoded)), np.nan)
    for batch, groups in plans:
        paths = _Paths(
            runs, batch, runs.plain(batch), receivers, mlps, min((group.layer for group in groups), default=0)
        )
        for group in groups:
            found = paths.metric(group.layer, [request[number] for number in group.patches])
            out[np.ix_(group.patches, batch.indices)] = found
            done += 1
            runs.watch("paths", done, total)
    return out


@dataclass(frozen=True)
class _Paths:
    """The runs of one batch, in which each prompt runs once for each sender of a layer; `lowest` is the first such."""

    runs: Runs
    batch: Batch
    plain: Unpatched
    receivers: tuple[Receiver, ...]
    mlps: Literal["free", "frozen"]
    lowest: int

    def metric(self, layer: int, patches: Sequence[Ablated]) -> Float[np.ndarray, "patches batch"]:
        """Return the metric of the last run of senders that lie in one layer."""
        read = self._read
        last = self._run(self._first(layer, patches), layer, len(patches), keep=read)
        if read:
            edits: dict[Site, Edit] = {site: partial(_noted, mask, last.values[site]) for site, mask in read.items()}
            last = self._run(edits, min(site.layer for site in read), len(patches))
        logits = last.logits.reshape(len(patches), self.batch.rows, -1)
        return self.runs.measured(self.batch, self.plain, logits)

    @cached_property
    def _read(self) -> Mapping[Site, Bool[Tensor, " units"]]:
        """The sites of the receivers, and which units of them are meant; none where the logits are."""
        units = {"q": self.runs.model.heads, "k": self.runs.model.groups, "v": self.runs.model.groups}
        masks: dict[Site, Tensor] = {}
        for one in self.receivers:
            if one.kind in ("q", "k", "v"):
                site = Site(one.kind, one.layer)
                masks.setdefault(site, torch.zeros(units[one.kind], dtype=torch.bool))[one.unit] = True
        return masks

    def _first(self, layer: int, patches: Sequence[Ablated]) -> dict[Site, Edit]:
        """Return the edits of the first run: each copy's sender is patched, and what is held keeps its clean value.

        Heads of the sender's own layer read nothing that it changes.
        """
        senders = self.runs.edits(self.batch, self.plain, patches)
        held = [site for site in self._held if site.layer > layer or (site.layer == layer and site.kind == "mlp")]
        return senders | {site: partial(_clean, self._clean[site], senders.get(site)) for site in held}

    @cached_property
    def _held(self) -> tuple[Site, ...]:
        kinds: tuple[Literal["z", "mlp"], ...] = ("z",) if self.mlps == "free" else ("z", "mlp")
        return tuple(Site(kind, layer) for kind in kinds for layer in range(self.lowest, self.runs.model.layers))

    @cached_property
    def _clean(self) -> Mapping[Site, Tensor]:
        return self._run({}, self.lowest, copies=1, keep=self._held).values

    def _run(self, edits: Mapping[Site, Edit], layer: int, copies: int, keep: Collection[Site] = ()) -> Forward:
        """Run the batch from a layer on, each prompt as often as there are copies."""
        return self.runs.model.forward(
            self.batch.clean,
            self.batch.clean_lengths,
            edits=edits,
            keep=keep,
            read=tokens_read(self.runs.metric, self.batch),
            known=self.plain.known(layer, copies),
        )


def _clean(value: Tensor, sender: Edit | None, own: Tensor) -> Tensor:
    """Return the clean value in every copy, but the sender's own in the copy that patches it."""
    held = value.repeat(len(own) // len(value), *[1] * (value.ndim - 1))
    return held if sender is None else sender(held)


def _noted(mask: Bool[Tensor, " units"], noted: Tensor, own: Tensor) -> Tensor:
    """Return queries, keys or values, (rows, seq, units, width), with some units as they were noted."""
    return torch.where(mask[:, None].to(own.device), noted, own)


def _refuse_other_values(runs: Runs) -> None:
    if runs.value != "resample":
        raise MeasurementError(
            f"path patching replaces a part by its value in the corrupt run, and this ablation is {runs.value!r}.\n"
            "  Another value would be another measure under its name. Write ablation.value: resample."
        )


def _refuse_receivers(model: BoundModel, receivers: Collection[Receiver]) -> None:
    known = set(receivers_of(model))
    if unknown := sorted(set(receivers) - known):
        raise MeasurementError(
            f"{str(unknown[0])!r} should be a receiver of {model.name!r}, which has {model.layers} layers with "
            f"{model.heads} heads and {model.groups} key/value heads each: queries are counted by head, keys and "
            "values by key/value head."
        )
    kinds = {receiver.kind for receiver in receivers}
    if "mlp" in kinds:
        raise MeasurementError(
            "paths into an MLP cannot be patched: what an MLP reads is no place where a value can be put.\n"
            "  Name what reads the MLP's output as the receiver, and the MLP as a sender."
        )
    if not kinds or ("logits" in kinds and len(kinds) > 1):
        named = ", ".join(sorted(map(str, receivers))) or "none"
        raise MeasurementError(
            f"the receivers should be the logits, or queries, keys and values, found {named}.\n"
            "  With the logits replaced nothing else reaches them. Ask for the two one after the other."
        )


def _refuse_unreached(senders: Sequence[Head | Mlp], receivers: Collection[Receiver]) -> None:
    for sender in senders:
        if not any(reaches(sender, receiver, parallel=False) for receiver in receivers):
            raise MeasurementError(
                f"{str(sender)!r} should come before one of the receivers {', '.join(sorted(map(str, receivers)))}, "
                "and comes before none.\n  Its effect through them would be 0 by construction. Name earlier senders."
            )

"""Effects of edges to first order: edge attribution patching (EAP), and EAP with integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.model import EMBED, Site
from ..checkpoints.ov import output_weight
from ..checkpoints.rounding import gap
from ..errors import InstrumentError
from .gradients import CLEAN, Points, by_point, differentiable, gauss_legendre
from .graph import is_parallel, reaches, receivers_of, senders_of
from .layouts import refuse_other_layout
from .nodes import STEPS, site_of
from .readers import Readers
from .twins import twins_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Bool, Float

    from ..engine.runs import Runs
    from ..spec.edges import Receiver, Sender
    from .readers import Place
    from .twins import Twins


Along = Literal["inputs", "activations"]
TOGETHER = 16
"""Prompts of a batch: each reader of a layer has a gradient as large as the residual stream, and they are many."""


@dataclass(frozen=True)
class Edges:
    """The effect of every edge of a model on every prompt, in the metric's unit: what ablating it costs.

    Attributes:
        senders: what writes.
        receivers: what reads.
        effects: NaN where the sender does not reach the receiver.
    """

    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]
    effects: Float[np.ndarray, "senders receivers prompts"]

    def of(self, sender: Sender, receiver: Receiver) -> Float[np.ndarray, " prompts"]:
        """Return the effect of one edge; ValueError where there is no such part."""
        return np.asarray(self.effects[self.senders.index(sender), self.receivers.index(receiver)])

    def __iter__(self) -> Iterator[tuple[Sender, Receiver]]:
        """Go through the edges, in the receivers' order."""
        there = ~np.isnan(self.effects[..., 0])
        return (
            (sender, receiver)
            for at, receiver in enumerate(self.receivers)
            for sender, is_edge in zip(self.senders, there[:, at], strict=True)
            if is_edge
        )

    def __len__(self) -> int:
        return int((~np.isnan(self.effects[..., 0])).sum())


def eap(runs: Runs) -> Edges:
    """Return (sender's own - ablated) . d metric / d what the receiver reads, at the clean run.

    Two forwards and a backward pass for all edges (Syed et al., arXiv:2310.10348).

    Raises:
        MeasurementError: the metric is flat at the clean run.
        PromptError: the architecture has no weights by which a head reads.
        InstrumentError: the edges of a sender do not add up to its own effect.
    """
    return _of_all(runs, CLEAN)


def eap_ig(runs: Runs, *, steps: int = STEPS, along: Along = "inputs") -> Edges:
    """Return `eap` with a mean gradient in the place of that at the clean run (Hanna et al., arXiv:2403.17806).

    Along "inputs", the gradient is averaged on the straight way of the embeddings from ablated to clean. Along
    "activations", each edge's is averaged on the way of what its layer's heads, or its MLP, put out: 2 x layers + 1
    times the cost, and what the edges of these together add up to becomes exact as steps grow.

    Gauss-Legendre points in the place of a left Riemann sum. All points of a prompt run side by side.
    """
    points = gauss_legendre(steps)
    return _of_all(runs, points) if along == "inputs" else _of_all(runs, points, runs.model.sites)


def _of_all(runs: Runs, points: Points, apart: Sequence[Site] = ()) -> Edges:
    """Return every edge; the sites `apart` are moved one after the other, each for its own edges."""
    senders, receivers = senders_of(runs.model), receivers_of(runs.model)
    refuse_other_layout(runs.model)
    parallel = is_parallel(runs.model)
    edge = torch.tensor([[reaches(one, other, parallel=parallel) for other in receivers] for one in senders])

    def run() -> Edges:
        """Begin anew, as is done where memory is out."""
        out = np.full((len(senders), len(receivers), len(runs.encoded)), np.nan, dtype=np.float32)
        for twins in twins_of(runs, runs.model.sites, copies=len(points), most=TOGETHER):
            for site in apart or (None,):
                found = _Contraction(twins, points, site).effects(edge)
                rows = [number for number, sender in enumerate(senders) if site in (None, site_of(sender)[0])]
                out[np.ix_(rows, range(len(receivers)), twins.batch.indices)] = found[rows]
            runs.watch("edges", int(np.isfinite(out[0, 0]).sum()), len(runs.encoded))
        return Edges(senders, receivers, out)

    return runs.with_room(run)


class _Contraction:
    """The edges of one batch, layer by layer of receivers: no more than one layer's gradients is taken apart at once.

    With a site given, that one is moved and the edges of what passes there are meant; else the embeddings are.
    """

    def __init__(self, twins: Twins, points: Points, site: Site | None = None) -> None:
        self.model, self.twins, self.copies, self.site = twins.runs.model, twins, len(points), site
        self.readers = Readers(self.model)
        sites, between = self.model.sites, [site or EMBED]
        graph = differentiable(twins, sites, points=points, between=between, seen=self.readers.watching())
        places = [*self.readers.tensors]
        found = graph.by([*(graph.own[site] for site in sites), *(self.readers.tensors[place] for place in places)])
        self.by_place: Mapping[Place, Tensor] = dict(zip(places, found[len(sites) :], strict=True))
        self.readers.tensors.clear()  # they hold on to the whole graph
        live = {site: value.detach() for site, value in graph.own.items()}
        clean = live if points is CLEAN else twins.clean.values
        self.changes = {site: clean[site] - twins.ablated(site, clean[site]) for site in sites}
        self.own = self._own_effects(dict(zip(sites, found, strict=False)))
        behind_norm = bool(self.model.architecture.attention_adds)
        self.live = {site: value for site, value in live.items() if behind_norm and site.kind == "z"}

    def effects(self, edge: Bool[Tensor, "senders receivers"]) -> Float[np.ndarray, "senders receivers batch"]:
        """Return what each sender changes, contracted with the gradient by what each receiver reads.

        Raises:
            InstrumentError: the edges of a sender do not add up to its own effect.
        """
        senders, receivers = senders_of(self.model), receivers_of(self.model)
        out = torch.zeros(len(senders), len(receivers), self.twins.batch.rows)
        for layer in range(self.model.layers + 1):
            at = [number for number, receiver in enumerate(receivers) if receiver.layer == layer]
            read = self._read(layer)
            for first, written in self._written(min(layer + 1, self.model.layers)):
                gradients = read[written.shape[1]]
                products = _in_a_row(written).to(gradients.device) @ gradients.mT
                out[first : first + len(written), at[0] : at[-1] + 1] = products.permute(1, 2, 0).cpu()
        out[~edge] = 0.0
        self._refuse_lost(out.sum(1))
        out[~edge] = torch.nan
        return np.asarray(out.numpy())

    def _read(self, layer: int) -> dict[int, Float[Tensor, "batch receivers features"]]:
        """Return the gradient by what each receiver of a layer reads, by the number of copies that a sender has.

        Where what a sender changes does not depend on the point, the gradients of all points are summed.
        """
        read = self.readers.pulled_back(layer, self.by_place)
        read = read.reshape(len(read), self.copies, -1, *read.shape[2:])
        each = {self.copies: _in_a_row(read)} if self.live or self.copies == 1 else {}
        return each if self.copies == 1 else {**each, 1: _in_a_row(read.sum(1, keepdim=True))}

    def _written(self, layers: int) -> Iterator[tuple[int, Float[Tensor, "senders copies batch seq width"]]]:
        """Yield what the embedding, and the senders of each of the first layers, change in the residual stream.

        With each goes the number of the first of them in `graph.senders_of`.
        """
        if self.site in (None, EMBED):
            yield 0, self.changes[EMBED][None, None]
        for layer in range(layers):
            first, heads, mlp = 1 + layer * (self.model.heads + 1), Site("z", layer), Site("mlp", layer)
            if self.site in (None, heads):
                yield first, self._heads_write(layer) * self.model.scale
            if self.site in (None, mlp):
                yield first + self.model.heads, self.changes[mlp][None, None] * self.model.scale

    def _heads_write(self, layer: int) -> Float[Tensor, "heads copies batch seq width"]:
        """Return what each head of a layer changes; a norm behind them is linearised where the gradient is taken."""
        site, row = Site("z", layer), self.model.architecture
        weights = output_weight(self.model, layer).to(self.changes[site])
        changed = torch.einsum("bshw,hwd->hbsd", self.changes[site], weights)[:, None]
        if not row.attention_adds:
            return changed
        norm, projection = self.model.part(layer, row.attention_adds), self.model.part(layer, row.projection)
        given = by_point(projection(self.live[site].flatten(2)), self.copies)
        shape = (self.model.heads, *given.shape)
        return _moved(norm, given.expand(shape), changed.expand(shape))

    def _own_effects(self, gradients: Mapping[Site, Tensor]) -> Float[Tensor, "senders batch"]:
        """Return each sender's own effect to first order; 0 for those that are not meant."""
        rows = []
        for sender in senders_of(self.model):
            site, unit = site_of(sender)
            if self.site not in (None, site):
                rows.append(torch.zeros(self.twins.batch.rows))
                continue
            gradient = by_point(gradients[site], self.copies).sum(0)
            product = gradient.float() * self.changes[site].float()
            rows.append((product if unit is None else product[:, :, unit]).sum((1, 2)).cpu())
        return torch.stack(rows)

    def _refuse_lost(self, found: Float[Tensor, "senders batch"]) -> None:
        """Raise unless the edges of each sender add up to its own effect: then none is missing."""
        largest, allowed = gap(found, self.own, self.model.dtype)
        if not largest <= allowed:
            raise InstrumentError(
                f"instrument: the edges of a part should add up to the part's own effect, and on {self.model.name!r} "
                f"they miss it by {largest:.3g} (allowed {allowed:.3g}).\n"
                "  An edge would stand for another. Please report the architecture; its heads can be attributed."
            )


def _moved(norm: Any, given: Float[Tensor, "*rows width"], by: Float[Tensor, "*rows width"]) -> Tensor:
    """Return what a norm's output changes, to first order, where its input does: the adjoint of its adjoint.

    torch's forward mode gives the same and warns of itself.
    """
    with torch.enable_grad():
        given = given.clone().requires_grad_()
        any_way = torch.zeros_like(given, requires_grad=True)
        (pulled,) = torch.autograd.grad(norm(given.view_as(given)), given, any_way, create_graph=True)
        (moved,) = torch.autograd.grad(pulled, any_way, by)
    return moved


def _in_a_row(of: Float[Tensor, "parts copies batch seq width"]) -> Float[Tensor, "batch parts features"]:
    """Return all numbers of each part on each prompt in a row, of all points, positions and features."""
    return of.float().permute(2, 0, 1, 3, 4).flatten(2)

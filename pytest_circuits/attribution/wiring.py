"""Runs in which each reader of the residual stream sees some senders live and the others ablated: circuits of edges.

An edge is live where its receiver reads what its sender puts out in this very run, and cut where it reads the sender's
ablated value. What a receiver reads is the live residual stream, less what its cut edges carried:

    r_R = stream - sum over cut (s -> R) of (s - ablated s)

Attention is taken apart behind this: each head's queries, and each key/value head's keys and values, are made of a
residual stream of their own, through the model's norm and their own weights. A norm behind the heads of a layer is
applied to what a receiver sees of them all, so nothing is linearised. With every edge live this is the clean run, with
none the run in which everything is ablated, the embedding too: the corrupt run, where values are resampled at every
position. So Hanna et al. (arXiv:2403.17806) define a circuit of edges.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.model import EMBED, Site
from ..checkpoints.ov import at_hand, maker, output_weight, read_weights
from ..checkpoints.rounding import gap, tolerance
from ..engine.metric import read, tokens_read
from ..engine.patches import Ablated
from ..errors import InstrumentError
from ..spec.components import Head, Mlp
from .graph import senders_of, wires_of
from .layouts import features_of, refuse_other_layout
from .readers import KINDS
from .twins import twins_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jaxtyping import Bool, Float

    from ..checkpoints.attention import Kind
    from ..checkpoints.model import Edit
    from ..engine.runs import Runs
    from ..spec.edges import Sender
    from .graph import Wires
    from .twins import Twins

HELD = 2**28
"""Numbers of what senders change that are held at once, at most: each has a row of the residual stream's size."""


def wired(
    runs: Runs, live: Sequence[Bool[np.ndarray, "senders receivers"]], *, what: str = "edges"
) -> Float[np.ndarray, "circuits prompts"]:
    """Return the metric of the clean run in which only these edges are live, for each circuit of edges.

    Args:
        runs: the prompts and their ablation.
        live: of each circuit, by the places in `wires_of`; what is no edge is not looked at.
        what: is told to who watches.

    Raises:
        PromptError: the architecture has no weights by which a head reads.
        InstrumentError: all edges together are not the clean run; a sender without edges is not the sender ablated.
        MeasurementError: logits are not finite, or not even one row fits into memory.
    """
    refuse_other_layout(runs.model)
    wires = wires_of(runs.model)
    request = torch.from_numpy(
        np.stack([*live, wires.edges, *(wires.edges & ~_of(wires, parts) for parts in _checked(wires))])
    )
    copies = len(request)

    def run() -> Float[np.ndarray, "circuits prompts"]:
        out = np.full((copies, len(runs.encoded)), np.nan)
        for twins in twins_of(runs, runs.model.sites, most=_rows(runs)):
            twins.prepare()
            together = max(1, _rows(runs) // twins.batch.rows)
            for at in range(0, copies, together):
                some = request[at : at + together]
                out[at : at + len(some), list(twins.batch.indices)] = _Wired(twins, wires, some).metric()
            runs.watch(what, int(np.isfinite(out[-1]).sum()), len(runs.encoded))
        return out

    found = runs.with_room(run)
    _refuse_other_runs(runs, wires, found[len(live) :])
    return np.asarray(found[: len(live)])


def _rows(runs: Runs) -> int:
    """Return how many rows run side by side: as many as what their senders change can be held of."""
    longest = max(len(row.clean) for row in runs.encoded)
    width = output_weight(runs.model, 0).shape[-1]
    numbers = len(senders_of(runs.model)) * longest * width
    return max(1, min(runs.batch_size, HELD // numbers))


def _checked(wires: Wires) -> tuple[tuple[Head | Mlp, ...], ...]:
    """Return senders without whose edges the run must be the one in which they are ablated: a head, and all MLPs."""
    return (Head(0, 0),), tuple(sender for sender in wires.senders if isinstance(sender, Mlp))


def _of(wires: Wires, senders: Collection[Sender]) -> Bool[np.ndarray, "senders receivers"]:
    rows = np.array([sender in senders for sender in wires.senders])
    return np.asarray(rows[:, None] & wires.edges)


def _refuse_other_runs(runs: Runs, wires: Wires, found: Float[np.ndarray, "checks prompts"]) -> None:
    """Raise unless all edges live are the clean run, and senders without their edges are these senders ablated."""
    expected = [runs.clean, *runs.sweep("edges checked", [Ablated(frozenset(parts)) for parts in _checked(wires)])]
    told = ("every edge", *(f"all edges but those of {', '.join(map(str, parts))}" for parts in _checked(wires)))
    for name, one, other in zip(told, found, expected, strict=True):
        largest, allowed = gap(torch.from_numpy(one), torch.from_numpy(other), runs.model.dtype)
        if not largest <= allowed:
            raise InstrumentError(
                f"instrument: with {name} live the run of {runs.model.name!r} should be "
                f"{'the clean one' if other is runs.clean else 'the one in which these are ablated'}, and differs by "
                f"{largest:.3g} (allowed {allowed:.3g}).\n"
                "  An edge would carry something else. In half precision, try float32; else please report the "
                "architecture: its heads can be measured."
            )


class _Wired:
    """One forward in which a batch runs once for each circuit, and what its senders change on the way."""

    def __init__(self, twins: Twins, wires: Wires, live: Bool[Tensor, "copies senders receivers"]) -> None:
        self.twins, self.wires, self.model, self.copies = twins, wires, twins.runs.model, len(live)
        self.cut = (~live & torch.from_numpy(wires.edges)).transpose(1, 2)  # copies, receivers, senders
        self.changed: Tensor | None = None  # senders, copies, features of all rows; what is behind a norm is left 0
        self.known = 0
        self.normed: list[_Normed] = []

    def metric(self) -> Float[np.ndarray, "copies batch"]:
        """Run, and return the metric of each circuit."""
        runs, batch = self.twins.runs, self.twins.batch
        edits: dict[Site, Edit] = {site: partial(self._seen, site) for site in self.model.sites}
        with self._rewired():
            logits = self.model.forward(
                batch.clean,
                batch.clean_lengths,
                edits=edits,
                read=tokens_read(runs.metric, batch),
                known=replace(self.twins.known, copies=self.copies),
            ).logits
        own = self.twins.clean.logits
        each = logits.reshape(self.copies, batch.rows, -1)
        return np.stack([read(runs.metric, runs.finite(batch, one), own, batch).double().cpu().numpy() for one in each])

    # -- what senders change -------------------------------------------------------------------------------------------

    def _seen(self, site: Site, own: Tensor) -> Tensor:
        """Note how what passes at a sender's site differs from its ablated value; it passes as it is."""
        apart = own.reshape(self.copies, -1, *own.shape[1:])
        changed = torch.cat([one - self.twins.ablated(site, one) for one in apart])
        first = 0 if site == EMBED else 1 + site.layer * (self.model.heads + 1)
        if site.kind == "z":
            self._note_heads(site.layer, first, own, changed)
        elif site.kind == "mlp":
            self._note(first + self.model.heads, changed[None] * self.model.scale)
        else:
            self._note(first, changed[None])
        return own

    def _note(self, first: int, changed: Float[Tensor, "some rows seq width"]) -> None:
        """Keep what some senders change beside what earlier ones do: one product then tells what a cut edge carried."""
        if self.changed is None:
            self.changed = changed.new_zeros(len(self.wires.senders), self.copies, changed[0].numel() // self.copies)
        self.changed[first : first + len(changed)] = changed.reshape(len(changed), self.copies, -1)
        self.known = max(self.known, first + len(changed))

    def _note_heads(self, layer: int, first: int, own: Tensor, changed: Tensor) -> None:
        """Keep what the heads of a layer change, from z and its difference to its ablated value."""
        row = self.model.architecture
        written = torch.einsum("bshw,hwd->hbsd", changed, output_weight(self.model, layer).to(changed))
        if not row.attention_adds:
            self._note(first, written * self.model.scale)
            return
        projected = self.model.part(layer, row.projection).forward(own.flatten(2))
        norm = self.model.part(layer, row.attention_adds)
        self.normed.append(_Normed(first, written, norm, projected, self.model.scale))
        self.known = max(self.known, first + len(written))

    def _cut_off(
        self, receivers: slice, stream: Float[Tensor, "rows seq width"]
    ) -> Float[Tensor, "receivers rows seq width"]:
        """Return what each of the receivers reads of a live residual stream: less what its cut edges carried."""
        assert self.changed is not None
        cut = self.cut[:, receivers, : self.known].to(self.changed)
        lost = torch.einsum("cru,ucf->rcf", cut, self.changed[: self.known])
        lost = lost.reshape(cut.shape[1], *stream.shape).to(stream.device)
        for source in self.normed:
            of_source = self.cut[:, receivers, source.first : source.first + len(source.changed)]
            if bool(of_source.any()):
                lost = lost + source.carried(of_source, self.copies, nothing=self._nothing).to(stream.device)
        read = stream.float() - lost.float()
        if self._nothing:
            read = _not_rounding(read, stream.float().abs() + lost.float().abs(), stream.dtype)
        return read.to(stream.dtype)

    @property
    def _nothing(self) -> bool:
        """Whether nothing at all may be left of what is read: where values are replaced by zeros."""
        return self.twins.runs.value == "zero"

    # -- what receivers read -------------------------------------------------------------------------------------------

    @contextmanager
    def _rewired(self) -> Iterator[None]:
        """Give each receiver what it reads, in the forward that runs meanwhile."""
        row, blocks = self.model.architecture, self.model.blocks
        with ExitStack() as stack:
            for layer in range(self.model.layers):
                streams: dict[str, Tensor] = {}
                stack.enter_context(blocks[layer].register_forward_pre_hook(partial(_noted, streams), with_kwargs=True))
                for module, kinds in self._makers(layer):
                    hook = partial(self._make, layer, kinds, streams)
                    stack.enter_context(module.register_forward_hook(hook))
                before_mlp = self.model.part(layer, row.mlp_norm or row.mlp)
                stack.enter_context(before_mlp.register_forward_pre_hook(partial(self._into_mlp, layer)))
            stack.enter_context(blocks[-1].register_forward_hook(self._into_logits))
            yield

    def _makers(self, layer: int) -> list[tuple[Any, tuple[Kind, ...]]]:
        """Return the modules that make a layer's queries, keys and values, each with what it makes."""
        modules = {kind: maker(self.model, layer, kind) for kind in KINDS}
        if modules["q"] is modules["v"]:
            return [(modules["q"], KINDS)]
        return [(module, (kind,)) for kind, module in modules.items()]

    def _make(
        self, layer: int, kinds: Sequence[Kind], streams: Mapping[str, Tensor], module: Any, _: Any, output: Tensor
    ) -> Tensor:
        """Return the queries, keys and values that a layer's heads make of what each of them reads."""
        row, stream = self.model.architecture, streams["into"]
        made = output.reshape(*stream.shape[:-1], -1).clone()
        for kind in kinds:
            read = self._cut_off(self._place(layer, kind), stream)
            if row.attention_norm:  # not called: a hook of the MLP's may stand on the same norm
                read = self.model.part(layer, row.attention_norm).forward(read)
            weights, features = read_weights(self.model, layer, kind), features_of(self.model, layer, kind)
            own = torch.einsum("ubsd,uwd->bsuw", read, weights.to(read))
            if getattr(module, "bias", None) is not None:
                own = own + at_hand(module, "bias")[features.to(module.bias.device)].to(own)
            made[..., features.flatten()] = own.flatten(2)
        return made.reshape(output.shape)

    def _into_mlp(self, layer: int, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        stream = args[0].reshape(self.copies * self.twins.batch.rows, -1, args[0].shape[-1])
        read = self._cut_off(self._place(layer, "mlp"), stream)[0]
        return (read.reshape(args[0].shape), *args[1:])

    def _into_logits(self, _: Any, args: Any, output: Any) -> Any:
        stream = output if isinstance(output, Tensor) else output[0]
        read = self._cut_off(self._place(self.model.layers, "logits"), stream)[0]
        return read if isinstance(output, Tensor) else (read, *output[1:])

    def _place(self, layer: int, kind: str) -> slice:
        """Return where in the receivers' order those of a layer and a kind stand."""
        at = [n for n, one in enumerate(self.wires.receivers) if (one.layer, one.kind) == (layer, kind)]
        return slice(at[0], at[-1] + 1)


def _noted(streams: dict[str, Tensor], _: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    streams["into"] = args[0] if args else kwargs["hidden_states"]


def _not_rounding(
    left: Float[Tensor, "*rows width"], size: Float[Tensor, "*rows width"], dtype: torch.dtype
) -> Float[Tensor, "*rows width"]:
    """Return what is left of a sum: nothing where every feature is rounding, of which a norm would make a loud value.

    Rounding is small beside the sizes of what was added up, in that very feature or in most: single ones may be far
    larger than all others.
    """
    rounding = tolerance(dtype) * (size + size.median(-1, keepdim=True).values)
    nothing = (left.abs() <= rounding).all(-1, keepdim=True)
    return torch.where(nothing, 0.0, left)


@dataclass(frozen=True)
class _Normed:
    """What the heads of one layer change where a norm stands behind them: each receiver sees it through the norm.

    Attributes:
        first: the first of these heads in `graph.senders_of`.
        changed: live less ablated, as it goes into the norm.
        norm: the module.
        given: what goes into it live.
        scale: what it puts out is multiplied with this.
    """

    first: int
    changed: Float[Tensor, "senders rows seq width"]
    norm: Any
    given: Float[Tensor, "rows seq width"]
    scale: float

    def carried(
        self, cut: Bool[Tensor, "copies receivers senders"], copies: int, *, nothing: bool
    ) -> Float[Tensor, "receivers rows seq width"]:
        """Return what each receiver must do without; `nothing` says that nothing may be left in front of the norm."""
        apart = self.changed.reshape(len(self.changed), copies, -1, *self.changed.shape[2:])
        lost = torch.einsum("crh,hcbsd->rcbsd", cut.to(apart), apart).flatten(1, 2)
        given = self.given.expand_as(lost)
        left = given - lost
        if nothing:
            left = _not_rounding(left, given.abs() + lost.abs(), given.dtype)
        carried: Tensor = (self.norm.forward(given) - self.norm.forward(left)) * self.scale
        return carried

"""The names of edges: `L5H5 -> L7H3.k`, `embed -> L0H1.q`, `L9.mlp -> logits`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .components import Embedding, Head, KeyValue, Mlp, parse_component

if TYPE_CHECKING:
    from collections.abc import Mapping

Sender = Embedding | Head | Mlp
"""What adds to the residual stream."""
Reads = Literal["q", "k", "v", "mlp", "logits"]


@dataclass(frozen=True, order=True)
class Receiver:
    """What reads from the residual stream: a head's queries, a key/value head's keys or values, an MLP, the logits.

    `unit` counts query heads for `q` and key/value heads for `k` and `v`; it is 0 for MLPs and logits. The logits stand
    in a layer of their own, behind the last. Key/value heads that no heads share are called by their head's name.
    """

    layer: int
    kind: Reads
    unit: int = 0
    shared: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        if self.kind == "logits":
            return "logits"
        if self.kind == "mlp":
            return f"L{self.layer}.mlp"
        return f"L{self.layer}{'KV' if self.shared and self.kind != 'q' else 'H'}{self.unit}.{self.kind}"


@dataclass(frozen=True, order=True)
class Edge:
    """One way through the residual stream: what a sender adds there, as one receiver reads it."""

    sender: Sender
    receiver: Receiver

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"


_READER = re.compile(r"(?P<part>.+?)(?:\.(?P<dotted>[qkv])|<(?P<angled>[qkv])>)", re.IGNORECASE)
_HOOK = re.compile(
    r"blocks\.(?P<layer>[0-9]{1,4})\."
    r"(?:(?:attn\.)?hook_(?P<kind>[qkv])_input\[(?::, ?:, ?)?(?P<head>[0-9]{1,4})\]"
    r"|(?P<mlp>hook_mlp_in|hook_resid_mid)(?:\[:\])?"
    r"|(?P<last>hook_resid_post)(?:\[:\])?)"
)
_START = re.compile(r"input|Resid Start|hook_embed|blocks\.0\.hook_resid_pre(?:\[:\])?")
_KINDS: Mapping[str, Reads] = {"q": "q", "k": "k", "v": "v"}
_FORM = "an edge is written sender -> receiver, as L5H5 -> L7H3.k, embed -> L0H1.q or L9.mlp -> logits"


def parse_edge(text: str, layers: int) -> Edge:
    """Read the name of an edge of a model with so many layers; `str()` of what is returned is its canonical form.

    Also read are the names of EAP-IG (`a5.h5->a7.h3<k>`, `input->m0`), of auto-circuit (`A5.5->A7.3.K`,
    `Resid Start->MLP 0`), and the hooks of TransformerLens and of ACDC between which an edge leads
    (`blocks.5.attn.hook_z[5] -> blocks.7.hook_k_input[3]`, `blocks.9.hook_mlp_out[:] -> blocks.11.hook_resid_post[:]`).

    Raises:
        ValueError: the text names no edge, or one that leads to where its sender does not reach.
    """
    names = [name.strip() for name in text.split("->")]
    if len(names) != 2:
        raise ValueError(f"{text!r} names no edge; {_FORM}")
    edge = Edge(_sender(names[0], text), _receiver(names[1], text, layers))
    if not isinstance(edge.sender, Embedding) and not _reaches(edge.sender, edge.receiver):
        raise ValueError(
            f"{edge} leads nowhere: what {edge.sender} writes is read by later layers"
            f"{' and by the MLP of its own' if isinstance(edge.sender, Head) else ''}; is it the other way round?"
        )
    return edge


def _sender(name: str, text: str) -> Sender:
    if _START.fullmatch(name):
        return Embedding()
    part = parse_component(name)
    if isinstance(part, (Head, Mlp, Embedding)):
        return part
    raise ValueError(f"in {text!r}, {name!r} is no single sender; name a head, an MLP or embed")


def _receiver(name: str, text: str, layers: int) -> Receiver:
    if name in ("logits", "Resid End"):
        return Receiver(layers, "logits")
    if hook := _HOOK.fullmatch(name):
        return _at_hook(hook, text, layers)
    if match := _READER.fullmatch(name):
        part = parse_component(match["part"])
        kind = _KINDS[(match["dotted"] or match["angled"]).lower()]
        if isinstance(part, Head):
            return Receiver(part.layer, kind, part.head, shared=False)
        if isinstance(part, KeyValue) and kind != "q":
            return Receiver(part.layer, kind, part.group)
        raise ValueError(f"in {text!r}, {str(part)!r} has no {kind}; heads have q, k and v, key/value heads k and v")
    part = parse_component(name)
    if isinstance(part, Mlp):
        return Receiver(part.layer, "mlp")
    if isinstance(part, (Head, KeyValue)):
        raise ValueError(
            f"in {text!r}, {name!r} does not say what the head reads; write {part}.q, {part}.k or {part}.v"
            if isinstance(part, Head)
            else f"in {text!r}, {name!r} does not say what is read; write {part}.k or {part}.v"
        )
    raise ValueError(f"in {text!r}, {name!r} reads nothing as one; name what a head reads, an MLP or logits")


def _at_hook(hook: re.Match[str], text: str, layers: int) -> Receiver:
    """Return what reads at a hook of TransformerLens; behind the last layer those are the logits."""
    layer = int(hook["layer"])
    if hook["kind"]:
        return Receiver(layer, _KINDS[hook["kind"]], int(hook["head"]), shared=False)
    if hook["mlp"]:
        return Receiver(layer, "mlp")
    if layer != layers - 1:
        raise ValueError(
            f"in {text!r}, {hook[0]!r} is behind layer {layer}, where all later layers read, and only behind the last, "
            f"{layers - 1}, the logits alone; name what reads"
        )
    return Receiver(layers, "logits")


def _reaches(sender: Head | Mlp, receiver: Receiver) -> bool:
    same = sender.layer == receiver.layer and isinstance(sender, Head) and receiver.kind == "mlp"
    return sender.layer < receiver.layer or same

"""The types of the names in a spec: parts of the model in their canonical form, slots, and what people call things."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from .components import Attention, Embedding, Head, KeyValue, Layer, Mlp, Named, parse_component
from .edges import parse_edge


def _named(text: str, info: ValidationInfo, kinds: tuple[type[Named], ...], expected: str) -> str:
    """Return the canonical name of a part of one of the `kinds`, inside the model whose size the context tells."""
    part = parse_component(text)
    if isinstance(part, KeyValue):
        raise ValueError(
            f"{text!r} names a key/value head, which only prepares what query heads put out, and a circuit is made of "
            "what is added to the residual stream; name the query heads that share it, such as L9H10"
        )
    if not isinstance(part, kinds):
        raise ValueError(f"{text!r} names something else; here only {expected}")
    _refuse_outside(str(part), {"layer": getattr(part, "layer", 0), "head": getattr(part, "head", 0)}, info)
    return str(part)


def _refuse_outside(name: str, indices: dict[str, int], info: ValidationInfo) -> None:
    """Raise where a part is outside the model whose size the context tells."""
    size: dict[str, int] = info.context or {}
    for axis, limit in size.items():
        if indices[axis[:-1]] >= limit:
            last = limit - 1
            raise ValueError(f"{name} is outside the model: model.{axis} is {limit}, so they count from 0 to {last}")


def _edge(text: str, info: ValidationInfo) -> str:
    edge = parse_edge(text, (info.context or {}).get("layers", MOST_LAYERS))
    sender, receiver = edge.sender, edge.receiver
    if not isinstance(sender, Embedding):
        _refuse_outside(str(sender), {"layer": sender.layer, "head": getattr(sender, "head", 0)}, info)
    if receiver.kind != "logits":
        _refuse_outside(str(receiver), {"layer": receiver.layer, "head": receiver.unit}, info)
    return str(edge)


MOST_LAYERS = 10_000
"""Where the model's size is not known, the logits stand behind so many layers."""


def _head(text: str, info: ValidationInfo) -> str:
    return _named(text, info, (Head, Attention), "a head such as L9H10, or all heads of a layer, L9.attn")


def _mlp(text: str, info: ValidationInfo) -> str:
    return _named(text, info, (Mlp,), "an MLP such as L9.mlp")


def _layer(text: str, info: ValidationInfo) -> str:
    return _named(text, info, (Layer,), "a whole layer such as L9")


def _slot_name(name: str) -> str:
    if name in ("all", "last"):
        raise ValueError(f"a slot cannot be called {name!r}: ablation.positions gives that word another meaning")
    return name


HeadName = Annotated[str, AfterValidator(_head), Field(examples=["L9H10", "L9.attn"])]
MlpName = Annotated[str, AfterValidator(_mlp), Field(examples=["L9.mlp"])]
LayerName = Annotated[str, AfterValidator(_layer), Field(examples=["L9"])]
EdgeName = Annotated[str, AfterValidator(_edge), Field(examples=["L5H5 -> L7H3.k", "L9.mlp -> logits"])]
Text = Annotated[str, Field(min_length=1)]
Identifier = Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_-]*$")]
SlotName = Annotated[Identifier, AfterValidator(_slot_name)]
TemplateId = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]

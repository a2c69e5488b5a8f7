"""The types of the names in a spec: parts of the model in their canonical form, slots, and what people call things."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from .components import Attention, Head, KeyValue, Layer, Mlp, Named, parse_component


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
    size: dict[str, int] = info.context or {}
    for axis, limit in size.items():
        index = getattr(part, axis[:-1], 0)
        if index >= limit:
            last = limit - 1
            raise ValueError(f"{part} is outside the model: model.{axis} is {limit}, so they count from 0 to {last}")
    return str(part)


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
Text = Annotated[str, Field(min_length=1)]
Identifier = Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_-]*$")]
SlotName = Annotated[Identifier, AfterValidator(_slot_name)]
TemplateId = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]

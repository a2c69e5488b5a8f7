"""The names of a model's parts: a head `L9H10`, an MLP `L9.mlp`, all heads `L9.attn`, a layer `L9`, `embed`."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Head:
    """A query head: the slice of its layer's output projection's input."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True, order=True)
class Mlp:
    """The MLP of a layer: what it adds to the residual stream."""

    layer: int

    def __str__(self) -> str:
        return f"L{self.layer}.mlp"


@dataclass(frozen=True, order=True)
class KeyValue:
    """A key/value head, which a group of query heads shares."""

    layer: int
    group: int

    def __str__(self) -> str:
        return f"L{self.layer}KV{self.group}"


Component = Head | Mlp


@dataclass(frozen=True, order=True)
class Attention:
    """All heads of a layer."""

    layer: int

    def __str__(self) -> str:
        return f"L{self.layer}.attn"


@dataclass(frozen=True, order=True)
class Layer:
    """A whole layer: all its heads and its MLP."""

    layer: int

    def __str__(self) -> str:
        return f"L{self.layer}"


@dataclass(frozen=True, order=True)
class Embedding:
    """The token and position embeddings."""

    def __str__(self) -> str:
        return "embed"


Named = Head | Mlp | KeyValue | Attention | Layer | Embedding
"""What a name can stand for; a spec expands the last three into heads and MLPs."""

_N = "([0-9]{1,4})"
_FORMS: tuple[tuple[type[Head | Mlp | KeyValue | Attention | Layer], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(form, re.IGNORECASE))
    for kind, form in (
        (Head, f"L{_N}H{_N}"),
        (Head, rf"A{_N}\.H?{_N}"),
        (Head, rf"blocks\.{_N}\.attn\.hook_(?:z|result)\[(?::, ?:, ?)?{_N}\]"),
        (Head, rf"{_N}\.{_N}"),
        (Mlp, rf"L{_N}\.mlp"),
        (Mlp, f"(?:MLP ?|M){_N}"),
        (Mlp, rf"blocks\.{_N}\.hook_mlp_out(?:\[:\])?"),
        (KeyValue, f"L{_N}KV{_N}"),
        (Attention, rf"L{_N}\.attn"),
        (Layer, f"L{_N}"),
    )
)


def parse_component(text: str) -> Named:
    """Read the name of a part; `str()` of what is returned is its canonical form.

    Heads: `L9H10`, also `a9.h10`, `A9.10`, `blocks.9.attn.hook_z[10]`, `blocks.9.attn.hook_result[:, :, 10]` and `9.10`
    (a text, never a YAML number). MLPs: `L9.mlp`, also `m9`, `MLP 9` and `blocks.9.hook_mlp_out`. Key/value heads:
    `L9KV3`. All heads of a layer: `L9.attn`. A whole layer: `L9`. `embed`.

    Raises:
        ValueError: the text names no part; the message says which forms are read.
    """
    for kind, form in _FORMS:
        if match := form.fullmatch(text):
            return kind(*map(int, match.groups()))
    if text == "embed":
        return Embedding()
    raise ValueError(
        f"{text!r} names no part of a model; a head is written L9H10, an MLP L9.mlp, "
        "all heads of a layer L9.attn, a whole layer L9"
    )

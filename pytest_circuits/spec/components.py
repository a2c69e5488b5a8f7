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


Named = Head | Mlp | Attention | Layer | Embedding
"""What a name can stand for; a spec expands the last three into heads and MLPs."""

_N = "([0-9]{1,4})"
_FORMS: tuple[tuple[type[Head] | type[Mlp] | type[Attention] | type[Layer], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(form, re.IGNORECASE))
    for kind, form in (
        (Head, f"L{_N}H{_N}"),
        (Head, rf"A{_N}\.H?{_N}"),
        (Head, rf"blocks\.{_N}\.attn\.hook_z\[{_N}\]"),
        (Head, rf"{_N}\.{_N}"),
        (Mlp, rf"L{_N}\.mlp"),
        (Mlp, f"(?:MLP ?|M){_N}"),
        (Attention, rf"L{_N}\.attn"),
        (Layer, f"L{_N}"),
    )
)
_KEY_VALUE_HEAD = re.compile(f"L{_N}KV{_N}", re.IGNORECASE)


def parse_component(text: str) -> Named:
    """Read the name of a part; `str()` of what is returned is its canonical form.

    Heads: `L9H10`, also `a9.h10`, `A9.10`, `blocks.9.attn.hook_z[10]` and `9.10` (a text, never a YAML number).
    MLPs: `L9.mlp`, also `m9` and `MLP 9`. All heads of a layer: `L9.attn`. A whole layer: `L9`. `embed`.

    Raises:
        ValueError: the text names no part; the message says which forms are read.
    """
    for kind, form in _FORMS:
        if match := form.fullmatch(text):
            return kind(*map(int, match.groups()))
    if text == "embed":
        return Embedding()
    if _KEY_VALUE_HEAD.fullmatch(text):
        raise ValueError(
            f"{text!r} names a key/value head, and what replacing one means is not defined yet; "
            "name the query heads that share it, such as L9H10"
        )
    raise ValueError(
        f"{text!r} names no part of a model; a head is written L9H10, an MLP L9.mlp, "
        "all heads of a layer L9.attn, a whole layer L9"
    )

"""What a patched run replaces, and which patches share a forward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.model import EMBED, Edit, Site
from ..spec.components import Head, KeyValue, Mlp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool

    from ..checkpoints.model import BoundModel

Part = Head | Mlp | KeyValue


@dataclass(frozen=True)
class Ablated:
    """What an ablation takes out of a forward: heads, MLPs, key/value heads, and the embedding where it is named.

    Keys and values are replaced as attention gets them: all query heads that share them read the replaced ones.
    """

    parts: frozenset[Part]
    embedding: bool = False

    @property
    def layer(self) -> int:
        """The lowest layer that is touched; nothing below it changes."""
        return 0 if self.embedding else min((part.layer for part in self.parts), default=0)


@dataclass(frozen=True)
class Group:
    """Patches, by their number in a request, that run in one forward from one layer on."""

    layer: int
    patches: tuple[int, ...]


def plan(request: Sequence[Ablated], *, rows: int, limit: int) -> list[Group]:
    """Return the forwards that a request takes on a batch of so many rows, each of at most `limit` rows.

    Patches whose lowest layers differ run apart, so that none runs a layer that it does not change.
    """
    together = max(1, limit // rows)
    groups = []
    for layer, same in groupby(sorted(range(len(request)), key=lambda i: request[i].layer), lambda i: request[i].layer):
        numbers = list(same)
        groups += [Group(layer, tuple(numbers[at : at + together])) for at in range(0, len(numbers), together)]
    return groups


def edits_of(
    patches: Sequence[Ablated], model: BoundModel, where: Bool[Tensor, "rows seq"], value: Callable[[Site], Tensor]
) -> dict[Site, Edit]:
    """Return what replaces each site in a forward of len(patches) x rows rows, patch by patch.

    Args:
        patches: what each of them replaces.
        model: which has so many heads and groups.
        where: the positions that are replaced, in each row.
        value: the ablated value of a site, of shape (rows, seq, ...) or a number's.
    """
    touched: dict[Site, Tensor] = {}
    for number, patch in enumerate(patches):
        for site, unit in _sites(patch):
            units = {"z": model.heads, "k": model.groups, "v": model.groups}.get(site.kind, 1)
            mask = touched.setdefault(site, torch.zeros(len(patches), units, dtype=torch.bool))
            mask[number, unit] = True
    return {site: partial(_replace, mask, where, value(site)) for site, mask in touched.items()}


def _sites(patch: Ablated) -> list[tuple[Site, int]]:
    """Return each site that a patch touches, with the head or group that it replaces there."""
    found = [(EMBED, 0)] if patch.embedding else []
    for part in patch.parts:
        if isinstance(part, Head):
            found.append((Site("z", part.layer), part.head))
        elif isinstance(part, Mlp):
            found.append((Site("mlp", part.layer), 0))
        else:
            found += [(Site("k", part.layer), part.group), (Site("v", part.layer), part.group)]
    return found


def _replace(
    mask: Bool[Tensor, "patches units"], where: Bool[Tensor, "rows seq"], value: Tensor, own: Tensor
) -> Tensor:
    """Return the site's own value (patches x rows, seq, [units,] width) with the masked units replaced at `where`."""
    apart = own.reshape(len(mask), len(where), *own.shape[1:])
    units = mask if own.ndim == 4 else mask[:, 0]
    chosen = _spread(units, (0, 3), apart.ndim) if own.ndim == 4 else _spread(units, (0,), apart.ndim)
    chosen = chosen.to(own.device) & _spread(where, (1, 2), apart.ndim).to(own.device)
    return torch.where(chosen, value.to(own.device), apart).flatten(0, 1)


def _spread(tensor: Tensor, axes: tuple[int, ...], ndim: int) -> Tensor:
    """Return a view whose axes are `axes` of `ndim`, the others being 1 long."""
    shape = [1] * ndim
    for axis, size in zip(axes, tensor.shape, strict=True):
        shape[axis] = size
    return tensor.reshape(shape)

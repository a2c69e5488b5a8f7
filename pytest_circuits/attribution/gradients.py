"""The metric's gradient where parts pass: at the clean run, or averaged on the way from the ablated one to it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.model import EMBED, Site
from ..engine.metric import read, tokens_read
from ..errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from jaxtyping import Float

    from ..checkpoints.model import Edit
    from .twins import Twins


@dataclass(frozen=True)
class Points:
    """Where gradients are taken, from the ablated value (0) to the clean one (1), and how much each of them counts."""

    at: tuple[float, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.at)


CLEAN = Points((1.0,), (1.0,))


def gauss_legendre(steps: int) -> Points:
    """Return the points that integrate any polynomial below degree 2 x steps exactly, the ends not among them.

    The literature takes a left Riemann sum, whose error falls with 1/steps only.
    """
    at, weights = np.polynomial.legendre.leggauss(steps)
    return Points(tuple((at + 1) / 2), tuple(weights / 2))


@dataclass
class Differentiable:
    """A forward whose metric can be differentiated by what passed.

    Attributes:
        total: the metric summed over the prompts, and over the points by their weights.
        own: what passed at each site, (points x batch, seq, ...).
        dropped: a layer through which no gradient passes: what its heads and MLP add counts as constant.
    """

    total: Tensor
    own: Mapping[Site, Tensor]
    dropped: list[int | None]

    def by(self, tensors: Sequence[Tensor], *, again: bool = False) -> list[Tensor]:
        """Return the total's gradient by each tensor: per prompt, because prompts do not see each other.

        It is 0 by what lies in front of where the graph begins. `again` keeps what another backward pass needs.
        """
        asked = [tensor for tensor in tensors if tensor.requires_grad]
        found = iter(torch.autograd.grad(self.total, asked, retain_graph=again, allow_unused=True))
        gradients = [next(found) if tensor.requires_grad else None for tensor in tensors]
        return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]


def differentiable(
    twins: Twins,
    sites: Collection[Site],
    *,
    points: Points = CLEAN,
    between: Collection[Site] = (EMBED,),
    seen: AbstractContextManager[object] | None = None,
) -> Differentiable:
    """Run the clean prompts with a graph from `between` on, once for each point side by side.

    Args:
        twins: the prompts, and the ablated values.
        sites: those whose gradient will be asked for.
        points: how far `between` is from its ablated value; at `CLEAN` all is the clean run.
        between: the sites that are moved.
        seen: what watches modules while the forward runs.

    Raises:
        MeasurementError: the metric is flat at the clean run; logits are not finite.
    """
    runs, batch = twins.runs, twins.batch
    twins.prepare()
    _refuse_flat(runs.metric, points)
    own: dict[Site, Tensor] = {}
    dropped: list[int | None] = [None]
    edits: dict[Site, Edit] = {site: partial(_pass, own, dropped, site) for site in sites}
    edits |= {site: partial(_start, own, twins, points, site) for site in between}
    with seen or nullcontext():
        logits = runs.model.forward(
            batch.clean,
            batch.clean_lengths,
            edits=edits,
            read=tokens_read(runs.metric, batch),
            known=replace(twins.known, copies=len(points)),
            gradients=True,
        ).logits
    logits = by_point(logits, len(points))
    clean = twins.clean.logits if runs.metric == "kl" else logits[0]
    with torch.enable_grad():
        values = [read(runs.metric, runs.finite(batch, one), clean, batch).sum() for one in logits]
        total = torch.stack([weight * value for weight, value in zip(points.weights, values, strict=True)]).sum()
    return Differentiable(total, own, dropped)


def by_point(value: Float[Tensor, "rows ..."], points: int) -> Float[Tensor, "points batch ..."]:
    """Return what all rows of a forward have, the points at which the prompts ran side by side taken apart."""
    return value.reshape(points, -1, *value.shape[1:])


def _pass(own: dict[Site, Tensor], dropped: list[int | None], site: Site, value: Tensor) -> Tensor:
    """Note what passes at a site; its gradient is 0 while its layer is dropped."""
    own[site] = value
    if value.requires_grad and site.kind in ("z", "mlp"):
        value = value.view_as(value)  # torch reads a gradient by several tensors before their own hooks change it
        register: Any = value.register_hook  # torch's own annotation is missing
        register(lambda gradient: 0 * gradient if dropped[0] == site.layer else gradient)
    return value


def _start(own: dict[Site, Tensor], twins: Twins, points: Points, site: Site, value: Tensor) -> Tensor:
    """Begin the graph at a site, each copy of the prompts at its point between ablated and clean."""
    clean = by_point(value, len(points))
    weights = torch.tensor(points.at, device=value.device, dtype=value.dtype)
    away = clean if points is CLEAN else twins.ablated(site, clean[0])
    moved = torch.lerp(away, clean, weights.reshape(-1, *[1] * value.ndim))
    own[site] = moved.flatten(0, 1).detach().requires_grad_()
    return own[site]


def _refuse_flat(metric: str, points: Points) -> None:
    if metric == "kl" and points is CLEAN:
        raise MeasurementError(
            "a gradient at the clean run says something of a metric that changes there, and kl is the distance from "
            "that very run: it is 0 there, and flat.\n  Measure logit_diff or prob_diff, or take eap-ig, which looks "
            "along the way, or exact patching."
        )

"""A norm frozen at its live scale: the linear map that it is around one input, found by probing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.rounding import gap
from ..errors import InstrumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

LOUD = 128.0
"""Size of the numbers that a norm is probed with: no norm's epsilon is seen beside its square, which float16 holds."""


@dataclass(frozen=True)
class Frozen:
    """A norm at the scale that it has on one input: `apply` is linear, so what it makes of parts adds up.

    Attributes:
        gain: what each feature is multiplied with behind the scale.
        bias: what the norm adds whatever it is given; it belongs to no part.
        scale: 1 / standard deviation, or 1 / root mean square, of each token.
        centres: whether the mean over the features is taken out first.
    """

    gain: Float[Tensor, " width"]
    bias: Float[Tensor, " width"]
    scale: Float[Tensor, "*tokens 1"]
    centres: bool

    def apply(self, part: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """Return what the norm makes of a part of its input, without the bias."""
        return self._centred(part.float()) * self.gain * self.scale

    def adjoint(self, direction: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """Return the direction in the norm's input along which its output moves along `direction`.

        For every part, `apply(part) @ direction` is `part @ adjoint(direction)`.
        """
        return self._centred(direction.float() * self.gain * self.scale)

    def _centred(self, value: Tensor) -> Tensor:
        return value - value.mean(-1, keepdim=True) if self.centres else value


def frozen(norm: Callable[[Tensor], Tensor], x: Float[Tensor, "*tokens width"]) -> Frozen:
    """Return a norm at the scale that it has on `x`, as a linear map in float32.

    The norm's name and weights are not looked at. It is run on nothing (its bias), on numbers of one size and both
    signs (its gain), and on those again with a constant added (whether it centres); its scale follows from what it
    makes of `x`.

    Raises:
        InstrumentError: the map is not what the norm makes of `x`.
    """
    signs = torch.tensor([1.0, -1.0], device=x.device).repeat(x.shape[-1])[: x.shape[-1]]
    with torch.no_grad():
        bias, loud, shifted, y = (
            norm(given.to(x.dtype)[None])[0].float().to(x.device)
            for given in (0 * signs, LOUD * signs, LOUD * (signs + 1), x)
        )
        centres = bool((shifted - loud).abs().max() < 0.1 * (loud - bias).abs().max())
        unit = Frozen(torch.ones_like(bias), bias, torch.ones_like(y[..., :1]), centres)
        probe = unit.apply(signs)
        gain = (loud - bias) * probe.square().mean().sqrt() / probe
        whole = unit.apply(x) * gain
        scale = ((y - bias) * whole).sum(-1, keepdim=True) / whole.square().sum(-1, keepdim=True).clamp(min=1e-30)
    found = Frozen(gain, bias, scale, centres)
    _refuse_misfit(norm, found.apply(x) + bias, y, x.dtype)
    return found


def _refuse_misfit(norm: object, found: Tensor, live: Tensor, dtype: torch.dtype) -> None:
    largest, allowed = gap(found, live, dtype)
    if not largest <= allowed:  # a NaN is no fit either
        raise InstrumentError(
            f"instrument: a {type(norm).__name__} is no norm that is linear at a fixed scale: frozen, it should give "
            f"what it gave (largest difference {largest:.3g}, allowed {allowed:.3g}).\n"
            "  What a part adds to the logits directly has no meaning behind it. Please report the architecture."
        )

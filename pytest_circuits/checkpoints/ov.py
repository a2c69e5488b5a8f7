"""The weights of a head: how it makes its values, and what it adds to the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import PromptError

if TYPE_CHECKING:
    from jaxtyping import Float

    from .model import BoundModel


def split_values(
    features: Float[Tensor, "... features"], layout: str, *, heads: int, width: int
) -> Float[Tensor, "... groups {width}"]:
    """Return the values of each key/value head among the features of what makes them, laid out as `layout` says.

    How many there are follows from the heads and their width: some attention repeats them before it uses them.

    Raises:
        ValueError: they pass a bottleneck, so that no head has features of its own.
    """
    before = features.shape[:-1]
    if layout == "own":
        return features.reshape(*before, -1, width)
    groups = (features.shape[-1] // width - heads) // 2
    if layout == "packed":  # queries | keys | values
        return features[..., -groups * width :].reshape(*before, groups, width)
    if layout == "interleaved":  # in each group its queries, its key, its value
        return features.reshape(*before, groups, heads // groups + 2, width)[..., -1, :]
    if layout == "codegen":  # four blocks, in each queries | values | keys of a quarter of the heads
        return features.reshape(*before, 4, 3, heads // 4, width)[..., 1, :, :].reshape(*before, heads, width)
    raise ValueError(f"values laid out as {layout!r} belong to no head")


def as_used(
    values: Float[Tensor, "... groups head_width"], used: Float[Tensor, "... used head_width"]
) -> Float[Tensor, "... used head_width"]:
    """Return values as attention uses them: some attention repeats them for its heads, or clips what is large."""
    largest = float(used.abs().max())
    return values.repeat_interleave(used.shape[-2] // values.shape[-2], dim=-2).clamp(-largest, largest)


def at_hand(module: Any, name: str = "weight") -> Tensor:
    """Return a module's weight, also where a split model brings it to its device only while the module runs."""
    weight: Tensor = getattr(module, name)
    if not weight.is_meta:
        return weight
    from accelerate.utils import align_module_device

    with align_module_device(module):
        brought: Tensor = getattr(module, name).clone()
    return brought


def value_weight(model: BoundModel, layer: int, head: int) -> Float[Tensor, "width head_width"]:
    """Return W_V of a query head, without its bias; query heads of one group share their key/value head's.

    Raises:
        PromptError: the architecture makes its values through a bottleneck.
    """
    row = model.architecture
    if row.value_layout == "latent":
        raise PromptError(
            f"a role that is read from a head's weights needs its W_V, and a {row.model_type} has none: its values "
            "pass a bottleneck with a norm in it.\n  Drop the role, or state it of another architecture."
        )
    module = model.part(layer, row.values)
    weight = at_hand(module).T if isinstance(module, torch.nn.Linear) else at_hand(module)
    width = output_weight(model, layer).shape[1]
    values = split_values(weight.float(), row.value_layout, heads=model.heads, width=width)
    return values[:, head * values.shape[1] // model.heads]


def heads_weight(model: BoundModel, layer: int) -> Float[Tensor, "head_features width"]:
    """Return W_O of all heads in a row. GPT-2's Conv1D keeps its weight as (in, out), a Linear as (out, in)."""
    projection = model.part(layer, model.architecture.projection)
    weight = at_hand(projection)
    return weight.T if isinstance(projection, torch.nn.Linear) else weight


def output_weight(model: BoundModel, layer: int) -> Float[Tensor, "heads head_width width"]:
    """Return W_O of every head."""
    weight = heads_weight(model, layer)
    return weight.reshape(model.heads, -1, weight.shape[1])


def projected(
    model: BoundModel, layer: int, z: Float[Tensor, "batch seq heads head_width"]
) -> Float[Tensor, "batch seq width"]:
    """Return the sum over heads of z W_O, and the bias that is no head's, in float32."""
    projection = model.part(layer, model.architecture.projection)
    out: Tensor = torch.einsum("bshw,hwd->bsd", z.float(), output_weight(model, layer).float())
    return out if projection.bias is None else out + at_hand(projection, "bias").float()

"""The weights of a head: how it makes its values, and what it adds to the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import PromptError

if TYPE_CHECKING:
    from jaxtyping import Float

    from .attention import Kind
    from .model import BoundModel


def split_values(
    features: Float[Tensor, "... features"], layout: str, *, heads: int, width: int
) -> Float[Tensor, "... groups {width}"]:
    """Return the values of each key/value head among the features of what makes them, laid out as `layout` says.

    Raises:
        ValueError: they pass a bottleneck, so that no head has features of its own.
    """
    return split(features, layout, "v", heads=heads, width=width)


def split(
    features: Float[Tensor, "... features"], layout: str, kind: Kind, *, heads: int, width: int
) -> Float[Tensor, "... units {width}"]:
    """Return each head's queries, or each key/value head's keys or values, among the features of what makes them.

    How many key/value heads there are follows from the heads and their width: some attention repeats them before it
    uses them.

    Raises:
        ValueError: they pass a bottleneck, so that no head has features of its own.
    """
    before = features.shape[:-1]
    if layout == "own":
        return features.reshape(*before, -1, width)
    groups = (features.shape[-1] // width - heads) // 2
    if layout == "packed":  # queries | keys | values
        first, count = {"q": (0, heads), "k": (heads, groups), "v": (heads + groups, groups)}[kind]
        return features[..., first * width : (first + count) * width].reshape(*before, count, width)
    if layout == "interleaved":  # in each group its queries, its key, its value
        size = heads // groups
        apart = features.reshape(*before, groups, size + 2, width)
        own = apart[..., :size, :] if kind == "q" else apart[..., size + "kv".index(kind), None, :]
        return own.reshape(*before, -1, width)
    if layout == "codegen":  # four blocks, in each queries | values | keys of a quarter of the heads
        apart = features.reshape(*before, 4, 3, heads // 4, width)
        return apart[..., "qvk".index(kind), :, :].reshape(*before, heads, width)
    raise ValueError(f"values laid out as {layout!r} belong to no head")


def maker(model: BoundModel, layer: int, kind: Kind) -> Any:
    """Return the module whose output has a layer's queries, keys or values, as they are before a norm or a rotation.

    Raises:
        PromptError: they pass a bottleneck, or are made by a module that is not found.
    """
    row = model.architecture
    path = row.values if row.value_layout != "own" or kind == "v" else row.values.replace("v_proj", f"{kind}_proj")
    if row.value_layout == "latent" or (kind != "v" and row.value_layout == "own" and "v_proj" not in row.values):
        raise PromptError(
            f"what a head's {kind} reads needs the weights that make it, and in a {row.model_type} they pass a "
            "bottleneck or have no name that is known.\n  Its heads and MLPs can be attributed, its edges cannot."
        )
    return model.part(layer, path)


def read_weights(model: BoundModel, layer: int, kind: Kind) -> Float[Tensor, "units head_width width"]:
    """Return the weights by which each head's queries, or each key/value head's keys or values, read their input.

    Raises:
        PromptError: no weights are known to make them, or they are repeated before attention uses them.
    """
    module = maker(model, layer, kind)
    weight = at_hand(module).T if isinstance(module, torch.nn.Linear) else at_hand(module)
    width = output_weight(model, layer).shape[1]
    units = split(weight, model.architecture.value_layout, kind, heads=model.heads, width=width)
    used = model.heads if kind == "q" else model.groups
    if units.shape[1] != used:
        raise PromptError(
            f"each of {used} heads' {kind} should have weights of its own, and in this {model.architecture.model_type} "
            f"there are {units.shape[1]}, repeated before attention uses them.\n"
            "  Its heads and MLPs can be attributed, its edges cannot."
        )
    return units.permute(1, 2, 0)


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


def value_weights(model: BoundModel, layer: int) -> Float[Tensor, "heads width head_width"]:
    """Return W_V of every query head, without its bias, in float32; heads of one group share their key/value head's.

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
    values = split_values(weight.float(), row.value_layout, heads=model.heads, width=width).transpose(0, 1)
    return values.repeat_interleave(model.heads // len(values), dim=0)


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

"""The instrument checks itself on a model before it may measure: a few short forwards, numerical, per model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InstrumentError
from .model import EMBED, BoundModel, Edit, Site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

SEQUENCE = 6
"""Tokens of a self-check prompt: enough for attention to matter, short enough to cost nothing."""


def check_instrument(model: BoundModel) -> None:
    """Run every self-check.

    Raises:
        InstrumentError: names the check that failed, with the numbers.
    """
    for check in (every_module_is_in_eval_mode, replacing_acts_as_it_says, parts_sum_to_the_residual, padding_is_inert):
        hooks = _hooks_in(model)
        check(model)
        if _hooks_in(model) != hooks:
            _fail(model, "hooks are left on the model after a run")


def every_module_is_in_eval_mode(model: BoundModel) -> None:
    """Dropout would make each run another one."""
    training = [name for name, module in model.module.named_modules() if module.training]
    if training:
        _fail(model, f"{len(training)} modules are in training mode, first {training[0]!r}")


def replacing_acts_as_it_says(model: BoundModel) -> None:
    """An empty patch and a model's own values change nothing, a full one gives the corrupt run, zeros do something."""
    clean, corrupt = probe_ids(model)
    plain = model.forward(clean)
    own = model.forward(clean, keep=model.sites)
    other = model.forward(corrupt, keep=model.sites)
    untouched = model.forward(clean, edits=dict.fromkeys(model.sites, lambda value: value))
    patched = model.forward(clean, edits=_constants(own.values))
    full = model.forward(clean, edits=_constants(other.values))
    zeroed = model.forward(clean, edits={Site("z", layer): torch.zeros_like for layer in range(model.layers)})

    _same(model, "an empty patch changes the logits", untouched.logits, plain.logits, exact=True)
    _same(model, "a patch with a model's own values changes the logits", patched.logits, plain.logits, exact=True)
    _same(model, "a full patch is not the corrupt run", full.logits, other.logits)
    if torch.equal(other.logits, plain.logits):
        _fail(model, "two different prompts give the same logits")
    if torch.equal(zeroed.logits, plain.logits):
        _fail(model, "zeroing every head changes nothing: the heads that the hooks reach are not the model's")


def parts_sum_to_the_residual(model: BoundModel) -> None:
    """What heads and MLP put out is what their block adds, and a head is its slice of the projection's input."""
    clean, _ = probe_ids(model)
    seen: dict[int, list[Tensor]] = {layer: [] for layer in range(model.layers)}
    handles = [
        block.register_forward_hook(lambda _, args, output, into=seen[layer]: into.extend([args[0], _first(output)]))
        for layer, block in enumerate(model.blocks)
    ]
    try:
        kept = model.forward(clean, keep=model.sites).values
    finally:
        for handle in handles:
            handle.remove()
    _same(model, "the embedding is not the first block's input", kept[EMBED], seen[0][0], exact=True)
    for layer, (before, after) in seen.items():
        attention = heads_output(model, layer, kept[Site("z", layer)])
        if attention.shape != before.shape:
            _fail(
                model,
                f"layer {layer}: heads put out {attention.shape[-1]} numbers, the residual has {before.shape[-1]}",
            )
        _same(
            model,
            f"layer {layer}: heads + MLP + input is not the block's output",
            before + attention + kept[Site("mlp", layer)],
            after,
        )


def heads_output(
    model: BoundModel, layer: int, z: Float[Tensor, "batch seq heads head_width"]
) -> Float[Tensor, "batch seq width"]:
    """Return what the heads add to the residual stream: the sum over heads of z W_O, and the bias that is no head's."""
    projection = model.part(layer, model.architecture.projection)
    weight = output_weight(model, layer).float()
    out: Tensor = torch.einsum("bshw,hwd->bsd", z.float(), weight)
    if projection.bias is not None:
        out = out + projection.bias.float()
    return out


def output_weight(model: BoundModel, layer: int) -> Float[Tensor, "heads head_width width"]:
    """Return W_O of every head. GPT-2's Conv1D keeps its weight as (in, out), a Linear as (out, in)."""
    projection = model.part(layer, model.architecture.projection)
    weight: Tensor = projection.weight.T if isinstance(projection, torch.nn.Linear) else projection.weight
    return weight.reshape(model.heads, -1, weight.shape[1])


def padding_is_inert(model: BoundModel) -> None:
    """A short prompt beside a long one gives what it gives alone."""
    long, _ = probe_ids(model)
    short = long[:1, : SEQUENCE - 2]
    padded = torch.cat([torch.nn.functional.pad(short, (0, 2)), long[1:]])
    lengths = torch.tensor([SEQUENCE - 2, SEQUENCE], device=long.device)
    together = model.forward(padded, lengths).logits
    alone = torch.cat([model.forward(short).logits, model.forward(long[1:]).logits])
    _same(model, "padding changes the logits", together, alone)


def probe_ids(model: BoundModel) -> tuple[Int[Tensor, "2 seq"], Int[Tensor, "2 seq"]]:
    """Return two batches of token ids, spread over the vocabulary and different at every position."""
    size = model.module.config.vocab_size
    ids = torch.arange(4 * SEQUENCE, device=model.device).view(2, 2, SEQUENCE)
    spread = (ids * max(1, size // (4 * SEQUENCE)) + size // 50) % size
    return spread[0], spread[1]


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative difference that rounding alone may make: 1e-5 in float32, a few steps in half precision."""
    return max(1e-5, 4 * torch.finfo(dtype).eps)


def _same(model: BoundModel, complaint: str, found: Tensor, expected: Tensor, *, exact: bool = False) -> None:
    gap = (found.float() - expected.float()).abs().max().item()
    allowed = 0.0 if exact else tolerance(model.dtype) * max(1.0, expected.float().abs().max().item())
    if not gap <= allowed:  # a NaN is not the same either
        _fail(model, f"{complaint} (largest difference {gap:.3g}, allowed {allowed:.3g})")


def _constants(values: Mapping[Site, Tensor]) -> dict[Site, Edit]:
    return {site: partial(_instead, value) for site, value in values.items()}


def _instead(value: Tensor, own: Tensor) -> Tensor:
    return value


def _hooks_in(model: BoundModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _fail(model: BoundModel, complaint: str) -> None:
    raise InstrumentError(
        f"instrument: {complaint}, on {model.name!r} ({model.architecture.model_type}).\n"
        "  What would be measured on it is not what the spec names, so nothing is. Please report the checkpoint."
    )

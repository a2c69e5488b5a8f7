"""Attention patterns, read while the model's own kernel runs."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..errors import InstrumentError
from .selfcheck import tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int

    from .model import BoundModel

NAME = "pytest_circuits_read"
_patterns: ContextVar[dict[int, Tensor]] = ContextVar("pytest_circuits_patterns")


def attention_of_last(model: BoundModel, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "layers batch heads seq"]:
    """Return where the answer position attends in each head, on prompts that need no padding.

    The output is the kernel's own; the pattern is computed beside it from the same rotated queries and keys, and is
    accepted only if it reproduces that output.

    Raises:
        InstrumentError: the architecture does not dispatch its attention, or the pattern does not fit the output.
    """
    found: dict[int, Tensor] = {}
    with _reading(model, found):
        model.forward(ids)
    if sorted(found) != list(range(model.layers)):
        raise InstrumentError(
            f"instrument: attention should be read in {model.layers} layers of {model.name!r}, was in {sorted(found)}."
        )
    return torch.stack([found[layer] for layer in range(model.layers)])


@contextmanager
def _reading(model: BoundModel, found: dict[int, Tensor]) -> Iterator[None]:
    before = model.module.config._attn_implementation
    token = _patterns.set(found)
    model.module.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.module.set_attn_implementation(before)
        _patterns.reset(token)


def _read(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Run the SDPA kernel and note the last query's pattern of this layer."""
    out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = query.shape[1] // key.shape[1]
    keys, values = (part.repeat_interleave(groups, dim=1).float() for part in (key, value))
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    scores = torch.einsum("bhd,bhkd->bhk", query[:, :, -1].float(), keys) * scaling
    if attention_mask is not None:
        last = attention_mask[:, :, -1, : scores.shape[-1]]
        scores = scores.masked_fill(~last, -torch.inf) if last.dtype == torch.bool else scores + last
    pattern = scores.softmax(-1)
    rebuilt = torch.einsum("bhk,bhkd->bhd", pattern, values)
    gap = (rebuilt - out[:, -1].float()).abs().max()
    if not gap <= tolerance(query.dtype) * max(1.0, float(values.abs().max())):
        raise InstrumentError(f"instrument: the attention read in layer {module.layer_idx} does not give its output.")
    _patterns.get()[module.layer_idx] = pattern
    return out, None


# An attention function without a mask function of the same name would run without any mask.
AttentionInterface.register(NAME, _read)
AttentionMaskInterface.register(NAME, sdpa_mask)

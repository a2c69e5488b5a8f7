"""Queries and attention patterns, reached while the model's own kernel runs."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ..errors import InstrumentError
from .rounding import gap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from jaxtyping import Float, Int

    from .model import BoundModel

NAMES = {"sdpa": "pytest_circuits_sdpa", "eager": "pytest_circuits_eager"}
"""The kernels that can be watched, and the names under which transformers calls them through us."""


@dataclass
class Tap:
    """What is done at each layer's attention product.

    Attributes:
        through: gets a kind, the layer and what its tokens that are run have, of shape (batch, seq, heads, width), and
            returns what the kernel is to go on with.
        kinds: what is passed through: queries, or keys and values too.
        noting: whether the last query's pattern is noted.
        patterns: those that were noted, by layer.
    """

    through: Callable[[Kind, int, Tensor], Tensor] | None = None
    kinds: Collection[Kind] = ()
    noting: bool = False
    patterns: dict[int, Tensor] = field(default_factory=dict)


Kind = Literal["q", "k", "v"]
_tap: ContextVar[Tap] = ContextVar("pytest_circuits_tap")


def dispatches(module: Any) -> bool:
    """Say whether a model calls its attention kernel by name, so that it can be watched."""
    source = sys.modules[type(module).__module__]
    return hasattr(source, "ALL_ATTENTION_FUNCTIONS") and module.config._attn_implementation in NAMES


@contextmanager
def tapped(module: Any, tap: Tap) -> Iterator[None]:
    """Let a model's own kernel run through the tap, with the mask that belongs to the kernel."""
    before = module.config._attn_implementation
    token = _tap.set(tap)
    module.set_attn_implementation(NAMES[before])
    try:
        yield
    finally:
        module.set_attn_implementation(before)
        _tap.reset(token)


def attention_of_last(model: BoundModel, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "layers batch heads seq"]:
    """Return where the answer position attends in each head, on prompts that need no padding.

    Where the model calls its kernel by name, the output stays the kernel's own and the pattern is computed beside it;
    else the model is asked for its patterns. Either way a pattern is accepted only if it gives what the heads put out.

    Raises:
        InstrumentError: a layer told no pattern, or one that does not fit its output.
    """
    found = _watched(model, ids) if dispatches(model.module) else _asked(model, ids)
    if sorted(found) != list(range(model.layers)):
        raise InstrumentError(
            f"instrument: attention should be read in {model.layers} layers of {model.name!r}, was in {sorted(found)}."
        )
    return torch.stack([found[layer].to(ids.device) for layer in range(model.layers)])


def _watched(model: BoundModel, ids: Tensor) -> dict[int, Tensor]:
    tap = Tap(noting=True)
    with tapped(model.module, tap):
        model.forward(ids)
    return tap.patterns


def _asked(model: BoundModel, ids: Tensor) -> dict[int, Tensor]:
    """Ask a model that has its own attention code for its patterns, and hold them against its values and heads.

    Only eager code has patterns; it may be another model's by a fault of the library, and then they do not fit.
    """
    from .model import Site  # it imports this module

    values, heads = ([Site(kind, at) for at in range(model.layers)] for kind in ("v", "z"))
    used = model.forward(ids, keep=[*values, *heads]).values
    patterns: dict[int, Tensor] = {}
    with ExitStack() as stack, _eager(model.module), torch.inference_mode():
        for at in range(model.layers):
            stack.enter_context(
                model.part(at, model.architecture.attention).register_forward_hook(
                    lambda _, args, output, at=at: patterns.update(
                        (at, x[:, :, -1]) for x in filter(_is_pattern, output)
                    )
                )
            )
        model.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, output_attentions=True)
    for at, pattern in patterns.items():
        _refuse_misfit(pattern, used[values[at]].transpose(1, 2), used[heads[at]][:, -1], at)
    return {at: pattern.float() for at, pattern in patterns.items()}


@contextmanager
def _eager(module: Any) -> Iterator[None]:
    """Let a model that reads its config at each call run its eager code."""
    before = module.config._attn_implementation
    module.config._attn_implementation = "eager"
    try:
        yield
    finally:
        module.config._attn_implementation = before


def _is_pattern(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4


def _run(
    kernel: Callable[..., Any] | None,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> Any:
    """Run a kernel, its architecture's own eager one where it is None, through the tap that is set."""
    tap = _tap.get()
    kernel = kernel or sys.modules[type(module).__module__].eager_attention_forward
    run = query.shape[2]
    query, key, value = (
        _passed(tap, kind, module.layer_idx, states, run)
        for kind, states in zip(get_args(Kind), (query, key, value), strict=True)
    )
    out, weights = kernel(module, query, key, value, attention_mask, **options)
    if tap.noting:
        pattern = _pattern(query, key, attention_mask, options) if weights is None else weights[:, :, -1]
        _refuse_misfit(pattern, value, out[:, -1], module.layer_idx)
        tap.patterns[module.layer_idx] = pattern.float()
    return out, weights


def _passed(tap: Tap, kind: Kind, layer: int, states: Tensor, run: int) -> Tensor:
    """Pass the last `run` tokens' queries, keys or values through the tap."""
    if tap.through is None or kind not in tap.kinds:
        return states
    lent, own = states[:, :, :-run], states[:, :, -run:]
    own = tap.through(kind, layer, own.transpose(1, 2)).transpose(1, 2)
    return torch.cat([lent, own], 2) if lent.shape[2] else own


def _pattern(query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Tensor:
    """Return where the last query attends, from the same rotated queries and keys, in float32."""
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    scores: Tensor = torch.einsum("bhd,bhkd->bhk", query[:, :, -1].float(), keys) * scaling
    if mask is not None:
        last = mask[:, :, -1, : scores.shape[-1]]
        scores = scores.masked_fill(~last, -torch.inf) if last.dtype == torch.bool else scores + last
    return scores.softmax(-1)


def _refuse_misfit(pattern: Tensor, value: Tensor, out: Tensor, layer: int) -> None:
    """Raise unless the last query's pattern (batch, heads, keys) over the values gives the output (batch, heads, w)."""
    values = value.repeat_interleave(pattern.shape[1] // value.shape[1], dim=1).float()
    rebuilt = torch.einsum("bhk,bhkd->bhd", pattern.float(), values)
    largest, _ = gap(rebuilt, out, out.dtype)
    _, allowed = gap(values, values, out.dtype)
    if not largest <= allowed:
        raise InstrumentError(
            f"instrument: the attention read in layer {layer} does not give its output (largest difference "
            f"{largest:.3g}, allowed {allowed:.3g}).\n  It is not where the heads attended, so no role can be read "
            "from it. Drop the roles of this checkpoint that are read from attention."
        )


# An attention function without a mask function of the same name would run without any mask.
AttentionInterface.register(NAMES["sdpa"], partial(_run, sdpa_attention_forward))
AttentionInterface.register(NAMES["eager"], partial(_run, None))
AttentionMaskInterface.register(NAMES["sdpa"], sdpa_mask)
AttentionMaskInterface.register(NAMES["eager"], eager_mask)

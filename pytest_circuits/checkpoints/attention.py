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
        asked: what is made of each layer's pattern; None where none is wanted.
    """

    through: Callable[[Kind, int, Tensor], Tensor] | None = None
    kinds: Collection[Kind] = ()
    asked: Reduced | None = None


@dataclass
class Reduced:
    """What is made of each layer's attention pattern while the layer runs, so that no two layers' are held at once.

    Attributes:
        reduce: gets a pattern in float32, of shape (batch, heads, queries, keys).
        queries: of which queries the pattern is.
        layers: what `reduce` returned, by layer.
    """

    reduce: Callable[[Tensor], Tensor]
    queries: slice
    layers: dict[int, Tensor] = field(default_factory=dict)

    def take(self, layer: int, pattern: Tensor, value: Tensor, out: Tensor) -> None:
        """Take a layer's pattern of the queries, with all values and what the kernel put out at the queries.

        Raises:
            InstrumentError: the pattern over the values does not give the output.
        """
        _refuse_misfit(pattern, value, out, layer)
        self.layers[layer] = self.reduce(pattern.float())


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

    Raises:
        InstrumentError: a layer told no pattern, or one that does not fit its output.
    """
    return attention_of(model, ids, lambda pattern: pattern[:, :, 0], queries=slice(-1, None))


def attention_of(
    model: BoundModel,
    ids: Int[Tensor, "batch seq"],
    reduce: Callable[[Float[Tensor, "batch heads queries seq"]], Tensor],
    *,
    queries: slice = slice(None),
) -> Float[Tensor, "layers ..."]:
    """Return what `reduce` makes of each layer's attention pattern, on prompts that need no padding.

    A pattern is let go once it is reduced, before the next layer runs. Where the model calls its kernel by name, the
    output stays the kernel's own and the pattern is computed beside it, in float32; else the model is asked for its
    patterns. Either way a pattern is accepted only if it gives what the heads put out, at every query that is read.

    Args:
        model: a bound model.
        ids: token ids.
        reduce: must not return a view of all that it gets, or that stays in memory.
        queries: whose pattern is read; all of them where it is left out.

    Raises:
        InstrumentError: a layer told no pattern, or one that does not fit its output.
    """
    asked = Reduced(reduce, queries)
    (_watch if dispatches(model.module) else _ask)(model, ids, asked)
    if sorted(asked.layers) != list(range(model.layers)):
        raise InstrumentError(
            f"instrument: attention should be read in {model.layers} layers of {model.name!r}, was in "
            f"{sorted(asked.layers)}.\n  A layer that told nothing would be left out of every role that is read from "
            "attention. Drop these roles for this checkpoint, and please report the architecture."
        )
    return torch.stack([asked.layers[layer].to(ids.device) for layer in range(model.layers)])


def _watch(model: BoundModel, ids: Tensor, asked: Reduced) -> None:
    with tapped(model.module, Tap(asked=asked)):
        model.forward(ids)


def _ask(model: BoundModel, ids: Tensor, asked: Reduced) -> None:
    """Ask a model that has its own attention code for its patterns, and hold them against its values and heads.

    Only eager code has patterns; it may be another model's by a fault of the library, and then they do not fit.
    """
    from .model import Site  # it imports this module

    values, heads = ([Site(kind, at) for at in range(model.layers)] for kind in ("v", "z"))
    used = model.forward(ids, keep=[*values, *heads]).values

    def hook(at: int, output: Any) -> None:
        for pattern in filter(_is_pattern, output):
            out = used[heads[at]][:, asked.queries]
            asked.take(at, pattern[:, :, asked.queries], used[values[at]].transpose(1, 2), out)

    with ExitStack() as stack, _eager(model.module), torch.inference_mode():
        for at in range(model.layers):
            stack.enter_context(
                model.part(at, model.architecture.attention).register_forward_hook(
                    lambda _, args, output, at=at: hook(at, output)
                )
            )
        model.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, output_attentions=True)


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
    if tap.asked is not None:
        at = tap.asked.queries
        pattern = _pattern(query, key, attention_mask, options, at) if weights is None else weights[:, :, at]
        tap.asked.take(module.layer_idx, pattern, value, out[:, at])
    return out, weights


def _passed(tap: Tap, kind: Kind, layer: int, states: Tensor, run: int) -> Tensor:
    """Pass the last `run` tokens' queries, keys or values through the tap."""
    if tap.through is None or kind not in tap.kinds:
        return states
    lent, own = states[:, :, :-run], states[:, :, -run:]
    own = tap.through(kind, layer, own.transpose(1, 2)).transpose(1, 2)
    return torch.cat([lent, own], 2) if lent.shape[2] else own


def _pattern(query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any], queries: slice) -> Tensor:
    """Return where the queries attend, from the same rotated queries and keys, in float32.

    A kernel that got no mask is causal by itself.
    """
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    scores: Tensor = torch.einsum("bhqd,bhkd->bhqk", query[:, :, queries].float(), keys) * scaling
    if mask is None:
        whole = torch.ones(query.shape[2], keys.shape[2], dtype=torch.bool, device=scores.device)
        mask = whole.tril(keys.shape[2] - query.shape[2])[None, None]
    mask = mask[:, :, queries, : keys.shape[2]]
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def _refuse_misfit(pattern: Tensor, value: Tensor, out: Tensor, layer: int) -> None:
    """Raise unless a pattern (batch, heads, queries, keys) over the values gives the output (batch, queries, ...)."""
    values = value.repeat_interleave(pattern.shape[1] // value.shape[1], dim=1).float()
    rebuilt = torch.einsum("bhqk,bhkd->bqhd", pattern.float(), values)
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

"""The instrument checks itself on a model before it may measure: a few short forwards, numerical, per model."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InstrumentError
from .attention import Kind, dispatches
from .model import BoundModel, Edit, Site
from .ov import as_used, heads_weight, projected, split_values
from .past import Known
from .rounding import gap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int

SEQUENCE = 6
"""Tokens of a self-check prompt: enough for attention to matter, short enough to cost nothing."""
SHORT = SEQUENCE - 2


def check_instrument(model: BoundModel) -> None:
    """Run every self-check.

    Raises:
        InstrumentError: names the check that failed, with the numbers.
    """
    for check in CHECKS:
        hooks = _hooks_in(model)
        check(model)
        if _hooks_in(model) != hooks:
            _fail(model, "hooks are left on the model after a run")


def every_module_is_in_eval_mode(model: BoundModel) -> None:
    """Dropout would make each run another one."""
    training = [name for name, module in model.module.named_modules() if module.training]
    if training:
        _fail(model, f"{len(training)} modules are in training mode, first {training[0]!r}")


def heads_divide_their_projection(model: BoundModel) -> None:
    """A head is one of `heads` equal slices, and reads one of `groups` key/value heads."""
    for layer in range(model.layers):
        width = heads_weight(model, layer).shape[0]
        if width % model.heads:
            _fail(model, f"layer {layer}: the projection takes {width} numbers, which {model.heads} heads cannot share")
    if model.groups < 1 or model.heads % model.groups:
        _fail(model, f"{model.heads} heads cannot share {model.groups} key/value heads")


def reading_is_the_models_own(model: BoundModel) -> None:
    """The logits that are read, all of them or some, are those of the untouched module."""
    clean, _ = probe_ids(model)
    with torch.inference_mode():
        own = model.module(input_ids=clean, attention_mask=torch.ones_like(clean), use_cache=False).logits[:, -1]
    some = clean[:, :2]
    two = own.gather(1, some.to(own.device))
    _same(model, "the logits read are not the model's", model.forward(clean).logits, own)
    _same(model, "two logits read alone are not the model's", model.forward(clean, read=some).logits, two)


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
    row = model.architecture
    seen: dict[tuple[str, int], Tensor] = {}

    def note(name: str, layer: int, value: Tensor) -> None:
        seen[name, layer] = value.clone()  # as it is now: a block may go on to change it in place

    with ExitStack() as stack:
        for layer, block in enumerate(model.blocks):
            for name, module in (
                ("after", block),
                ("projection", model.part(layer, row.projection)),
                ("attention", model.part(layer, row.attention_adds or row.projection)),
            ):
                stack.enter_context(
                    module.register_forward_hook(
                        lambda _, args, output, name=name, layer=layer: note(name, layer, _first(output))
                    )
                )
        residuals = [Site("residual", layer) for layer in range(model.layers)]
        kept = model.forward(clean, keep=[*model.sites, *residuals]).values
    for layer in range(model.layers):
        made, put = projected(model, layer, kept[Site("z", layer)]), seen["projection", layer]
        before, after = kept[Site("residual", layer)], seen["after", layer]
        if made.shape != put.shape or put.shape != before.shape:
            _fail(model, f"layer {layer}: heads put out {put.shape[-1]} numbers, the residual has {before.shape[-1]}")
        _same(model, f"layer {layer}: heads do not give what their projection puts out", made, put)
        summed = before + model.scale * (seen["attention", layer] + kept[Site("mlp", layer)])
        _same(model, f"layer {layer}: heads + MLP + input is not the block's output", summed, after)


def heads_alone_make_what_attention_adds(model: BoundModel) -> None:
    """With another prompt's heads attention adds what it adds there: their sum would not tell it from the MLP."""
    clean, corrupt = probe_ids(model)
    row = model.architecture
    added: list[Tensor] = []
    with ExitStack() as stack:
        for layer in range(model.layers):
            part = model.part(layer, row.attention_adds or row.projection)
            stack.enter_context(
                part.register_forward_hook(lambda _, args, output: added.append(_first(output).clone()))
            )
        heads = model.forward(corrupt, keep=[Site("z", layer) for layer in range(model.layers)]).values
        model.forward(clean, edits=_constants(heads))
    for layer in range(model.layers):
        complaint = f"layer {layer}: another prompt's heads do not make attention add what it adds there"
        _same(model, complaint, added[model.layers + layer], added[layer])


def heads_read_their_values(model: BoundModel) -> None:
    """The first token attends to itself alone, so there each head puts out the value of its key/value head."""
    row = model.architecture
    clean, _ = probe_ids(model)
    made: dict[int, Tensor] = {}
    with ExitStack() as stack:
        if row.value_layout != "latent":
            for layer in range(model.layers):
                stack.enter_context(
                    model.part(layer, row.values).register_forward_hook(
                        lambda _, args, output, layer=layer: made.__setitem__(layer, output.clone())
                    )
                )
        found = model.forward(clean, keep=[Site(kind, at) for kind in ("z", "v") for at in range(model.layers)]).values
    for layer in range(model.layers):
        z, used = found[Site("z", layer)][:, 0], found[Site("v", layer)]
        own = used[:, 0].repeat_interleave(model.heads // model.groups, dim=1)[..., : z.shape[-1]]
        if row.sinks:  # a part of the attention goes nowhere, as much for every number of a head
            own = own * ((z * own).sum(-1, keepdim=True) / (own * own).sum(-1, keepdim=True))
        _same(model, f"layer {layer}: heads do not put out the values that they read", z, own)
        if layer in made:
            split = split_values(made[layer], row.value_layout, heads=model.heads, width=z.shape[-1])
            complaint = f"layer {layer}: values are not laid out as {row.value_layout!r}"
            _same(model, complaint, as_used(split, used), used)


def queries_keys_and_values_are_those_of_attention(model: BoundModel) -> None:
    """Another prompt's queries, keys and values in one group make its heads the other prompt's, and no others."""
    kinds: tuple[Kind, ...] = ("q", "k", "v") if dispatches(model.module) else ("k", "v")
    inner = [Site(kind, layer) for kind in kinds for layer in range(model.layers)]
    sites = [*inner, *(Site("z", layer) for layer in range(model.layers))]
    clean, corrupt = probe_ids(model)
    own, other = model.forward(clean, keep=sites), model.forward(corrupt, keep=sites)
    same = model.forward(clean, edits=_constants({site: own.values[site] for site in inner}))
    _same(model, "a patch with a model's own keys and values changes the logits", same.logits, own.logits)

    size = model.heads // model.groups
    mixed = {
        site: torch.cat([other.values[site][:, :, :first], own.values[site][:, :, first:]], 2)
        for site in sites
        for first in [1 if site.kind in ("k", "v") else size]
    }
    # With its own queries a layer's first group is neither prompt's, nor is any layer behind.
    layers, known = (range(model.layers), 0) if "q" in kinds else ([model.layers - 1], size)
    edits = _constants({site: mixed[site] for site in inner if site.layer in layers})
    patched = model.forward(clean, edits=edits, keep=sites)
    for layer in layers if known < model.heads else []:
        site = Site("z", layer)
        complaint = f"layer {layer}: another prompt's queries, keys and values in one group do not give its heads alone"
        _same(model, complaint, patched.values[site][:, :, known:], mixed[site][:, :, known:])


def attention_is_causal_and_padding_inert(model: BoundModel) -> None:
    """A token sees nothing behind it, and a short prompt beside a long one gives what it gives alone."""
    long, _ = probe_ids(model)
    short = long[:, :SHORT]
    alone, within = model.forward(short, keep=model.sites), model.forward(long, keep=model.sites)
    for site in model.sites:
        _same(model, f"later tokens change {site}", within.values[site][:, :SHORT], alone.values[site])
    padded = torch.cat([torch.nn.functional.pad(short[:1], (0, SEQUENCE - SHORT)), long[1:]])
    together = model.forward(padded, torch.tensor([SHORT, SEQUENCE], device=long.device)).logits
    _same(model, "padding changes the logits", together, torch.cat([alone.logits[:1], within.logits[1:]]))


def resuming_gives_what_running_gives(model: BoundModel) -> None:
    """A run that starts from known tokens and layers, each row twice, is the whole run."""
    clean, _ = probe_ids(model)
    first = 2
    for layer in {0, model.layers // 2, model.layers - 1}:
        edit: dict[Site, Edit] = {Site("z", layer): lambda z: 0.5 * z, Site("mlp", layer): lambda value: -value}
        late = {site: partial(_after, first, change) for site, change in edit.items()}
        into = Site("residual", layer)
        before = model.forward(clean, keep=[into], keep_from=first, note=first)
        known = Known(before.past, layer, before.values[into] if layer else None, copies=2)
        whole = model.forward(clean, edits=late).logits
        resumed = model.forward(clean, edits=edit, known=known).logits
        complaint = f"a run that starts from token {first} and layer {layer} is not the whole run"
        _same(model, complaint, resumed, whole.repeat(2, 1))


CHECKS = (
    every_module_is_in_eval_mode,
    heads_divide_their_projection,
    reading_is_the_models_own,
    replacing_acts_as_it_says,
    parts_sum_to_the_residual,
    heads_alone_make_what_attention_adds,
    heads_read_their_values,
    queries_keys_and_values_are_those_of_attention,
    attention_is_causal_and_padding_inert,
    resuming_gives_what_running_gives,
)


def probe_ids(model: BoundModel) -> tuple[Int[Tensor, "2 seq"], Int[Tensor, "2 seq"]]:
    """Return two batches of token ids, spread over the vocabulary and different at every position."""
    size = model.module.config.vocab_size
    ids = torch.arange(4 * SEQUENCE, device=model.device).view(2, 2, SEQUENCE)
    spread = (ids * max(1, size // (4 * SEQUENCE)) + size // 50) % size
    return spread[0], spread[1]


def _same(model: BoundModel, complaint: str, found: Tensor, expected: Tensor, *, exact: bool = False) -> None:
    if found.shape != expected.shape:
        _fail(model, f"{complaint} (found {tuple(found.shape)}, expected {tuple(expected.shape)})")
    largest, allowed = gap(found, expected, model.dtype)
    allowed = 0.0 if exact else allowed
    if not largest <= allowed:  # a NaN is not the same either
        _fail(model, f"{complaint} (largest difference {largest:.3g}, allowed {allowed:.3g})")


def _constants(values: Mapping[Site, Tensor]) -> dict[Site, Edit]:
    return {site: partial(_instead, value) for site, value in values.items()}


def _instead(value: Tensor, own: Tensor) -> Tensor:
    return value


def _after(first: int, change: Edit, own: Tensor) -> Tensor:
    """Apply a change to all but the first tokens."""
    return torch.cat([own[:, :first], change(own[:, first:])], dim=1)


def _hooks_in(model: BoundModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _fail(model: BoundModel, complaint: str) -> None:
    raise InstrumentError(
        f"instrument: {complaint}, on {model.name!r} ({model.architecture.model_type}).\n"
        "  What would be measured on it is not what the spec names, so nothing is. Please report the checkpoint."
    )

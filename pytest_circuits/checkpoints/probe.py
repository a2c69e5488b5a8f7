"""The parts of an architecture that has no row, found on the built module: by shape, and by what one forward shows.

Whatever is found is a guess until every self-check holds with it.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from ..errors import CheckpointRefused
from .architectures import ADD_A_ROW, Architecture, Layout
from .model import BoundModel, Site
from .ov import as_used, split_values
from .rounding import gap
from .selfcheck import probe_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .architectures import Shape

VALUES = Site("v", 0)


@dataclass(frozen=True)
class Call:
    """What a module was given and put out, the first tensor of each."""

    given: Tensor
    put: Tensor


@dataclass(frozen=True)
class Seen:
    """What one forward shows of layer 0, paths counted from its block, and of what surrounds the layers.

    Attributes:
        module: the model.
        heads: the number of heads.
        blocks: the path of the list of layers.
        inner: the calls in layer 0 in the order in which they ended; the block's own stands under "".
        outer: the calls outside the layers, and of the last layer.
        used: the values that attention gets, of shape (batch, seq, groups, head_width).
    """

    module: Any
    heads: int
    blocks: str
    inner: dict[str, Call]
    outer: list[tuple[str, Call]]
    used: Tensor = field(repr=False)

    @property
    def block(self) -> Any:
        """The first layer."""
        return self.module.get_submodule(self.blocks)[0]

    def outside(self, top: str) -> dict[str, Call]:
        """The calls in layer 0 outside one of its children, the highest module first where several put out the same."""
        paths = [path for path in self.inner if path and path.partition(".")[0] != top]
        return {path: self.inner[path] for path in sorted(paths, key=lambda path: path.count("."))}


def probe(module: Any, shape: Shape) -> Architecture:
    """Return where an architecture keeps its parts, as its first layer shows them.

    Raises:
        CheckpointRefused: a part is not found; the message says what was.
    """
    refuse_other_mixers(module, shape)
    seen = _run(module, shape)
    classes = (type(module.config).__name__, type(module).__name__)
    row: dict[str, Any] = {"model_type": shape.architecture, "classes": classes, "blocks": seen.blocks}
    for find in (_attention, _writers, _norms, _values):
        row |= find(seen, row)
    return Architecture(**row)


def refuse_other_mixers(module: Any, shape: Shape) -> None:
    """Refuse a model with layers in which something else than attention mixes tokens, alone or beside attention.

    Raises:
        CheckpointRefused: names the layers.
    """
    without: dict[str, list[int]] = {}
    beside: dict[str, list[int]] = {}
    for layer, block in enumerate(module.get_submodule(_blocks(module, shape))):
        for name, child in block.named_children():
            if _is_recurrent(child):
                attends = any(
                    "att" in path and _has_maps(other) and not _is_recurrent(other)
                    for path, other in block.named_children()
                )
                (beside if attends else without).setdefault(f"{name!r}, a {type(child).__name__}", []).append(layer)
    told = [f"layers {_ranges(layers)} have no attention heads ({what})" for what, layers in without.items()]
    told += [f"layers {_ranges(layers)} have two mixers, attention and {what}" for what, layers in beside.items()]
    if told:
        raise CheckpointRefused(
            f"refused: in a {shape.architecture} {'; '.join(told)}.\n  A circuit of heads and MLPs would leave out "
            "what these compute. Supported are models in which every layer has softmax attention and an MLP."
        )


def _is_recurrent(module: nn.Module) -> bool:
    """Say whether a module carries a state from token to token: state-space models, linear attention, convolutions."""
    names = {name.rpartition(".")[2] for name, _ in module.named_parameters()}
    return bool(names & {"A_log", "dt_bias"}) or any(isinstance(one, nn.Conv1d) for one in module.modules())


def _ranges(layers: list[int]) -> str:
    """Return layer numbers as `0-2, 4`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _blocks(module: Any, shape: Shape) -> str:
    """Return the path of the list of layers."""
    for path, one in module.named_modules():
        if isinstance(one, nn.ModuleList) and len(one) == shape.layers and all(map(_has_maps, one)):
            return str(path)
    raise _not_found(shape.architecture, f"a list of {shape.layers} layers", {})


def _has_maps(module: nn.Module) -> bool:
    """Say whether a module is made of several, with weights."""
    return any(True for _ in module.children()) and any(weight.ndim > 1 for weight in module.parameters())


def _run(module: Any, shape: Shape) -> Seen:
    """Run one short prompt, and note what passes through the modules of the first layer and outside all layers."""
    path = _blocks(module, shape)
    blocks = module.get_submodule(path)
    bare = Architecture(shape.architecture, ("", ""), blocks=path)
    model = BoundModel(shape.architecture, "", bare, module, None, shape.layers, shape.heads, 1, blocks)
    last = f"{path}.{shape.layers - 1}"
    outside = {name: one for name, one in module.named_modules() if not f"{name}.".startswith(f"{path}.")}
    inner, outer = list[tuple[str, Call]](), list[tuple[str, Call]]()
    ids, _ = probe_ids(model)
    with ExitStack() as stack:
        for name, one in blocks[0].named_modules():
            stack.enter_context(_noting(one, name, inner))
        for name, one in {**outside, last: blocks[-1]}.items():
            stack.enter_context(_noting(one, name, outer))
        used = model.forward(ids, keep=[VALUES]).values[VALUES]
    stream = dict(inner)[""].given.shape
    first: dict[str, Call] = {}
    for name, call in inner:
        first.setdefault(name, Call(_as_stream(call.given, stream), _as_stream(call.put, stream)))
    return Seen(module, shape.heads, path, first, outer, used)


def _noting(module: nn.Module, name: str, into: list[tuple[str, Call]]) -> Any:
    """Note what a module is given and puts out, as it is then: a block may go on to change it in place."""

    def note(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        given = [kwargs["hidden_states"]] if "hidden_states" in kwargs else [*args, *kwargs.values()]
        tensors = [next(filter(_is_stream, side), None) for side in (given, _flat(output))]
        if None not in tensors:
            into.append((name, Call(*(tensor.clone() for tensor in tensors if tensor is not None))))

    return module.register_forward_hook(note, with_kwargs=True)


def _flat(output: Any) -> Iterable[Any]:
    return output if isinstance(output, (tuple, list)) else [output]


def _is_stream(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim in (2, 3)


def _as_stream(value: Tensor, stream: torch.Size) -> Tensor:
    """Return (tokens, width) as (batch, seq, width)."""
    return value.reshape(*stream[:-1], -1) if value.ndim == 2 and len(value) == stream[:-1].numel() else value


def _attention(seen: Seen, row: dict[str, Any]) -> dict[str, Any]:
    """The projection is the last linear map in attention that puts out the residual stream's width."""
    width = seen.inner[""].given.shape[-1]
    found = [
        path
        for path, call in seen.inner.items()
        if "att" in path.lower()
        and call.put.shape[-1] == width
        and call.given.shape[-1] % seen.heads == 0
        and getattr(seen.block.get_submodule(path), "weight", torch.empty(0)).ndim == 2
    ]
    if not found:
        raise _not_found(row["model_type"], "a linear map behind the heads of layer 0", row)
    parents = found[-1].split(".")
    attention = ".".join(parents[: max(depth for depth, one in enumerate(parents, 1) if "att" in one.lower())])
    sinks = any("sink" in name for name, _ in seen.block.get_submodule(attention).named_parameters())
    return {"projection": found[-1], "attention": attention, "sinks": sinks}


def _writers(seen: Seen, row: dict[str, Any]) -> dict[str, Any]:
    """What attention and MLP add is what makes up the difference that the block makes."""
    block, projection = seen.inner[""], seen.inner[row["projection"]]
    others = seen.outside(row["projection"].partition(".")[0])
    scales = {"": 1.0} | {key: x for key, x in seen.module.config.to_dict().items() if isinstance(x, float)}
    adding = {"": projection} | others
    for (key, scale), (a, attention), (m, mlp) in product(scales.items(), adding.items(), others.items()):
        if attention.put.shape == mlp.put.shape == block.put.shape:
            made = block.given + scale * (attention.put + mlp.put)
            if a != m and _equal(made, block.put):
                return {"attention_adds": a, "mlp_adds": m, "scale_key": key}
    raise _not_found(row["model_type"], "what adds up to what layer 0 adds to the residual stream", row)


def _norms(seen: Seen, row: dict[str, Any]) -> dict[str, Any]:
    """A norm is what puts out what attention, or the MLP, is given."""
    top = row["attention"].partition(".")[0]
    others = seen.outside(top)
    entry = next(path for path in seen.inner if path in others and "." not in path and _has_weights(seen, path))
    block = seen.inner[""].given
    scale = getattr(seen.module.config, row["scale_key"]) if row["scale_key"] else 1.0
    middle = block + scale * seen.inner[row["attention_adds"] or row["projection"]].put
    streams = [block, middle]
    adds = "" if row["mlp_adds"] == entry else row["mlp_adds"]
    found = {"mlp": entry, "mlp_adds": adds, "attention_norm": _before(seen, others, top, [block])}
    found["mlp_norm"] = _before(seen, others, entry, streams)
    head = seen.module.get_output_embeddings()
    last = f"{row['blocks']}.{len(seen.module.get_submodule(row['blocks'])) - 1}"
    stream = dict(seen.outer)[last].put
    behind = [path for path, call in seen.outer if _equal(call.given, stream) and not _equal(call.put, stream)]
    found["final_norm"] = next((path for path in behind if seen.module.get_submodule(path) is not head), "")
    if None in found.values():
        raise _not_found(row["model_type"], "the norms of layer 0", {**row, **found})
    return found


def _before(seen: Seen, others: dict[str, Call], part: str, streams: list[Tensor]) -> str | None:
    """Return what normalises the residual stream for a part, "" where the part is given the stream itself."""
    given = seen.inner[part].given
    norms = [path for path, call in others.items() if path != part and _equal(call.put, given)]
    nothing = "" if any(_equal(given, stream) for stream in streams) else None
    return next((path for path in norms if any(_equal(others[path].given, stream) for stream in streams)), nothing)


def _has_weights(seen: Seen, path: str) -> bool:
    return any(weight.ndim > 1 for weight in seen.block.get_submodule(path).parameters())


def _values(seen: Seen, row: dict[str, Any]) -> dict[str, Any]:
    """The values are made by what puts out, in some layout, what attention uses; else they pass a bottleneck."""
    width = seen.inner[row["projection"]].given.shape[-1] // seen.heads
    inside = [path for path in seen.inner if path.startswith(row["attention"] + ".") and path != row["projection"]]
    for layout, path in product(get_args(Layout), inside):
        with suppress(RuntimeError, ValueError, ZeroDivisionError):
            split = split_values(seen.inner[path].put, layout, heads=seen.heads, width=width)
            if _equal(as_used(split, seen.used), seen.used):
                return {"values": path, "value_layout": layout}
    return {"values": "", "value_layout": "latent"}


def _equal(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    largest, allowed = gap(found, expected, expected.dtype)
    return largest <= allowed


def _not_found(architecture: str, what: str, row: dict[str, Any]) -> CheckpointRefused:
    known = ", ".join(f"{key} {value!r}" for key, value in row.items() if key not in ("model_type", "classes"))
    return CheckpointRefused(
        f"refused: the architecture {architecture!r} has no row, and probing did not find {what}"
        f"{f' (found {known})' if known else ''}.\n  A wrong tensor would give a wrong verdict silently. Add a row: "
        f"{ADD_A_ROW}."
    )

"""The oracle of gradients: what a small step at one place does to the metric, in float64, one prompt at a time.

Written with plain hooks against transformers' module names, and an attention function that transformers calls by name.
"""

from __future__ import annotations

import copy
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from naive import LAYOUTS, LLAMA
from pairs import ANSWER, FOIL
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from pytest_circuits.spec.components import Embedding, Head, Mlp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded
    from pytest_circuits.spec.edges import Receiver

    Change = Callable[[tuple[str, int], torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reading:
    """Where an architecture reads the residual stream; paths below a block, `final` below the module.

    `made` says which features of which module a head's queries, keys or values are: heads and key/value heads follow
    one another `stride` features apart.
    """

    attention_norm: str
    mlp_norm: str
    mlp: str
    final: str
    made: dict[str, tuple[str, int, int]]
    behind_heads: str = ""
    parallel: bool = False


W = 8  # features of a head
APART = {kind: (f"self_attn.{kind}_proj", 0, W) for kind in "qkv"}
READINGS = {
    "gpt2": Reading(
        "ln_1", "ln_2", "mlp", "transformer.ln_f", {kind: ("attn.c_attn", at * 32, W) for at, kind in enumerate("qkv")}
    ),
    "llama": Reading("input_layernorm", "post_attention_layernorm", "mlp", "model.norm", APART),
    "gpt_neox": Reading(
        "input_layernorm",
        "post_attention_layernorm",
        "mlp",
        "gpt_neox.final_layer_norm",
        {kind: ("attention.query_key_value", at * W, 3 * W) for at, kind in enumerate("qkv")},
        parallel=True,
    ),
    "gemma2": Reading(
        "input_layernorm",
        "pre_feedforward_layernorm",
        "mlp",
        "model.norm",
        {kind: (f"self_attn.{kind}_proj", 0, 12) for kind in "qkv"},
        "post_attention_layernorm",
    ),
    "olmo2": Reading("", "", "mlp", "model.norm", APART, "post_attention_layernorm"),
}

_change: list[Change] = []


class Whole(TorchFunctionMode):
    """Keeps norms and softmax in float64, which ask for float32 whatever they get."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wide = lambda one: torch.float64 if one is torch.float32 else one  # noqa: E731
        func = torch.Tensor.double if func is torch.Tensor.float else func
        return func(*map(wide, args), **{name: wide(one) for name, one in (kwargs or {}).items()})


def _attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    states = []
    for kind, one in zip("qkv", (query, key, value), strict=True):
        passed = one[0].transpose(0, 1)  # (seq, units, width)
        states.append(_change[-1]((kind, module.layer_idx), passed).transpose(0, 1)[None])
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return eager(module, *states, mask, **options)


AttentionInterface.register("oracle", _attention)
AttentionMaskInterface.register("oracle", eager_mask)


def unchanged(place: tuple[str, int], value: torch.Tensor) -> torch.Tensor:
    return value


class Derivatives:
    """A float64 copy of a model, run one prompt at a time."""

    def __init__(self, model: BoundModel, metric: str = "logit_diff") -> None:
        self.kind, self.heads, self.groups, self.metric = (
            model.architecture.model_type,
            model.heads,
            model.groups,
            metric,
        )
        self.module = copy.deepcopy(model.module).double().requires_grad_(False)
        self.module.set_attn_implementation("oracle")
        blocks, self.projection, self.adds = LAYOUTS.get(self.kind, LLAMA)
        self.blocks = list(self.module.get_submodule(blocks))
        self.reading = READINGS[self.kind]

    # -- runs ----------------------------------------------------------------------------------------------------------

    def logits(self, ids: Sequence[int], change: Change = unchanged, also: Any = ()) -> torch.Tensor:
        """Return the logits after the last token of a run in which every place passes through `change`.

        Places are `embed`, and of each layer `q`, `k`, `v` as attention gets them, `z` and what the `mlp` adds.
        """

        def embed(_: Any, args: Any, kwargs: Any) -> Any:
            inside = kwargs if not args else None
            value = change(("embed", 0), (args[0] if args else kwargs["hidden_states"])[0])[None]
            return ((value, *args[1:]), kwargs) if inside is None else (args, kwargs | {"hidden_states": value})

        def z(layer: int) -> Any:
            return lambda _, args: (
                change(("z", layer), args[0][0].reshape(len(ids), self.heads, -1)).reshape(1, len(ids), -1),
            )

        def mlp(layer: int) -> Any:
            return lambda _, args, out: change(("mlp", layer), out[0])[None]

        with ExitStack() as stack, Whole():
            for module, kind, hook in also:
                stack.enter_context(getattr(module, f"register_forward_{kind}hook")(hook))
            stack.enter_context(self.blocks[0].register_forward_pre_hook(embed, with_kwargs=True))
            for at, block in enumerate(self.blocks):
                stack.enter_context(block.get_submodule(self.projection).register_forward_pre_hook(z(at)))
                stack.enter_context(block.get_submodule(self.adds).register_forward_hook(mlp(at)))
            _change.append(change)
            try:
                logits: torch.Tensor = self.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            finally:
                _change.pop()
        return logits

    def measured(self, logits: torch.Tensor) -> torch.Tensor:
        """Return answer minus foil."""
        logits = logits.softmax(-1) if self.metric == "prob_diff" else logits
        return logits[ANSWER] - logits[FOIL]

    def values(self, ids: Sequence[int]) -> dict[tuple[str, int], torch.Tensor]:
        """Return what passes every place."""
        seen: dict[tuple[str, int], torch.Tensor] = {}
        self.logits(ids, lambda place, value: seen.setdefault(place, value.clone()))
        return seen

    def ablation(self, row: Encoded, rows: Sequence[Encoded], value: str) -> dict[tuple[str, int], torch.Tensor]:
        """Return own - ablated of every place at the clean positions, 0 where it is kept."""
        own, corrupt = self.values(row.clean), self.values(row.corrupt or ())
        where = torch.tensor([at for at, source in enumerate(row.source) if source >= 0])
        same = [other for other in rows if other.pair.template == row.pair.template]
        prompts = [ids for other in same for ids in (other.clean, other.corrupt) if ids and value == "mean"]
        seen = [self.values(ids) for ids in prompts]
        changes = {}
        for place, clean in own.items():
            if value == "resample":
                ablated = corrupt[place]
            elif value == "zero":
                ablated = torch.zeros_like(clean)
            else:
                back = range(len(clean), 0, -1)
                ablated = torch.stack(
                    [torch.stack([v[place][-at] for v in seen if len(v[place]) >= at]).mean(0) for at in back]
                )
            changes[place] = torch.zeros_like(clean)
            changes[place][where] = clean[where] - ablated[where]
        return changes

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def place(self, node: Any) -> tuple[tuple[str, int], int | None]:
        """Return where a node passes, and which unit it is there."""
        if isinstance(node, Embedding):
            return ("embed", 0), None
        if isinstance(node, Head):
            return ("z", node.layer), node.head
        return (("mlp", node.layer), None) if isinstance(node, Mlp) else ((node.kind, node.layer), node.unit)

    def of_node(self, changes: dict[tuple[str, int], torch.Tensor], node: Any) -> torch.Tensor:
        """Return the change at a node's place with that of every other node left out."""
        place, unit = self.place(node)
        if unit is None:
            return changes[place]
        kept = torch.zeros_like(changes[place])
        kept[:, unit] = changes[place][:, unit]
        return kept

    def patched(self, ids: Sequence[int], node: Any, change: torch.Tensor, share: float = 1.0) -> float:
        """Return the metric where that share of a node's change is taken from it."""
        there, _ = self.place(node)
        put = lambda place, value: value - share * change if place == there else value  # noqa: E731
        return float(self.measured(self.logits(ids, put)))

    def attended(self, ids: Sequence[int], node: Receiver, change: torch.Tensor) -> torch.Tensor:
        """Return how what its layer's heads put out changes where a node's queries or keys are patched whole."""
        there, _ = self.place(node)
        seen: dict[tuple[str, int], torch.Tensor] = {}

        def put(place: tuple[str, int], value: torch.Tensor) -> torch.Tensor:
            return seen.setdefault(place, value - change if place == there else value)

        self.logits(ids, put)
        return self.values(ids)["z", node.layer] - seen["z", node.layer]

    def slope(self, ids: Sequence[int], node: Any, change: torch.Tensor, step: float = 1e-5) -> float:
        """Return what ablating a node costs to first order, by central differences of small shares of the patch."""
        return (self.patched(ids, node, change, -step) - self.patched(ids, node, change, step)) / (2 * step)

    def gradients(
        self,
        ids: Sequence[int],
        places: Sequence[tuple[str, int]],
        dropped: int | None = None,
        start: torch.Tensor | float = 0.0,
    ) -> dict[tuple[str, int], torch.Tensor]:
        """Return the metric's gradient where what one layer's heads and MLP add is a constant; 0 where no way is left.

        `start` is taken from the embeddings.
        """
        leaves: dict[tuple[str, int], torch.Tensor] = {}

        def change(place: tuple[str, int], value: torch.Tensor) -> torch.Tensor:
            value = value - start if place == ("embed", 0) else value
            if place in places:
                step = leaves[place] = torch.zeros_like(value, requires_grad=True)
                value = value + step
            constant = place[0] in ("z", "mlp") and place[1] == dropped
            return value.detach() if constant else value

        total = self.measured(self.logits(ids, change))
        found = torch.autograd.grad(total, [leaves[place] for place in places], allow_unused=True)
        return {
            place: torch.zeros_like(leaves[place]) if one is None else one
            for place, one in zip(places, found, strict=True)
        }

    # -- edges ---------------------------------------------------------------------------------------------------------

    def edges(
        self,
        ids: Sequence[int],
        receiver: Receiver,
        changes: dict[tuple[str, int], torch.Tensor],
        moved: tuple[str, int] = ("embed", 0),
        share: float = 0.0,
    ) -> dict[Any, float]:
        """Return the derivative by what each sender adds to that which one receiver alone reads.

        In the run `share` of the change at `moved` is taken from it.
        """
        written: dict[Any, torch.Tensor] = {Embedding(): changes["embed", 0]}
        steps: dict[Any, torch.Tensor] = {}
        stream: dict[str, torch.Tensor] = {}

        def more(value: torch.Tensor) -> torch.Tensor:
            """Return what the receiver reads, with a step of each sender that wrote before it."""
            beside = receiver.layer if receiver.kind == "mlp" and self.reading.parallel else None
            for sender, one in written.items():
                if isinstance(sender, Head) and sender.layer == beside:
                    continue
                steps[sender] = torch.zeros((), dtype=one.dtype, requires_grad=True)
                value = value + steps[sender] * one
            return value

        def change(place: tuple[str, int], value: torch.Tensor) -> torch.Tensor:
            kind, layer = place
            if place == moved:
                value = value - share * changes[place]
            if kind == "z":
                written.update(self._heads(layer, value, changes[place]))
            if kind == "mlp":
                written[Mlp(layer)] = changes[place]
            return value

        total = self.measured(self.logits(ids, change, self._reading(receiver, more, stream)))
        found = torch.autograd.grad(total, list(steps.values()))
        return {sender: float(one) for sender, one in zip(steps, found, strict=True)}

    def _heads(self, layer: int, live: torch.Tensor, change: torch.Tensor) -> dict[Any, torch.Tensor]:
        """Return what a change of each head is in the residual stream; behind a norm by a small step both ways."""
        projection = self.blocks[layer].get_submodule(self.projection)
        weight = projection.weight if self.kind == "gpt2" else projection.weight.T
        width, found = change.shape[-1], {}
        for head in range(self.heads):
            one = change[:, head] @ weight[head * width : (head + 1) * width]
            if self.reading.behind_heads:
                norm = self.blocks[layer].get_submodule(self.reading.behind_heads)
                given, step = live.detach().flatten(1) @ weight, 1e-6
                one = (norm.forward(given + step * one) - norm.forward(given - step * one)) / (2 * step)
            found[Head(layer, head)] = one
        return found

    def _reading(self, receiver: Receiver, more: Any, stream: dict[str, torch.Tensor]) -> list[tuple[Any, str, Any]]:
        """Return the hooks that let one receiver read something else: on the side, through its own norm and weights."""
        if receiver.kind == "logits":
            final = self.module.get_submodule(self.reading.final)
            return [(final, "pre_", lambda _, args: (more(args[0][0])[None],))]
        block = self.blocks[receiver.layer]
        path = self.reading.mlp_norm if receiver.kind == "mlp" else self.reading.attention_norm
        norm = block.get_submodule(path) if path else None
        note = [] if norm is None else [(norm, "pre_", lambda _, args: stream.__setitem__("x", args[0][0]))]

        def read(given: torch.Tensor) -> torch.Tensor:
            x = given[0] if norm is None else stream["x"]
            return more(x)[None] if norm is None else norm.forward(more(x)[None])

        if receiver.kind == "mlp":
            return [*note, (block.get_submodule(self.reading.mlp), "pre_", lambda _, args: (read(args[0]),))]
        path, first, stride = self.reading.made[receiver.kind]
        width = (
            self.blocks[0].get_submodule(self.projection).weight.numel() // self.module.config.hidden_size // self.heads
        )
        piece = slice(first + receiver.unit * stride, first + receiver.unit * stride + width)
        module = block.get_submodule(path)

        def made(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            out = output.clone()
            out[..., piece] = module.forward(read(args[0]))[..., piece]
            return out

        return [*note, (module, "", made)]

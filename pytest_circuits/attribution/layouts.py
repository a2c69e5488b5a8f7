"""Whether a head's queries, keys and values are where the architecture's row says: turned round, each moves its own."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checkpoints.model import Site
from ..checkpoints.ov import maker, output_weight, read_weights, split
from ..checkpoints.rounding import gap
from ..errors import InstrumentError
from .readers import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float

    from ..checkpoints.attention import Kind
    from ..checkpoints.model import BoundModel, Edit

TOKENS = 3
TURNED: Mapping[Kind, int] = {"q": 1, "k": 0, "v": 0}
"""The token whose queries, keys or values are turned round."""
MOVES: Mapping[Kind, tuple[bool, ...]] = {"q": (False, True, False), "k": (False, True, True), "v": (False, True, True)}
"""The tokens that this can move: the query's own; those behind the first, which itself sees but one key."""


def refuse_other_layout(model: BoundModel) -> None:
    """Compare the architecture's row with what heads put out, in every layer.

    That edges add up to their sender's effect says nothing of this: whichever features are called a head's keys, in
    the sum they are all there. The first unit and the last are turned round (a norm over all features of a kind keeps
    its scale), and no other head may move, and no token that cannot be reached. The first token puts out its own value,
    or a part of it: turned round, that is turned round, which no key does.

    Raises:
        InstrumentError: something else moved, or a value turned nothing round.
        PromptError: the architecture has no weights by which a head reads.
    """
    ids = torch.arange(TOKENS, device=model.device).expand(2, TOKENS)
    heads = [Site("z", layer) for layer in range(model.layers)]
    inputs = [Site("residual", layer) for layer in range(1, model.layers)]
    own = model.forward(ids, keep=[*heads, *inputs]).values
    edits = {site: _constant(own[site]) for site in inputs}  # no layer sees what another one's turning does
    for kind in KINDS:
        with ExitStack() as stack:
            for layer in range(model.layers):
                hook = partial(_turn, features_of(model, layer, kind), TURNED[kind])
                stack.enter_context(maker(model, layer, kind).register_forward_hook(hook))
            turned = model.forward(ids, edits=edits, keep=heads).values
        for site in heads:
            _refuse_moved(model, kind, site.layer, turned[site], own[site])


def features_of(model: BoundModel, layer: int, kind: Kind) -> Tensor:
    """Return which features of what makes them are those of each unit, of shape (units, head_width)."""
    weights = read_weights(model, layer, kind)
    module: Any = maker(model, layer, kind)
    everything = sum(weights.shape[0] * weights.shape[1] for weights in _made_by(model, layer, module))
    numbers = torch.arange(everything, device=weights.device)
    width = output_weight(model, layer).shape[1]
    return split(numbers, model.architecture.value_layout, kind, heads=model.heads, width=width)


def _made_by(model: BoundModel, layer: int, module: object) -> list[Tensor]:
    return [read_weights(model, layer, kind) for kind in KINDS if maker(model, layer, kind) is module]


def _turn(features: Tensor, token: int, _: Any, args: Any, output: Tensor) -> Tensor:
    """Turn round the first unit of the first prompt, and the last of the second."""
    turned = output.clone()
    for row, unit in enumerate((0, -1)):
        turned[row, token, features[unit]] *= -1
    return turned


def _refuse_moved(
    model: BoundModel,
    kind: Kind,
    layer: int,
    turned: Float[Tensor, "two seq heads width"],
    own: Float[Tensor, "two seq heads width"],
) -> None:
    sharing = 1 if kind == "q" else model.heads // model.groups
    of_unit = torch.zeros(2, 1, model.heads, 1, dtype=torch.bool, device=own.device)
    of_unit[0, :, :sharing] = of_unit[1, :, -sharing:] = True
    moves = torch.tensor(MOVES[kind], device=own.device)[:, None, None]
    if kind == "k" and model.architecture.sinks:
        moves = torch.ones_like(moves)  # how much of the first token's attention goes nowhere, its key decides
    expected = own.clone()
    if kind == "v":
        expected[:, :1] = torch.where(of_unit, -own[:, :1], own[:, :1])
    largest, allowed = gap(torch.where(of_unit & moves, expected, turned), expected, model.dtype)
    if not largest <= allowed:
        raise InstrumentError(
            f"instrument: layer {layer}: a head's {kind} should be where a {model.architecture.model_type} laid out as "
            f"{model.architecture.value_layout!r} has them, and on {model.name!r} those move what another head puts "
            f"out, or another token, or turn nothing round (by {largest:.3g}, allowed {allowed:.3g}).\n"
            "  An edge would stand for another. Please report the architecture; its heads can be attributed."
        )


def _constant(value: Tensor) -> Edit:
    return lambda own: value

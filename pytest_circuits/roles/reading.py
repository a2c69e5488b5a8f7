"""Reading a role: what the score of each head in it is made of, measured for every head of the model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ..spec.components import Head
from ..spec.roles import kind_of, slot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from jaxtyping import Float

    from ..checkpoints.model import BoundModel
    from ..engine.runs import Runs

    Samples = Float[np.ndarray, "samples"]
    Scores = Mapping[Head, Mapping[str, Samples]]
    """Every head of the model -> what its score is made of, or a task's name -> numbers."""


@dataclass(frozen=True)
class Asked:
    """What a role is measured on.

    Attributes:
        runs: the prompts and the model; who watches them hears of the role as well.
        slot: the slot that the spec names for the heads to look at, if any.
        movers: the heads of the role that this one is defined through.
    """

    runs: Runs
    slot: str | None = None
    movers: tuple[Head, ...] = ()


def read_role(key: str, runs: Runs, movers: tuple[Head, ...] = ()) -> Scores:
    """Return what the role's score is made of, for every head: see `Factor` in `spec.roles` for what each number is.

    Args:
        key: the role's name, or `name:slot` where the spec names the slot that it looks at.
        runs: the prompts and the model.
        movers: the heads of the role that this one is defined through.

    Raises:
        PromptError: the prompts or the tokenizer do not have what the role asks for.
        SpecError: the role is defined through heads that the spec does not name.
        InstrumentError: what was read is not what the model does.
    """
    measure: Callable[[Asked], Scores] = import_module(f".{kind_of(key).name}", __package__).measure
    return measure(Asked(runs, slot_of(key), movers))


def every_head(model: BoundModel) -> tuple[Head, ...]:
    """Return all heads of a model, from the first layer on."""
    return tuple(Head(layer, head) for layer in range(model.layers) for head in range(model.heads))


def of_each(**factors: Mapping[Head, Samples]) -> Scores:
    """Return factors, each of which has numbers of every head, as the numbers of each head by factor."""
    first = next(iter(factors.values()))
    return {head: {name: found[head] for name, found in factors.items()} for head in first}

"""The greater-than head: it writes for numbers that are greater than the one it reads (arXiv:2305.00586, 2312.09230).

    bias(t) = sum over y > t of p_t(y)  -  sum over y <= t of p_t(y)

where p_t is the softmax, over a task's numerals, of what the head's OV circuit says of t (`ov_circuit.py`). Score = the
mean bias over a task's numerals, between -1 and 1. The greatest is not asked: it has none above it, so its bias is -1
whatever the head does, and without it a head that prefers nothing scores 0. The least is: a head that writes
the number it reads, rather than greater ones, fails on it as on the others.

Typical values: no paper gives this mean; in GPT-2 small L5H1, L5H5, L6H9, L7H10, L8H8, L8H11 and L9H1 carry the task
(arXiv:2305.00586), part of it through the MLPs behind them, which no head's weights show. A head that writes for great
numbers whatever it reads scores high as well, which a task's numbers one by one tell: its bias falls evenly. And a
successor head is not far from it: `successor` tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PromptError
from ..spec.components import Head
from .ov_circuit import logits_of
from .words import single_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor

    from .reading import Asked, Samples, Scores

TASKS: Mapping[str, tuple[str, ...]] = {
    "numerals": tuple(str(n) for n in range(201)),
    "two digits": tuple(f"{n:02d}" for n in range(100)),
}
LEAST = 10
"""A task of which the tokenizer has fewer numerals as single tokens is not scored."""


def measure(asked: Asked) -> Scores:
    """Return for each head and task the bias of each numeral but the greatest, in the numbers' order.

    Raises:
        PromptError: the tokenizer has too few numerals as single tokens; the model has no OV circuit of this form.
    """
    model = asked.runs.model
    found = {name: list(single_tokens(model, words).values()) for name, words in TASKS.items()}
    tasks = {name: tokens for name, tokens in found.items() if len(tokens) >= LEAST}
    if not tasks:
        raise PromptError(
            f"the role greater_than needs {LEAST} numerals that are single tokens of {model.name!r}, found "
            f"{max(map(len, found.values()))}.\n"
            "  Of a number in pieces no one token is greater. Drop the role for this checkpoint."
        )
    tokens = sorted({token for numerals in tasks.values() for token in numerals})
    places = {name: [tokens.index(token) for token in numerals] for name, numerals in tasks.items()}
    scores: dict[Head, Mapping[str, Samples]] = {}
    for layer, logits in logits_of(model, tokens, asked.runs.watch):
        for head, of_head in enumerate(logits):
            scores[Head(layer, head)] = {name: _bias(of_head[at][:, at]) for name, at in places.items()}
    return scores


def _bias(logits: Float[Tensor, "numerals numerals"]) -> Samples:
    """Return the mass on greater numerals less that on the others, for each but the greatest; rows are what is read."""
    above = logits.double().softmax(-1).triu(1).sum(-1)
    return (2 * above - 1)[:-1].cpu().numpy()

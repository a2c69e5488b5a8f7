"""A successor head in depth: does it read a number's last digit, and does it count on from a digit that was edited?

Gould et al. (arXiv:2312.09230) find that MLP_0 writes features of n mod 10, and that a successor head reads them. Here
x_n is what MLP_0 adds of the token of n (`ov_circuit.py`), and each number below is one for each token, 0 or 1:

probe          a linear probe of n mod 10 is right for a numeral that it was not fitted on: ridge regression on one-hot
               classes, each numeral left out in turn
transfer       the probe of all numerals is right for the index mod 10 of a token of another sequence
coverage       of the directions f_c = mean of x over class c - mean of x, that of a numeral's own class is the one that
               x_n lies along most, the numeral left out of its class
edit           with x_n - f_(n mod 10) + f_m in the place of x_n, the head's argmax over the task's tokens is the
               successor of the number whose last digit is m; for every m, of the numerals 20 to 29, all, and months

The paper takes a softmax probe (94 of 102 tokens of other sequences right), features of a sparse autoencoder (the
modal one covers 58.5 % of a class) and a factor before f_m that it tunes (numerals 20 to 29: 89 % of edits succeed,
months 53 %, weekdays and letters fail). Here is no autoencoder and nothing tuned: difference-in-means directions and
the factor 1. Chance is 0.1 for probe, transfer and coverage, and one in the task's tokens for an edit.

What is read from weights alone has no sampling error. That digits are there says not that a head reads them: the edit
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..attribution.unembedding import rows
from ..errors import PromptError
from . import greater_than
from .ov_circuit import final_states, first_stage
from .successor import LEAST, TASKS
from .words import single_tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jaxtyping import Float, Int

    from ..checkpoints.model import BoundModel
    from ..spec.components import Head
    from .reading import Asked, Samples, Scores

DIGITS = 10
PENALTY = 0.1
"""The ridge penalty, as a part of a numeral's mean squared norm."""
TIE = 1e-6
"""Scores of a probe, near 1 for the right class, and cosines are equal below this."""
EDITED: Mapping[str, tuple[str, range]] = {
    "edit numerals 20-29": ("numerals", range(20, 30)),
    "edit numerals": ("numerals", range(1, 10_000)),
    "edit months": ("months", range(1, 13)),
}
"""What is edited: the task, and which of its members, counted from 1."""


def measure_depth(asked: Asked, heads: Collection[Head]) -> Scores:
    """Return the numbers of each head by name; probe, transfer and coverage are MLP_0's and so the same for all.

    `greater than` holds the bias of each numeral (`greater_than.py`).

    Raises:
        PromptError: the tokenizer does not have each last digit in two numerals that are single tokens.
    """
    model = asked.runs.model
    numbers, x = _members(model, "numerals")
    digits = numbers % DIGITS
    if len(digits) == 0 or int(torch.bincount(digits, minlength=DIGITS).min()) < 2:
        raise PromptError(
            f"a successor head's digits are read from numerals that are single tokens, at least two with each last "
            f"digit, and {model.name!r} has {len(numbers)} numerals.\n"
            "  Of a class of one nothing can be left out. Drop the claim for this checkpoint."
        )
    first = {"probe": _probe(x, digits), "transfer": _transfer(model, x, digits), "coverage": _coverage(x, digits)}
    biases = greater_than.measure(asked)
    edits = _edits(model, _directions(x, digits), heads)
    return {head: {**first, **edits[head], "greater than": next(iter(biases[head].values()))} for head in sorted(heads)}


def _members(model: BoundModel, task: str) -> tuple[Int[Tensor, " tokens"], Float[Tensor, "tokens width"]]:
    """Return the places, from 1 on, of a task's words that are single tokens, and what MLP_0 adds of each."""
    words = TASKS[task].words
    tokens = single_tokens(model, words)
    numbers = torch.tensor([words.index(word) + 1 for word in tokens], dtype=torch.long)
    if not tokens:
        return numbers, torch.empty(0, 0)
    ids = torch.tensor(list(tokens.values()), device=model.device)
    return numbers, first_stage(model, ids).double().cpu()


def _one_hot(digits: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens digits"]:
    return torch.nn.functional.one_hot(digits, DIGITS).double()


@dataclass(frozen=True)
class Probe:
    """A ridge regression on the one-hot classes of n mod 10, about the means of what it was fitted on."""

    weights: Float[Tensor, "width digits"]
    mean: Float[Tensor, " width"]

    @classmethod
    def fit(cls, x: Float[Tensor, "tokens width"], digits: Int[Tensor, " tokens"]) -> Probe:
        """Solve it over the tokens, of which there are mostly fewer than numbers in each."""
        mean, classes = x.mean(0), _one_hot(digits)
        gram = (x - mean) @ (x - mean).T
        penalty = PENALTY * gram.diagonal().mean()
        fitted = torch.linalg.solve(gram + penalty * torch.eye(len(x), dtype=x.dtype), classes - classes.mean(0))
        return cls((x - mean).T @ fitted, mean)


def _probe(x: Float[Tensor, "tokens width"], digits: Int[Tensor, " tokens"]) -> Samples:
    """Return whether the probe is right on each numeral, fitted without it: means that know it would tell its class."""
    scores = []
    for at, others in _left_out(len(x)):
        probe = Probe.fit(x[others], digits[others])
        scores.append((x[at] - probe.mean) @ probe.weights)
    return _right(torch.stack(scores), digits)


def _transfer(model: BoundModel, x: Float[Tensor, "tokens width"], digits: Int[Tensor, " tokens"]) -> Samples:
    """Return whether the numerals' probe is right on each token of the other sequences, each sequence centred."""
    probe, right = Probe.fit(x, digits), [np.zeros(0)]
    for task in TASKS:
        numbers, found = _members(model, task)
        if task != "numerals" and len(numbers) >= LEAST:  # fewer, such as `may` alone, have no mean of their own
            right.append(_right((found - found.mean(0)) @ probe.weights, numbers % DIGITS))
    return np.concatenate(right)


def _coverage(x: Float[Tensor, "tokens width"], digits: Int[Tensor, " tokens"]) -> Samples:
    """Return whether each numeral lies along the direction of its own class most, the numeral left out of the class."""
    scores = []
    for at, others in _left_out(len(x)):
        directions = torch.nn.functional.normalize(_directions(x[others], digits[others]), dim=-1)
        away = x[at] - x[others].mean(0)
        scores.append(directions @ torch.nn.functional.normalize(away, dim=-1))
    return _right(torch.stack(scores), digits)


def _left_out(tokens: int) -> Iterator[tuple[int, Tensor]]:
    for at in range(tokens):
        yield at, torch.arange(tokens) != at


def _directions(x: Float[Tensor, "tokens width"], digits: Int[Tensor, " tokens"]) -> Float[Tensor, "digits width"]:
    classes = _one_hot(digits)
    return classes.T @ x / classes.sum(0)[:, None] - x.mean(0)


def _right(scores: Float[Tensor, "tokens digits"], digits: Int[Tensor, " tokens"]) -> Samples:
    """Return whether the right digit's score is the largest by more than rounding: a tie tells nothing."""
    best = scores.topk(2, dim=-1)
    told = best.values[:, 0] - best.values[:, 1] > TIE
    return np.asarray((told & (best.indices[:, 0] == digits)).double().numpy())


# -- edits -------------------------------------------------------------------------------------------------------------


def _edits(
    model: BoundModel, directions: Float[Tensor, "digits width"], heads: Collection[Head]
) -> dict[Head, dict[str, Samples]]:
    """Return for each head and each set of numbers whether each edit succeeds."""
    found: dict[Head, dict[str, Samples]] = {head: {} for head in heads}
    for name, (task, members) in EDITED.items():
        numbers, x = _members(model, task)
        places = {int(number): at for at, number in enumerate(numbers)}
        wanted = [
            (places[number], digit, places[edited + 1])
            for number in places
            for digit in range(DIGITS)
            if number in members and digit != number % DIGITS
            for edited in [number - number % DIGITS + digit]
            if edited in places and edited + 1 in places
        ]
        for head, right in _succeed(model, x, directions, wanted, heads, task):
            found[head][name] = right
    return found


def _succeed(
    model: BoundModel,
    x: Float[Tensor, "tokens width"],
    directions: Float[Tensor, "digits width"],
    wanted: Sequence[tuple[int, int, int]],
    heads: Collection[Head],
    task: str,
) -> Iterator[tuple[Head, Samples]]:
    if not wanted:
        return
    words = TASKS[task].words
    tokens = torch.tensor(list(single_tokens(model, words).values()), device=model.device)
    numbers = _members(model, task)[0]
    at, digit, goal = (torch.tensor(column) for column in zip(*wanted, strict=True))
    edited = x[at] - directions[numbers[at] % DIGITS] + directions[digit]
    for layer in sorted({head.layer for head in heads}):
        states = final_states(model, layer, edited.to(model.device, model.dtype))
        best = (states @ rows(model, tokens)[0].to(states.device).T).argmax(-1).cpu()
        for head in sorted(head for head in heads if head.layer == layer):
            yield head, (best[head.head] == goal).double().numpy()

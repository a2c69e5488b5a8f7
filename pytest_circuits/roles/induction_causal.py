"""The induction head by what it causes: what repeats is predicted through it (Olsson et al., arXiv:2209.11895).

Score = how much the logit difference falls when the head is mean-ablated, in logits, averaged over repeated random
tokens (`repeats.py`) that are cut before their last:

    c - h,  of  logit(r_S) - logit(r_(S/2))  after  r_1 .. r_S, r_1 .. r_(S-1)

The answer is the token that follows by repetition, the foil another of the same sequence, so that having seen a token
at all helps neither. The mean is over the sequences, position by position. The paper takes the fall of the loss over
the whole second half instead; a logit difference is in the unit of the other roles' effects, and no other token's
probability moves it. Its typical value is therefore in no paper: it is near 0 for heads that do not take part.

What it cannot tell: which part the head has. A previous-token head that induction heads read scores as they do, which
is why `induction` is a role of its own. Where heads do the same work in parallel, each of them alone moves little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.runs import Ablated, Runs
from ..prompts.encode import Encoded
from ..prompts.pair import Pair
from .reading import every_head
from .repeats import repeated

if TYPE_CHECKING:
    from .reading import Asked, Scores
    from .repeats import Repeated


def measure(asked: Asked) -> Scores:
    """Return by how much each head's mean ablation lowers the logit difference, in logits, for each sequence.

    Raises:
        PromptError: the model has too short a context or vocabulary.
        MeasurementError: logits are not finite.
    """
    given, heads, sequences = asked.runs, every_head(asked.runs.model), repeated(asked.runs.model)
    runs = Runs(
        given.model,
        prompts(sequences),
        value="mean",
        metric="logit_diff",
        batch_size=given.batch_size,
        watch=given.watch,
    )
    ablated = runs.sweep("repeated tokens", [Ablated(frozenset({head})) for head in heads])
    return {head: {sequences.name: runs.clean - one} for head, one in zip(heads, ablated, strict=True)}


def prompts(sequences: Repeated) -> list[Encoded]:
    """Return the repeated sequences, each cut before its last token, which is the answer."""
    ids = sequences.ids[:, :-1].tolist()
    every = tuple(range(len(ids[0])))
    pairs = [Pair(f"repeated tokens {n}", None, "the next", "another", "repeated tokens") for n in range(len(ids))]
    answers = sequences.ids[:, -1].tolist()
    foils = sequences.ids[:, -1 - sequences.size // 2].tolist()
    return [
        Encoded(pair, tuple(row), None, answer, foil, {}, (), every, 0)
        for pair, row, answer, foil in zip(pairs, ids, answers, foils, strict=True)
    ]

"""The successor head: one that maps a member of an ordered sequence to the next (Gould et al., arXiv:2312.09230).

Score = the share of a task's tokens t whose argmax over the task's tokens of what the head's OV circuit says of t
(`ov_circuit.py`) is the successor of t. Weekdays, months and their prefixes wrap; the last of the others has
no successor and is left out. The score comes from weights alone, so it has no sampling error; its step is 1/n tokens.

The control is a random permutation of the answers: a head that scores there does not know the order. Typical values:
the paper calls a head with more than 0.5 a successor head, and finds L12H0 in Pythia-1.4B. By another count, the top 5
of all tokens, L9H1 of GPT-2 small has 0.87 on numerals, and the mean head 0.03 (arXiv:2311.04131).
The score says what a head's weights can do. Whether the head attends to the token, and is used, is the matter of
`heads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..checkpoints.rounding import tolerance
from ..errors import PromptError
from ..spec.components import Head
from .ov_circuit import logits_of
from .words import single_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor

    from ..checkpoints.model import BoundModel
    from .reading import Asked, Samples, Scores

ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)
DAYS = "monday tuesday wednesday thursday friday saturday sunday"
DAY_PREFIXES = "mon tue wed thu fri sat sun"
MONTH_PREFIXES = "jan feb mar apr may jun jul aug sep oct nov dec"
MONTHS = "january february march april may june july august september october november december"


@dataclass(frozen=True)
class Task:
    """An ordered sequence of words; in a cyclic one the first follows the last."""

    words: tuple[str, ...]
    cyclic: bool = False


TASKS: Mapping[str, Task] = {
    "numerals": Task(tuple(str(n) for n in range(1, 201))),
    "number words": Task((*ONES.split(), "eighteen", "nineteen", "twenty")),
    "ordinals": Task(tuple(ORDINALS.split())),
    "weekdays": Task(tuple(DAYS.split()), cyclic=True),
    "months": Task(tuple(MONTHS.split()), cyclic=True),
    "day prefixes": Task(tuple(DAY_PREFIXES.split()), cyclic=True),
    "month prefixes": Task(tuple(MONTH_PREFIXES.split()), cyclic=True),
    "letters": Task(tuple("abcdefghijklmnopqrstuvwxyz")),
}
LEAST = 7
"""A task of which the tokenizer has fewer steps as single tokens, one less than a week's, is not scored."""


def measure(asked: Asked) -> Scores:
    """Return for each head and task one number for each token that has a successor: 1 where the argmax is that, else 0.

    Raises:
        PromptError: the tokenizer has no task's words as single tokens; the model has no OV circuit of this form.
    """
    model = asked.runs.model
    tasks = {name: steps for name, task in TASKS.items() if len(steps := _steps(model, task)) >= LEAST}
    if not tasks:
        raise PromptError(
            f"the role successor needs sequence words that are single tokens of {model.name!r}, found none.\n"
            f"  Tried: {', '.join(TASKS)}. Without them the score would be empty."
        )
    tokens = sorted({token for steps in tasks.values() for token in (*steps, *steps.values())})
    scores: dict[Head, Mapping[str, Samples]] = {}
    for layer, logits in logits_of(model, tokens, asked.runs.watch):
        for head, of_head in enumerate(logits):
            scores[Head(layer, head)] = {name: _hits(of_head, tokens, steps) for name, steps in tasks.items()}
    return scores


def _hits(logits: Float[Tensor, "tokens tokens"], tokens: list[int], steps: Mapping[int, int]) -> Samples:
    """Return whether the argmax of each step's token, over the tokens of its task, is the step's successor.

    It is none where rounding cannot tell it from another: a head that writes nothing has none.
    """
    at = {token: place for place, token in enumerate(tokens)}
    task = [at[token] for token in sorted({*steps, *steps.values()})]
    of_task = logits[[at[token] for token in steps]][:, task]
    goals = [task.index(at[token]) for token in steps.values()]
    goal = of_task[range(len(goals)), goals][:, None]
    slack = tolerance(torch.float32) * of_task.abs().amax(-1, keepdim=True)
    return ((of_task >= goal - slack).sum(-1) == 1).double().cpu().numpy()


def _steps(model: BoundModel, task: Task) -> dict[int, int]:
    """Return token -> successor token, of the words that are single tokens."""
    single = single_tokens(model, task.words)
    following = [*task.words[1:], task.words[0]] if task.cyclic else task.words[1:]
    pairs = zip(task.words, following, strict=False)
    return {single[a]: single[b] for a, b in pairs if a in single and b in single}

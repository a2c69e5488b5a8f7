"""The successor head: one that maps a member of an ordered sequence to the next (Gould et al., arXiv 2312.09230).

Score = the share of a task's tokens t whose argmax over the task's tokens of

    W_U  LN_f( W_OV^h  LN_l( MLP_0(LN_0(W_E[t])) ) )

is the successor of t. MLP_0 is the first stage that Gould et al. found: it turns a token into its index in its
sequence. They fold the norms away; here the model's own norms are applied, so that a scale it learned is not lost:
those before MLP_0 and the head, and those behind them where the architecture has any. W_E[t] is what the embedding puts
into the residual stream, without a learned position. W_OV is W_V W_O without its biases, which are the same for every
token. Weekdays and months wrap; the last of the others has no successor and is left out. The score comes from weights
alone, so it has no sampling error; its step is 1/n tokens.

The control is a random permutation of the answers: a head that scores there does not know the order. Typical values:
0.87 to 0.9 for the best head of GPT-2 small and Pythia-1.4B, near 0.03 for most heads (arXiv 2312.09230, 2311.04131).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.model import EMBED, Site
from ..checkpoints.ov import at_hand, output_weight, value_weight
from ..checkpoints.rounding import gap
from ..errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float, Int

    from ..checkpoints.model import BoundModel
    from ..spec.components import Head

ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)
DAYS = "monday tuesday wednesday thursday friday saturday sunday"
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
    "letters": Task(tuple("abcdefghijklmnopqrstuvwxyz")),
}
LEAST = 5
"""A task of which the tokenizer has fewer steps as single tokens is not scored."""


def successor_scores(model: BoundModel, heads: Sequence[Head]) -> dict[Head, dict[str, tuple[int, int]]]:
    """Return for each head and task (tokens whose argmax is the successor, tokens asked).

    Raises:
        PromptError: the tokenizer has no task's words as single tokens.
    """
    tasks = {name: steps for name, task in TASKS.items() if len(steps := _steps(model, task)) >= LEAST}
    if not tasks:
        raise PromptError(
            f"the role successor needs sequence words that are single tokens of {model.name!r}, found none.\n"
            f"  Tried: {', '.join(TASKS)}. Without them the score would be empty."
        )
    scores: dict[Head, dict[str, tuple[int, int]]] = {head: {} for head in heads}
    with torch.inference_mode():
        every = torch.tensor(sorted({token for steps in tasks.values() for token in (*steps, *steps.values())}))
        first = _first_mlp(model, every.to(model.device))
        for name, steps in tasks.items():
            tokens = torch.tensor(sorted({*steps, *steps.values()}))
            of_task = first[torch.searchsorted(every, tokens).to(first.device)]
            for head in heads:
                logits = _ov_logits(model, head, of_task, tokens.to(model.device))
                scores[head][name] = _hits(logits, tokens.to(model.device), steps)
    return scores


def _hits(
    logits: Float[Tensor, "tokens tokens"], tokens: Int[Tensor, " tokens"], steps: Mapping[int, int]
) -> tuple[int, int]:
    best = tokens[logits.argmax(-1)]
    hits = sum(steps.get(int(token)) == int(found) for token, found in zip(tokens, best, strict=True))
    return hits, len(steps)


def _first_mlp(model: BoundModel, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens width"]:
    """Return what the first layer's MLP adds where the residual stream holds the token's embedding and nothing else."""
    row = model.architecture
    embedded = _embedded(model, tokens)
    site = Site("mlp", 0)
    with model.part(0, row.mlp_norm or row.mlp).register_forward_pre_hook(
        lambda _, args: (embedded.reshape(args[0].shape), *args[1:])
    ):
        return model.forward(tokens[:, None], keep=[site]).values[site][:, 0]


def _embedded(model: BoundModel, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens width"]:
    """Return what the embedding of each token puts into the residual stream, a learned position left out.

    Raises:
        PromptError: between the two there is a map that this formula does not have.
    """
    stream = model.forward(tokens[:, None], keep=[EMBED]).values[EMBED][:, 0]
    embedded: Tensor = model.module.get_input_embeddings()(tokens).to(stream.device)
    if embedded.shape != stream.shape:
        raise PromptError(
            f"the role successor reads a head through the embedding, which in {model.name!r} has {embedded.shape[-1]} "
            f"numbers, and the residual stream {stream.shape[-1]}.\n  What maps one to the other is no part of the "
            "role's formula, so the score would not be the published one. Drop the role for this checkpoint."
        )
    added = stream - embedded
    largest, allowed = gap(added, added[:1].expand_as(added), model.dtype)
    return embedded if largest <= allowed else stream  # a position adds the same to all; a scale or a norm does not


def _ov_logits(
    model: BoundModel, head: Head, first: Float[Tensor, "tokens width"], tokens: Int[Tensor, " tokens"]
) -> Float[Tensor, "tokens tokens"]:
    """Return what the head's OV circuit says of each token: logits over the same tokens, in float32."""
    row = model.architecture
    normed = model.part(head.layer, row.attention_norm)(first) if row.attention_norm else first
    value, output = value_weight(model, head.layer, head.head), output_weight(model, head.layer)[head.head]
    written = (normed.float() @ value @ output.float()).to(model.dtype)
    if row.attention_adds:
        written = model.part(head.layer, row.attention_adds)(written)
    final = model.module.get_submodule(row.final_norm)(written) if row.final_norm else written
    logits: Tensor = final.float() @ at_hand(model.module.get_output_embeddings())[tokens].float().T
    return logits


def _steps(model: BoundModel, task: Task) -> dict[int, int]:
    """Return token -> successor token, in the spelling of which the tokenizer has most as single tokens."""
    spellings = [
        {word: ids[0] for word in task.words if len(ids := spell(model, word)) == 1}
        for spell in (_bare, _spaced, _capital)
    ]
    single = max(spellings, key=len)
    following = [*task.words[1:], task.words[0]] if task.cyclic else task.words[1:]
    pairs = zip(task.words, following, strict=False)
    return {single[a]: single[b] for a, b in pairs if a in single and b in single}


def _bare(model: BoundModel, word: str) -> list[int]:
    return _known(model, model.tokenizer(word, add_special_tokens=False)["input_ids"])


def _spaced(model: BoundModel, word: str) -> list[int]:
    return _bare(model, f" {word}")


def _capital(model: BoundModel, word: str) -> list[int]:
    return _bare(model, f" {word.capitalize()}")


def _known(model: BoundModel, ids: list[int]) -> list[int]:
    """Return the ids, or none where one of them is the unknown token or has no embedding."""
    return ids if all(at != model.tokenizer.unk_token_id and at < model.vocabulary for at in ids) else []

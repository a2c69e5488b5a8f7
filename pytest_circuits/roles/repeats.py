"""Repeated random tokens: the prompts on which heads that look for an earlier copy are told from the others.

Each sequence is r_1 .. r_S, r_1 .. r_S behind the tokenizer's BOS token, if it has one. Nothing in the tokens says what
comes next but the repetition, so what a head does in the second half it does by looking back (Olsson et al.,
arXiv:2209.11895, who take S = 50). The tokens of a sequence are distinct, so that each has one earlier copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..checkpoints.attention import attention_of
from ..errors import PromptError
from .reading import every_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int

    from ..checkpoints.model import BoundModel
    from ..engine.runs import Runs
    from .reading import Asked, Scores

SEQUENCES = 16
LONGEST, SHORTEST = 50, 8
"""Tokens that are repeated: so many where context and vocabulary allow, and no fewer than so many."""


@dataclass(frozen=True)
class Repeated:
    """The sequences, all of one length.

    Attributes:
        ids: token ids, the BOS among them.
        size: S, the number of tokens that are repeated.
    """

    ids: Int[np.ndarray, "sequences tokens"]
    size: int

    @property
    def name(self) -> str:
        """What their numbers are stored under: those of another S do not compare."""
        return f"{self.size} repeated tokens"

    @property
    def second(self) -> int:
        """The position of the first token's repetition."""
        return int(self.ids.shape[1]) - self.size

    @property
    def follows(self) -> int:
        """The first position whose token has a token of the sequence before it."""
        return self.second - self.size + 1


def repeated(model: BoundModel) -> Repeated:
    """Return the sequences of a model's tokenizer: always the same, and mostly the same where tokens were added.

    Raises:
        PromptError: context or vocabulary are too short for a repetition to tell anything.
    """
    bos = () if model.tokenizer.bos_token_id is None else (int(model.tokenizer.bos_token_id),)
    tokens = _plain(model)
    size = min(LONGEST, (model.context - len(bos)) // 2, len(tokens))
    if size < SHORTEST:
        raise PromptError(
            f"roles that are read on repeated tokens need {SHORTEST} distinct tokens, twice in one prompt, and "
            f"{model.name!r} has {model.context} positions and {len(tokens)} plain tokens.\n"
            "  In fewer, chance looks like a repetition. Drop these roles for this checkpoint."
        )
    half = _ranked(tokens)[:, :size]
    return Repeated(np.concatenate([np.full((SEQUENCES, len(bos)), bos), half, half], axis=1).astype(np.int64), size)


def attention_back(asked: Asked, back: int, *, since: int, sequences: Repeated) -> Scores:
    """Return each head's mean attention to the token `back` positions before, over queries from position `since` on.

    Under the sequences' name there is one number between 0 and 1 for each of them.

    Raises:
        InstrumentError: the attention read is not where the heads attended.
    """
    found = asked.runs.with_room(lambda: _attention_back(asked.runs, back, since, sequences.ids))
    return {head: {sequences.name: found[head.layer, :, head.head]} for head in every_head(asked.runs.model)}


def _attention_back(runs: Runs, back: int, since: int, ids: np.ndarray) -> np.ndarray:
    parts = []
    for at in range(0, len(ids), runs.batch_size):
        batch = torch.tensor(ids[at : at + runs.batch_size], device=runs.model.device)
        mean = attention_of(
            runs.model, batch, lambda pattern: pattern.diagonal(-back, -2, -1)[..., since - back :].mean(-1)
        )
        parts.append(mean.double().cpu().numpy())
        runs.watch("repeated tokens", min(at + runs.batch_size, len(ids)), len(ids))
    return np.concatenate(parts, axis=1)


def _plain(model: BoundModel) -> list[int]:
    """Return the tokens that have an embedding and stand for text."""
    tokenizer = model.tokenizer
    marks = {tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids}
    marks |= {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return [token for token in range(min(len(tokenizer), model.vocabulary)) if token not in marks]


def _ranked(tokens: Sequence[int]) -> Int[np.ndarray, "sequences tokens"]:
    """Return the tokens in the order of each sequence: by their sha256, read from another pair of its bytes on.

    A hash has as many pairs of bytes as there are sequences. A token that is added moves no other's place.
    """
    hashes = b"".join(sha256(str(token).encode()).digest() for token in tokens)
    digests = np.frombuffer(hashes, np.uint8).reshape(len(tokens), 2 * SEQUENCES)
    keys = [np.roll(digests, -2 * n, axis=1)[:, :8].copy().view(">u8")[:, 0] for n in range(SEQUENCES)]
    return np.array(tokens)[np.argsort(keys, axis=1, kind="stable")]

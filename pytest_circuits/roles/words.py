"""Words that are one token each, as a tokenizer spells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..checkpoints.model import BoundModel


def single_tokens(model: BoundModel, words: Iterable[str]) -> dict[str, int]:
    """Return word -> token of the words that are single tokens, in their order.

    Bare, behind a space, or capitalised behind one: in the spelling of which the tokenizer has most. A word whose
    token is the unknown one, or has no embedding, is left out.
    """
    words = tuple(words)
    spellings = [
        {word: ids[0] for word in words if len(ids := spell(model, word)) == 1} for spell in (_bare, _spaced, _capital)
    ]
    return max(spellings, key=len)


def _bare(model: BoundModel, word: str) -> list[int]:
    return _known(model, model.tokenizer(word, add_special_tokens=False)["input_ids"])


def _spaced(model: BoundModel, word: str) -> list[int]:
    return _bare(model, f" {word}")


def _capital(model: BoundModel, word: str) -> list[int]:
    return _bare(model, f" {word.capitalize()}")


def _known(model: BoundModel, ids: list[int]) -> list[int]:
    """Return the ids, or none where one of them is the unknown token or has no embedding."""
    return ids if all(at != model.tokenizer.unk_token_id and at < model.vocabulary for at in ids) else []

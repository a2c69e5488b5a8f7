"""Pairs in tokens of a real model's tokenizer, whose tokens carry the space before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pytest_circuits.errors import PromptError
from pytest_circuits.prompts.encode import encode
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.schema import Ablation, Tokens
from pytest_circuits.spec.slots import fill

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def real(stories: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(stories, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def pronoun(word: str, twin: str, answer: str, foil: str) -> Pair:
    text = "Once upon a time there was a {who}. One day"
    clean, spans = fill(text, {"who": word})
    return Pair(clean, fill(text, {"who": twin})[0], answer, foil, "t", {"who": word}, "who", spans)


def test_a_real_tokenizer_puts_its_bos_first_and_finds_the_slot(real: PreTrainedTokenizerFast) -> None:
    (found,) = encode([pronoun("girl", "boy", "she", "he")], real, Tokens(), Ablation(align="slot"))

    assert list(found.clean) == real(found.pair.clean)["input_ids"]
    assert found.clean[0] == real.bos_token_id
    assert real.decode([found.clean[at] for at in found.spans["who"]]).strip() == "girl"
    assert real.decode([found.answer, found.foil]).split() == ["she", "he"]
    assert [*found.clean, found.answer] == real(found.pair.clean + " she")["input_ids"]


def test_a_real_tokenizer_shows_which_answers_are_more_than_one_token(real: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        PromptError, match="1 answers are not a single token right after their prompt: 'elephants'; only"
    ):
        encode([pronoun("girl", "boy", "she", "elephants")], real, Tokens(), Ablation(align="slot"))


def test_without_the_space_an_answer_is_another_token_or_none(real: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PromptError, match="answers are not a single token right after their prompt"):
        encode([pronoun("girl", "boy", "she", "he")], real, Tokens(join=""), Ablation(align="slot"))


def test_words_of_other_lengths_are_found(real: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PromptError, match="1 words have another number of tokens than their twin: 'girl'; positions"):
        encode([pronoun("girl", "elephant", "she", "he")], real, Tokens(), Ablation())

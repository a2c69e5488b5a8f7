"""Pairs in tokens of a small word-level tokenizer, and every reason why a tokenizer cannot ask them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from pytest_circuits.errors import PromptError
from pytest_circuits.prompts.encode import Encoded, encode
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.prompts.pairs import pairs_of
from pytest_circuits.spec.schema import Ablation, Tokens
from pytest_circuits.spec.slots import fill

from .conftest import WORDS, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .conftest import Project

IDS = {word: index for index, word in enumerate(["<unk>", "<bos>", "<eos>", *WORDS])}


def ids(text: str) -> tuple[int, ...]:
    return tuple(IDS[word] for word in text.split())


def flipped(text: str, word: str, twin: str, answer: str = "is", foil: str = "are", **others: str) -> Pair:
    clean, spans = fill(text, {"a": word, **others})
    corrupt, _ = fill(text, {"a": twin, **others})
    return Pair(clean, corrupt, answer, foil, "t", {"a": word, **others}, "a", spans)


def from_file(clean: str, corrupt: str | None, answer: str = "is", foil: str = "are") -> Pair:
    return Pair(clean, corrupt, answer, foil, "all")


KEY = flipped("the {a} {b} it", "key", "keys", b="near")


def run(*pairs: Pair, tokenizer: Any = None, tokens: Tokens | None = None, **ablation: Any) -> tuple[Encoded, ...]:
    return encode(pairs, tokenizer or word_tokenizer(), tokens or Tokens(), Ablation(**ablation))


def refusal(*pairs: Pair, **options: Any) -> str:
    with pytest.raises(PromptError) as caught:
        run(*pairs, **options)
    return str(caught.value)


def test_a_pair_becomes_its_ids() -> None:
    (found,) = run(KEY)

    assert found == Encoded(
        pair=KEY,
        clean=ids("the key near it"),
        corrupt=ids("the keys near it"),
        answer=IDS["is"],
        foil=IDS["are"],
        spans={"a": (1,), "b": (2,)},
        flip=(1,),
        source=(0, 1, 2, 3),
        left_over=0,
    )


def test_pairs_keep_their_order() -> None:
    pairs = [flipped("the {a}", word, word + "s") for word in ("key", "dog", "lamp", "author")]

    assert [it.pair for it in run(*pairs)] == pairs


def test_the_pairs_of_a_spec_are_encoded(project: Project, words: PreTrainedTokenizerFast) -> None:
    file = project.load(
        "  vocabulary:\n    a: {x: [dog, author, key, lamp], y: [dogs, authors, keys, lamps]}\n"
        "    v: {x: [is, was], y: [are, were]}\n    n: [near, behind]\n"
        "  templates: [{id: t, text: 'the {a} {n} it', answer: '{v}', flip: a}]\n"
    )
    encoded = encode(pairs_of(file).pairs, words, file.spec.tokens, file.spec.ablation)

    assert len(encoded) == 16
    for it in encoded:
        assert words.decode(it.clean) == it.pair.clean
        assert words.decode(it.corrupt) == it.pair.corrupt
        assert (words.decode([it.answer]), words.decode([it.foil])) == (it.pair.answer, it.pair.foil)
        assert [words.decode([it.clean[at]]) for at in it.spans["n"]] == [it.pair.slots["n"]]


BOS = [
    ("auto", "<bos> $A", True),
    ("auto", "<bos> $A <eos>", True),
    ("auto", "$A <eos>", False),
    ("auto", "", False),
    ("always", "<bos> $A", True),
    ("always", "", True),
    ("never", "<bos> $A", False),
    ("never", "", False),
]


@pytest.mark.parametrize(("policy", "adds", "expected"), BOS)
def test_the_bos_is_there_as_the_policy_says_and_nothing_stands_behind(policy: Any, adds: str, expected: bool) -> None:
    (found,) = run(KEY, tokenizer=word_tokenizer(adds=adds), tokens=Tokens(bos=policy), positions="b")
    first = (IDS["<bos>"],) if expected else ()

    assert found.clean == first + ids("the key near it")
    assert found.corrupt == first + ids("the keys near it")
    assert found.spans == {"a": (1 + expected,), "b": (2 + expected,)}
    assert [at for at, origin in enumerate(found.source) if origin >= 0] == [2 + expected]


def test_bos_always_is_refused_where_the_tokenizer_has_none() -> None:
    tokenizer = word_tokenizer(bos=None)

    assert refusal(KEY, tokenizer=tokenizer, tokens=Tokens(bos="always")) == (
        "tokens.bos is always, but this tokenizer has no BOS token; write auto or never"
    )
    assert run(KEY, tokenizer=tokenizer)[0].clean == ids("the key near it")


@pytest.mark.parametrize(
    ("adds", "policy", "text"),
    [
        ("<bos> $A", "auto", "<bos> the {a}"),
        ("", "always", "<bos> the {a}"),
        ("<bos> <bos> $A", "auto", "the {a}"),
        ("", "never", "<bos> <bos> the {a}"),
    ],
)
def test_two_bos_tokens_are_refused(adds: str, policy: Any, text: str) -> None:
    found = refusal(flipped(text, "key", "keys"), tokenizer=word_tokenizer(adds=adds), tokens=Tokens(bos=policy))

    clean, corrupt = text.format(a="key"), text.format(a="keys")
    assert found == (
        f"2 prompts begin with two BOS tokens: {clean!r}, {corrupt!r}; "
        "remove the one in the text, or write tokens.bos: never"
    )


def test_a_bos_in_the_text_is_fine_where_nothing_adds_another() -> None:
    assert run(flipped("<bos> the {a}", "key", "keys"))[0].clean == ids("<bos> the key")


class Merging:
    """A tokenizer that reads a text as other tokens once special tokens are added."""

    bos_token_id, unk_token_id, unk_token = 1, None, None

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> dict[str, Any]:
        plain = word_tokenizer()(text, add_special_tokens=False, return_offsets_mapping=return_offsets_mapping)
        return {"input_ids": [7, 7], "offset_mapping": [(0, 1), (1, 2)]} if add_special_tokens else dict(plain)


def test_bos_auto_is_refused_where_special_tokens_change_the_text() -> None:
    assert refusal(KEY, tokenizer=Merging()) == (
        "with its special tokens the tokenizer reads 'the key near it' as other tokens than without, so tokens.bos: "
        "auto has no meaning; write always or never"
    )
    assert run(KEY, tokenizer=Merging(), tokens=Tokens(bos="never"))[0].clean == ids("the key near it")


ANSWERS = "only then one logit tells an answer; use others, or change tokens.join"


def test_an_answer_of_more_tokens_is_refused() -> None:
    assert refusal(flipped("the {a}", "key", "keys", "is it", "are")) == (
        f"1 answers are not a single token right after their prompt: 'is it'; {ANSWERS}"
    )


def test_an_answer_that_melts_into_the_prompt_is_refused() -> None:
    found = refusal(KEY, tokens=Tokens(join=""))

    assert f"2 answers are not a single token right after their prompt: 'is', 'are'; {ANSWERS}" in found


@pytest.mark.parametrize("answer", [" is", "\nis", "\tis"])
def test_an_answer_that_begins_with_a_space_of_its_own_is_not_joined(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    tokenizer = word_tokenizer()
    call = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer), "__call__", lambda self, text, **options: asked.append(text) or call(self, text, **options)
    )
    with nullcontext() if answer[0] == " " else pytest.raises(PromptError):
        run(flipped("the {a}", "key", "keys", answer, "are"), tokenizer=tokenizer)

    assert f"the key{answer}" in asked
    assert f"the key {answer}" not in asked


def test_an_answer_and_a_foil_that_are_one_token_are_refused() -> None:
    tokenizer = word_tokenizer()

    assert refusal(flipped("the {a}", "key", "keys", "is", " is"), tokenizer=tokenizer) == (
        "1 answers and foils are the same token: 'is' and ' is'; nothing would be told apart"
    )


def test_words_that_the_vocabulary_lacks_are_refused() -> None:
    assert refusal(flipped("the {a} of", "key", "kees", "is", "be")) == (
        "3 words are not in the tokenizer's vocabulary: 'of', 'kees', 'be'; use words that it knows"
    )


def test_the_unknown_token_itself_may_be_asked_for() -> None:
    assert run(flipped("<unk> {a}", "key", "keys"))[0].clean == ids("<unk> key")


LONGER = flipped("the {a} near it", "key", "two keys")
LENGTH = (
    "1 words have another number of tokens than their twin: 'key'; positions then have no counterpart; "
    "use words of equal length, or ablation.align: slot, positions: last, or value: zero or mean"
)


def test_a_twin_of_another_length_is_refused() -> None:
    assert refusal(LONGER) == LENGTH
    assert refusal(LONGER, positions="a") == LENGTH


def test_a_twin_of_another_length_from_a_file_is_refused_with_its_prompt() -> None:
    assert refusal(from_file("the key", "the two keys")) == LENGTH.replace("'key'", "'the key'")


UNEQUAL = [
    ({"align": "slot"}, (0, -1, 3, 4), 1),
    ({"align": "slot", "positions": "a"}, (-1, -1, -1, -1), 1),
    ({"positions": "last"}, (-1, -1, -1, 4), 0),
    ({"value": "zero"}, (0, 1, 2, 3), 0),
    ({"value": "mean", "positions": "a"}, (-1, 1, -1, -1), 0),
]


@pytest.mark.parametrize(("ablation", "source", "left_over"), UNEQUAL)
def test_a_twin_of_another_length_is_read_where_positions_need_no_counterpart(
    ablation: dict[str, str], source: tuple[int, ...], left_over: int
) -> None:
    (found,) = run(LONGER, **ablation)

    assert (found.source, found.left_over, found.flip) == (source, left_over, (1,))
    assert found.corrupt == ids("the two keys near it")


def test_slot_alignment_keeps_the_flipped_word_where_lengths_are_equal() -> None:
    (found,) = run(KEY, align="slot")

    assert (found.source, found.left_over) == ((0, 1, 2, 3), 0)


def test_the_last_position_and_a_slot_are_replaced_alone() -> None:
    assert run(KEY, positions="last")[0].source == (-1, -1, -1, 3)
    assert run(KEY, positions="b")[0].source == (-1, -1, 2, -1)


def test_a_slot_that_covers_no_token_is_refused_where_only_it_is_replaced() -> None:
    blank = flipped("the {a} {b} it", "key", "keys", b=" ")

    assert run(blank)[0].spans["b"] == ()
    assert refusal(blank, positions="b") == (
        "1 words of the slot that ablation.positions names cover no token: ' '; nothing would be replaced; "
        "use others, or another slot"
    )


OUTSIDE = (
    "1 words change tokens outside of their slot: 'key'; then more than the flipped word differs; "
    "use others, or another template"
)


@pytest.mark.parametrize(
    "corrupt", ["a keys near it", "the keys behind it", "the keys near an", "a key near it", "the key behind it"]
)
def test_a_difference_outside_of_the_flipped_slot_is_refused(corrupt: str) -> None:
    pair = Pair(KEY.clean, corrupt, "is", "are", "t", KEY.slots, "a", KEY.spans)

    assert refusal(pair) == OUTSIDE


@pytest.mark.parametrize("corrupt", ["a two keys near it", "the two keys behind it", "it"])
def test_a_difference_outside_of_the_slot_is_refused_for_unequal_lengths_too(corrupt: str) -> None:
    pair = Pair(KEY.clean, corrupt, "is", "are", "t", KEY.slots, "a", KEY.spans)

    assert refusal(pair, align="slot") == OUTSIDE


def test_ends_that_overlap_in_a_shorter_twin_are_outside_of_the_slot_too() -> None:
    pair = flipped("it {a} it", "key", "keys")

    assert refusal(Pair(pair.clean, "it", "is", "are", "t", pair.slots, "a", pair.spans), align="slot") == OUTSIDE


def test_a_flipped_word_that_becomes_no_token_is_refused() -> None:
    assert refusal(flipped("the {a} it", " ", "key"), align="slot") == OUTSIDE.replace("'key'", "' '")


def test_a_difference_between_two_flipped_words_is_refused() -> None:
    text = "{a} near {a}"
    good = flipped(text, "key", "keys")

    assert run(good)[0].flip == (0, 2)
    assert refusal(Pair(good.clean, "keys behind keys", "is", "are", "t", good.slots, "a", good.spans)) == OUTSIDE


def test_clean_and_corrupt_of_the_same_tokens_are_refused() -> None:
    assert "1 clean and corrupt prompts are the same tokens: 'the key near it'; nothing would differ" in refusal(
        Pair(KEY.clean, "the  key near it", "is", "are", "t", KEY.slots, "a", KEY.spans)
    )


def test_pairs_that_become_the_same_tokens_are_refused() -> None:
    assert refusal(KEY, flipped("the {a}  {b} it", "key", "keys", b="near")) == (
        "1 prompts become the same tokens as another pair: 'the key  near it'; each pair must count once"
    )


def test_a_prompt_without_any_token_is_refused() -> None:
    assert "1 prompts have no token at all: ' '" in refusal(from_file(" ", "the"))


def test_a_file_pair_says_where_its_twin_differs() -> None:
    (same_length,) = run(from_file("the key near the lamp", "the keys near the lamps"))
    (longer,) = run(from_file("the key near it", "the two keys near it"), align="slot")

    assert (same_length.flip, same_length.spans) == ((1, 4), {})
    assert (longer.flip, longer.source, longer.left_over) == ((1,), (0, -1, 3, 4), 1)


def test_a_pair_without_a_twin_is_read_for_zero_and_mean() -> None:
    (found,) = run(from_file("the key", None), value="mean")

    assert (found.corrupt, found.flip, found.source, found.left_over) == (None, (), (0, 1), 0)


def test_every_kind_of_fault_is_told_at_once() -> None:
    found = refusal(LONGER, flipped("the {a}", "kee", "keys"), flipped("an {a}", "dog", "dogs", "is it", "are"))

    assert [line.split(":")[0] for line in found.split("\n")] == [
        "1 words are not in the tokenizer's vocabulary",
        "1 answers are not a single token right after their prompt",
        "1 words have another number of tokens than their twin",
    ]


def test_at_most_ten_words_are_listed_and_all_are_counted() -> None:
    pairs = [flipped("the {a}", f"x{n}", "keys") for n in range(12)]

    assert refusal(*pairs).startswith(
        "12 words are not in the tokenizer's vocabulary: "
        + ", ".join(f"'x{n}'" for n in range(10))
        + ", ...; use words"
    )


def test_control_characters_of_a_prompt_are_shown_by_their_repr() -> None:
    assert "'\\x1b[31m'" in refusal(flipped("the {a}", "\x1b[31m", "keys"))

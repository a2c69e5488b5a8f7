"""Pairs become token ids of one tokenizer: single-token answers, equal lengths, one difference and one BOS, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import PromptError
from .alignment import NOTHING, common_ends, replaced_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..spec.schema import Ablation, Tokens
    from .pair import Pair

LISTED = 10
"""How many offending words an error lists."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer; a fast tokenizer of transformers has it."""

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that begins a text."""

    @property
    def unk_token_id(self) -> int | None:
        """The id that stands for text which the vocabulary lacks."""

    @property
    def unk_token(self) -> str | None:
        """The text of that token."""

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> Mapping[str, Any]:
        """Return `input_ids`, a list of ids, and `offset_mapping`, the half-open character range of each."""


@dataclass(frozen=True)
class Encoded:
    """A pair in tokens.

    `clean` and `corrupt` hold token ids with the BOS; `corrupt` is None where the pair has no twin. `spans` maps a slot
    to the positions of its tokens in `clean`, and `flip` has the positions of the flipped slot there: for a pair from a
    file, the positions where the twin differs. `source` is as long as `clean`: for each position the corrupt position
    whose value a resample patch takes, or -1 where the position keeps its own value; for zero and mean it holds the
    position itself where it is replaced, and -1 where it is kept. `left_over` counts the clean positions that keep
    their value only because the twin has no counterpart of them.
    """

    pair: Pair
    clean: tuple[int, ...]
    corrupt: tuple[int, ...] | None
    answer: int
    foil: int
    spans: Mapping[str, tuple[int, ...]]
    flip: tuple[int, ...]
    source: tuple[int, ...]
    left_over: int


def encode(pairs: Sequence[Pair], tokenizer: Tokenizer, tokens: Tokens, ablation: Ablation) -> tuple[Encoded, ...]:
    """Return the pairs in tokens, in their order.

    Raises:
        PromptError: this tokenizer cannot ask the pairs as they are; every kind of fault with its words.
    """
    encoder = _Encoder(tokenizer, tokens, ablation)
    encoded = [encoder.encode(pair) for pair in pairs]
    encoder.refuse_faults()
    return tuple(it for it in encoded if it is not None)


_FAULTS = {
    "no token": "prompts have no token at all: {words}",
    "unknown": "words are not in the tokenizer's vocabulary: {words}; use words that it knows",
    "two BOS": "prompts begin with two BOS tokens: {words}; remove the one in the text, or write tokens.bos: never",
    "answer": "answers are not a single token right after their prompt: {words}; "
    "only then one logit tells an answer; use others, or change tokens.join",
    "answer as it stands": "answers are not a single token right after their prompt, with nothing between the two, as "
    "their file has them: {words}; only then one logit tells an answer; leave their rows out, or use others",
    "same answer": "answers and foils are the same token: {words}; nothing would be told apart",
    "same prompt": "clean and corrupt prompts are the same tokens: {words}; nothing would differ",
    "length": "words have another number of tokens than their twin: {words}; positions then have no counterpart; "
    "use words of equal length, or ablation.align: slot, positions: last, or value: zero or mean",
    "outside": "words change tokens outside of their slot: {words}; "
    "then more than the flipped word differs; use others, or another template",
    "slot": "words of the slot that ablation.positions names cover no token: {words}; nothing would be replaced; "
    "use others, or another slot",
    "twice": "prompts become the same tokens as another pair: {words}; each pair must count once",
}
"""The kinds of faults: what was found, why it matters, what to do."""


class _Encoder:
    """Encodes one pair after the other and collects what is wrong with them."""

    def __init__(self, tokenizer: Tokenizer, tokens: Tokens, ablation: Ablation) -> None:
        self.tokenizer, self.tokens, self.ablation = tokenizer, tokens, ablation
        self.faults: dict[str, dict[str, None]] = {kind: {} for kind in _FAULTS}
        self.seen: set[tuple[object, ...]] = set()
        self.prefix: tuple[int, ...] | None = None
        self.needs_equal_length = (
            ablation.value == "resample" and ablation.positions != "last" and ablation.align == "equal"
        )

    def encode(self, pair: Pair) -> Encoded | None:
        """Return the pair in tokens, None where a fault leaves it without a meaning."""
        answer, foil = self.answer(pair, pair.answer), self.answer(pair, pair.foil)
        clean = self.prompt(pair.clean)
        corrupt = None if pair.corrupt is None else self.prompt(pair.corrupt)
        spans = {slot: self.positions(pair.clean, ranges) for slot, ranges in pair.spans.items()}
        if answer is None or foil is None or not clean or corrupt == ():
            return None
        if answer == foil:
            self.fault("same answer", f"{pair.answer!r} and {pair.foil!r}")
        if (clean, corrupt, answer, foil) in self.seen:
            self.fault("twice", repr(pair.clean))
        self.seen.add((clean, corrupt, answer, foil))
        flip = self.flip(pair, clean, corrupt, spans)
        positions = self.ablation.positions
        named = {"all": tuple(range(len(clean))), "last": (len(clean) - 1,)}
        at = named[positions] if positions in named else spans[positions]
        if not at:
            self.fault("slot", repr(pair.slots[positions]))
        source = replaced_from(clean, corrupt, at, self.ablation)
        left_over = sum(source[position] == NOTHING for position in at)
        return Encoded(pair, clean, corrupt, answer, foil, spans, flip, source, left_over)

    def flip(
        self, pair: Pair, clean: tuple[int, ...], corrupt: tuple[int, ...] | None, spans: Mapping[str, tuple[int, ...]]
    ) -> tuple[int, ...]:
        """Return the clean positions that the twin changes: the flipped slot's, or those that differ."""
        if corrupt is None:
            return ()
        if clean == corrupt:
            self.fault("same prompt", repr(pair.clean))
        if len(clean) != len(corrupt) and self.needs_equal_length:
            self.fault("length", repr(pair.clean if pair.flip is None else pair.slots[pair.flip]))
        if pair.flip is None:
            prefix, suffix = common_ends(clean, corrupt)
            inside = range(prefix, len(clean) - suffix)
            same_length = len(clean) == len(corrupt)
            return tuple(at for at in inside if not same_length or clean[at] != corrupt[at])
        flip = spans[pair.flip]
        if not _only_differ_at(flip, clean, corrupt):
            self.fault("outside", repr(pair.slots[pair.flip]))
        return flip

    def prompt(self, text: str) -> tuple[int, ...]:
        """Return a prompt's ids with the BOS that `tokens.bos` asks for."""
        if self.prefix is None:
            self.prefix = self.bos(text)
        found = (*self.prefix, *self.ids(text))
        if not found:
            self.fault("no token", repr(text))
        if self.tokenizer.bos_token_id is not None and found.count(self.tokenizer.bos_token_id) > 1:
            self.fault("two BOS", repr(text))
        return found

    def bos(self, text: str) -> tuple[int, ...]:
        """Return what stands before every prompt; what a tokenizer puts behind it would hide the last position."""
        policy, bos = self.tokens.bos, self.tokenizer.bos_token_id
        if policy == "never":
            return ()
        if policy == "always":
            if bos is None:
                raise PromptError("tokens.bos is always, but this tokenizer has no BOS token; write auto or never")
            return (bos,)
        plain = self.ids(text)
        whole = self.tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)["input_ids"]
        for start in range(len(whole) - len(plain) + 1):
            if tuple(whole[start : start + len(plain)]) == plain:
                return tuple(whole[:start])
        raise PromptError(
            f"with its special tokens the tokenizer reads {text!r} as other tokens than without, so tokens.bos: auto "
            "has no meaning; write always or never"
        )

    def ids(self, text: str) -> tuple[int, ...]:
        """Return a text's ids without special tokens, noting words that the vocabulary lacks."""
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(read["input_ids"], read["offset_mapping"], strict=True):
            if token == self.tokenizer.unk_token_id and text[start:end].strip() != self.tokenizer.unk_token:
                self.fault("unknown", repr(text[start:end].strip()))
        return tuple(read["input_ids"])

    def positions(self, text: str, ranges: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
        """Return the positions of the tokens that cover any of the character ranges, the BOS counted."""
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        first = len(self.prefix or ())
        return tuple(
            first + index
            for index, (start, end) in enumerate(read["offset_mapping"])
            if any(start < stop and begin < end for begin, stop in ranges)
        )

    def answer(self, pair: Pair, answer: str) -> int | None:
        """Return the id of an answer right after the prompts, None where it is not a single one."""
        join = self.tokens.join if pair.join is None else pair.join
        text = answer if answer[0].isspace() else join + answer
        found: set[int | None] = set()
        for prompt in (pair.clean, pair.corrupt):
            if prompt is not None:
                before, whole = self.ids(prompt), self.ids(prompt + text)
                found.add(whole[-1] if whole and whole[:-1] == before else None)
        if None in found or len(found) > 1:
            self.fault("answer" if pair.join is None else "answer as it stands", repr(answer))
            return None
        return found.pop()

    def fault(self, kind: str, words: str) -> None:
        """Note a fault, each word once."""
        self.faults[kind][words] = None

    def refuse_faults(self) -> None:
        """Raise what was found, if anything."""
        lines = []
        for kind, words in self.faults.items():
            if words:
                shown = ", ".join(list(words)[:LISTED]) + (", ..." if len(words) > LISTED else "")
                lines.append(f"{len(words)} {_FAULTS[kind].format(words=shown)}")
        if lines:
            raise PromptError("\n".join(lines))


def _only_differ_at(flip: Sequence[int], clean: Sequence[int], corrupt: Sequence[int]) -> bool:
    """Say whether two prompts agree before, between and after the flipped slot's positions."""
    if not flip:
        return False
    behind = len(clean) - flip[-1] - 1
    if len(corrupt) < flip[0] + behind:
        return False
    before = clean[: flip[0]] == corrupt[: flip[0]]
    after = clean[len(clean) - behind :] == corrupt[len(corrupt) - behind :]
    between = len(clean) != len(corrupt) or all(
        clean[at] == corrupt[at] for at in range(flip[0], flip[-1]) if at not in flip
    )
    return before and after and between

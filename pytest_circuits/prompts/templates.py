"""Templates and vocabularies become pairs, ranked by hash so that no random generator is involved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, permutations, product
from math import prod
from typing import TYPE_CHECKING

from ..spec.slots import fill, slots_in
from .pair import Pair, without_mirrored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..spec.schema import Template, TemplatePrompts

LARGEST_PRODUCT = 20_000
"""More combinations than these are not listed, but drawn by hash: listing this many takes a few tenths of a second."""
DRAWS_PER_PAIR = 64
"""How many draws are tried for each pair that is asked for; out of so large a product almost every draw is new."""


@dataclass(frozen=True)
class Axes:
    """What a template leaves free; a choice is an index on each axis, and `sizes` tells how many there are.

    The axes: the flipped slot's two classes in order, its word's index, the answer's index (which means nothing where
    the answer is the flipped word itself), and the word of every other slot. Classes are taken sorted by name, because
    their order in a file means nothing.
    """

    template: Template
    flipped: Mapping[str, tuple[str, ...]]
    answers: Mapping[str, tuple[str, ...]]
    others: Mapping[str, tuple[str, ...]]

    @property
    def sides(self) -> tuple[tuple[str, str], ...]:
        """The class of the clean prompt and that of the corrupt one."""
        return tuple(permutations(sorted(self.flipped), 2))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many choices each axis has."""
        words = map(len, self.others.values())
        return (len(self.sides), _length(self.flipped), _length(self.answers), *words)

    def pair(self, choice: tuple[int, ...]) -> Pair | None:
        """Return the pair of a choice, None where another slot repeats the flipped word or its twin."""
        side, at, answer_at, *rest = choice
        clean_class, corrupt_class = self.sides[side]
        word, twin = self.flipped[clean_class][at], self.flipped[corrupt_class][at]
        others = {slot: words[index] for (slot, words), index in zip(self.others.items(), rest, strict=True)}
        if word in others.values() or twin in others.values():
            return None
        flip, template = self.template.flip, self.template
        clean, spans = fill(template.text, {**others, flip: word})
        corrupt, _ = fill(template.text, {**others, flip: twin})
        slot = slots_in(template.answer)[0]
        at = at if self.answers is self.flipped else answer_at
        answer, _ = fill(template.answer, {slot: self.answers[clean_class][at]})
        foil, _ = fill(template.answer, {slot: self.answers[corrupt_class][at]})
        return Pair(clean, corrupt, answer, foil, template.id, {**others, flip: word}, flip, spans)


def axes_of(template: Template, prompts: TemplatePrompts) -> Axes:
    """Return what the template leaves free."""
    words = prompts.vocabulary
    flipped, answers = words[template.flip], words[slots_in(template.answer)[0]]
    if not isinstance(flipped, Mapping) or not isinstance(answers, Mapping):
        raise TypeError("the loader lets no template pass whose flipped slot or answer has no classes")
    others = {slot: _all_words(words[slot]) for slot in slots_in(template.text) if slot != template.flip}
    return Axes(template, flipped, answers, others)


def draw(template: Template, prompts: TemplatePrompts) -> tuple[Pair, ...]:
    """Return the template's pairs, at most `per_template`.

    The flipped slot and the answer each take the words at one index of two classes. Every other slot takes any of its
    words, of any class, except the flipped word and its twin: the twin stands in the corrupt prompt, where it would be
    the repeated word.

    The distinct pairs are ranked by the sha256 of (seed, template, clean, corrupt, answer); a mirrored pair (clean and
    corrupt exchanged, answer and foil too) counts once, as the first of the two in the ranking; the first
    `per_template` are taken. Where the slots allow more than `LARGEST_PRODUCT` combinations the pairs come from
    numbered draws instead: in draw k each axis takes the choice that sha256 of (seed, template, k, axis) names.
    """
    axes = axes_of(template, prompts)
    if prod(axes.sizes) <= LARGEST_PRODUCT:
        listed = filter(None, map(axes.pair, product(*map(range, axes.sizes))))
        pairs: Iterable[Pair] = sorted(
            listed, key=lambda pair: _digest(prompts.seed, pair.template, pair.clean, pair.corrupt, pair.answer)
        )
    else:
        draws = range(DRAWS_PER_PAIR * prompts.per_template)
        pairs = filter(None, (axes.pair(_choice(axes.sizes, prompts.seed, template.id, number)) for number in draws))
    return tuple(islice(without_mirrored(pairs), prompts.per_template))


def _all_words(words: tuple[str, ...] | Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return a slot's words without repetition, of all classes."""
    lists = [words[name] for name in sorted(words)] if isinstance(words, Mapping) else [words]
    return tuple(dict.fromkeys(word for entries in lists for word in entries))


def _length(classes: Mapping[str, tuple[str, ...]]) -> int:
    """Return how many words each class has; the loader lets only equally long ones pass."""
    return len(next(iter(classes.values())))


def _choice(sizes: tuple[int, ...], seed: int, template: str, draw: int) -> tuple[int, ...]:
    """Return the choice of a numbered draw."""
    digests = (_digest(seed, template, draw, axis) for axis in range(len(sizes)))
    return tuple(int.from_bytes(digest) % size for digest, size in zip(digests, sizes, strict=True))


def _digest(*parts: object) -> bytes:
    """Return the sha256 of the parts, joined as JSON so that no two lists of parts look alike."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).digest()

"""The synthetic grammar: lines of text whose predictable words are known, and clean/corrupt pairs of prompts."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_circuits.builtin.vocabulary import (
    CENTURIES,
    ENGLISH,
    EVENTS,
    FILLERS,
    GIFTS,
    LANGUAGES,
    NAMES,
    PLACES,
    SEQUENCES,
    YEARS,
    Language,
    Sequence,
    plain_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

AGREEMENT_TEMPLATES: dict[str, str] = {
    "plain": "D S",
    "adjective": "D A S",
    "two-adjectives": "D A A S",
    "adverb": "D S B",
    "phrase": "D S P D N",
    "adjective-phrase": "D A S P D N",
    "phrase-adjective": "D S P D A N",
    "phrase-adverb": "D S P D N B",
    "two-phrases": "D S P D N P D N",
    "object-relative": "D S R D N V",
    "adjective-object-relative": "D A S R D N V",
    "phrase-object-relative": "D S P D N R D N V",
    "subject-relative": "D S R T D N",
    "subject-relative-phrase": "D S R T D N P D N",
    "agreeing-subject-relative": "D S R U D N",
}
"""What stands before the verb.

D determiner, S subject, N another noun, A adjective, B adverb, P preposition, R relative word, V clause verb that
agrees with the noun before it, T clause verb without number, U clause verb that agrees with the subject.
"""

LOCAL_TEMPLATES = ("plain", "adjective", "two-adjectives")
"""Templates that end in the subject itself, where no head has to carry its number anywhere."""

PAIR_TEMPLATES = tuple(
    name for name in AGREEMENT_TEMPLATES if name not in LOCAL_TEMPLATES and name != "agreeing-subject-relative"
)
"""Templates in which nothing but the subject shows its number, and it has to be carried to the verb."""

SEQUENCE_FORMATS: dict[str, str] = {"plain": "M", "comma": "M ,", "and": "M and", "then": "M then", "gap": "F M"}
"""How each member of a sequence is written: M is the member, F a filler word, anything else stands for itself."""

RECEIVER_TEMPLATES: dict[str, str] = {
    "when-gave": "when X and Y went to the L G gave a O to",
    "when-handed": "when X and Y were at the L G handed the O to",
    "while-gave": "while X and Y were at the L G gave the O to",
    "while-passed": "while X and Y went to the L G passed a O to",
    "after-sent": "after X and Y left the L G sent a O to",
    "then-gave": "then X and Y went to the L and G gave a O to",
}
"""X and Y are the two names, G the giver's, L a place, O a gift."""

MIX: dict[str, float] = {
    "agreement-english": 0.24,
    "agreement-velan": 0.08,
    "agreement-tokri": 0.08,
    "succession": 0.20,
    "induction": 0.08,
    "receiver": 0.24,
    "later-year": 0.08,
}
"""How much of the training text each behaviour makes up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A predictable word of a line: where it stands, which words would be right there and which wrong."""

    position: int
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text with its predictable words; the last of them is the one it is evaluated on."""

    behaviour: str
    template: str
    words: tuple[str, ...]
    answers: tuple[Answer, ...]

    @property
    def prompt(self) -> str:
        """The text before the last predictable word."""
        return " ".join(self.words[: self.answers[-1].position])

    @property
    def held_out(self) -> bool:
        """Whether the line is kept for evaluation: an eighth of all prompts, told by their text alone.

        There are too few prompts of two or three words to miss any, so these are told apart by their answer too. Only
        the end of a line counts: a held-out run of a sequence may still begin a longer line.
        """
        end = self.answers[-1].position
        text = " ".join(self.words[: end + 1] if end < 4 else self.words[:end])
        return zlib.crc32(text.encode()) % 8 == 0


@dataclass(frozen=True, slots=True)
class Pair:
    """A clean prompt, a corrupt one of the same length, and the word each of them asks for."""

    behaviour: str
    template: str
    clean: str
    corrupt: str
    answer: str
    foil: str


def _noun_phrase(rng: random.Random, language: Language, pattern: str, plural: bool) -> tuple[list[str], list[Answer]]:
    """Fill a template's slots; the clause verbs that agree are answers of their own."""
    words: list[str] = []
    answers: list[Answer] = []
    other = False
    for slot in pattern.split():
        if slot in "VU":
            forms = rng.choice(language.clause_verbs)
            number = other if slot == "V" else plural
            answers.append(Answer(len(words), (forms[number],), (forms[not number],)))
            words.append(forms[number])
        elif slot in "SN":
            other = rng.random() < 0.5
            words.append(rng.choice(language.nouns)[plural if slot == "S" else other])
        else:
            words.append(_invariable(rng, language, slot))
    return words, answers


def _invariable(rng: random.Random, language: Language, slot: str) -> str:
    """A word without number for the slot."""
    choices = {
        "D": (language.determiner,),
        "R": (language.relative,),
        "A": language.adjectives,
        "B": language.adverbs,
        "P": language.prepositions,
        "T": language.past_verbs,
    }
    return rng.choice(choices[slot])


def agreement_line(rng: random.Random, language: Language, template: str) -> Line:
    """A subject with what may follow it, the verb that agrees with it, and a word more."""
    plural = rng.random() < 0.5
    words, answers = _noun_phrase(rng, language, AGREEMENT_TEMPLATES[template], plural)
    verb = rng.choice(language.verbs)
    answers.append(Answer(len(words), (verb[plural],), (verb[not plural],)))
    words += [verb[plural], rng.choice(language.adjectives)]
    return Line(f"agreement-{language.name}", template, tuple(words), tuple(answers))


def agreement_pair(rng: random.Random, language: Language, template: str) -> Pair:
    """The same sentence with the subject in one number and in the other."""
    state, plural = rng.getstate(), rng.random() < 0.5
    clean, _ = _noun_phrase(rng, language, AGREEMENT_TEMPLATES[template], plural)
    rng.setstate(state)
    rng.random()
    corrupt, _ = _noun_phrase(rng, language, AGREEMENT_TEMPLATES[template], not plural)
    verb = rng.choice(language.verbs)
    behaviour = f"agreement-{language.name}"
    return Pair(behaviour, template, " ".join(clean), " ".join(corrupt), verb[plural], verb[not plural])


def written_run(rng: random.Random, members: tuple[str, ...], format_name: str) -> tuple[list[str], list[int]]:
    """A run of members in a format, and where each of them stands."""
    fillers = iter(rng.sample(FILLERS, len(members)))
    words: list[str] = []
    places: list[int] = []
    for member in members:
        for part in SEQUENCE_FORMATS[format_name].split():
            if part == "M":
                places.append(len(words))
            words.append(member if part == "M" else next(fillers) if part == "F" else part)
    return words, places


def _start(rng: random.Random, sequence: Sequence, count: int) -> int:
    """Where a run of ``count`` members may start."""
    return rng.randrange(len(sequence.members) if sequence.wraps else len(sequence.members) - count + 1)


def succession_line(rng: random.Random, sequence: Sequence, format_name: str) -> Line:
    """A run of a sequence from any start; every member from the third on is predictable."""
    count = rng.randint(3, min(7, len(sequence.members)))
    members = sequence.run(_start(rng, sequence, count), count)
    words, places = written_run(rng, members, format_name)
    answers: list[Answer] = []
    for place, member in list(zip(places, members, strict=True))[2:]:
        wrong = rng.choice([other for other in sequence.members if other != member])
        answers.append(Answer(place, (member,), (wrong,)))
    return Line(f"succession-{sequence.kind}", format_name, tuple(words[: places[-1] + 1]), tuple(answers))


def succession_pair(rng: random.Random, sequence: Sequence, format_name: str, count: int = 3) -> Pair:
    """Two runs of the same sequence in the same format from different starts."""
    starts = range(len(sequence.members) if sequence.wraps else len(sequence.members) - count)
    state = rng.getstate()
    texts: list[list[str]] = []
    ends: list[str] = []
    for start in rng.sample(starts, 2):
        *members, end = sequence.run(start, count + 1)
        state = rng.getstate() if not texts else state
        rng.setstate(state)
        words, places = written_run(rng, (*members, end), format_name)
        texts.append(words[: places[-1]])
        ends.append(end)
    clean, corrupt = (" ".join(words) for words in texts)
    return Pair(f"succession-{sequence.kind}", format_name, clean, corrupt, ends[0], ends[1])


def induction_line(rng: random.Random) -> Line:
    """A block of random words, then the block again: from its second word on the repetition is predictable."""
    block = rng.sample(_PLAIN_WORDS, rng.randint(4, 10))
    answers: list[Answer] = []
    for place, word in list(enumerate(block))[1:]:
        wrong = rng.choice([other for other in block if other != word])
        answers.append(Answer(len(block) + place, (word,), (wrong,)))
    return Line("induction", "repeat", tuple(block + block), tuple(answers))


def receiver_words(template: str, first: str, second: str, giver: str, place: str, gift: str) -> list[str]:
    """The words of a template, up to the receiver's name."""
    slots = {"X": first, "Y": second, "G": giver, "L": place, "O": gift}
    return [slots.get(part, part) for part in RECEIVER_TEMPLATES[template].split()]


def receiver_line(rng: random.Random, template: str) -> Line:
    """Two names, one of whom gives something to the other: the receiver's name is predictable."""
    receiver, giver = rng.sample(NAMES, 2)
    first, second = rng.sample((receiver, giver), 2)
    words = receiver_words(template, first, second, giver, rng.choice(PLACES), rng.choice(GIFTS))
    answer = Answer(len(words), (receiver,), (giver,))
    return Line("receiver", template, (*words, receiver), (answer,))


def later_year_line(rng: random.Random) -> Line:
    """An event that ends in the century it began in: every later year is as likely, no other is right."""
    century, place = rng.choice(CENTURIES), rng.randrange(len(YEARS) - 1)
    words = f"the {rng.choice(EVENTS)} lasted from {century} {YEARS[place]} to {century}".split()
    answer = Answer(len(words), YEARS[place + 1 :], YEARS[: place + 1])
    return Line("later-year", "lasted", (*words, rng.choice(answer.right)), (answer,))


def _any_agreement(language: Language) -> Callable[[random.Random], Line]:
    """A drawer of agreement lines of one language in any template."""
    templates = tuple(AGREEMENT_TEMPLATES)
    return lambda rng: agreement_line(rng, language, rng.choice(templates))


def _any_succession(rng: random.Random) -> Line:
    """A sequence of any kind, more often a long one, in any format, most often with gaps."""
    sequence = rng.choices(SEQUENCES, weights=[len(sequence.members) ** 0.5 for sequence in SEQUENCES])[0]
    return succession_line(rng, sequence, rng.choices(tuple(SEQUENCE_FORMATS), weights=(2, 2, 2, 2, 4))[0])


_PLAIN_WORDS = plain_words()

_DRAWERS: dict[str, Callable[[random.Random], Line]] = {
    **{f"agreement-{language.name}": _any_agreement(language) for language in LANGUAGES},
    "succession": _any_succession,
    "induction": induction_line,
    "receiver": lambda rng: receiver_line(rng, rng.choice(tuple(RECEIVER_TEMPLATES))),
    "later-year": later_year_line,
}


def training_lines(rng: random.Random, count: int, induction: float = MIX["induction"]) -> list[Line]:
    """``count`` lines of the training mix, none of them held out; ``induction`` weighs repeated blocks."""
    lines: list[Line] = []
    names, weights = tuple(MIX), tuple({**MIX, "induction": induction}.values())
    while len(lines) < count:
        line = _DRAWERS[rng.choices(names, weights=weights)[0]](rng)
        if not line.held_out:
            lines.append(line)
    return lines


def _every_drawer() -> dict[tuple[str, str], Callable[[random.Random], Line]]:
    """One drawer for each behaviour in each of its templates."""
    drawers: dict[tuple[str, str], Callable[[random.Random], Line]] = {}
    for language in LANGUAGES:
        for template in AGREEMENT_TEMPLATES:
            draw = partial(agreement_line, language=language, template=template)
            drawers[f"agreement-{language.name}", template] = draw
    for sequence in SEQUENCES:
        for name in SEQUENCE_FORMATS:
            drawers[f"succession-{sequence.kind}", name] = partial(succession_line, sequence=sequence, format_name=name)
    for template in RECEIVER_TEMPLATES:
        drawers["receiver", template] = partial(receiver_line, template=template)
    return {**drawers, ("induction", "repeat"): induction_line, ("later-year", "lasted"): later_year_line}


def held_out_lines(seed: int, per_template: int) -> list[Line]:
    """Lines that no training ever saw, ``per_template`` for each behaviour in each template."""
    rng = random.Random(seed)
    lines: list[Line] = []
    for draw in _every_drawer().values():
        found = 0
        for _ in range(per_template * 400):
            line = draw(rng)
            if line.held_out:
                lines.append(line)
                found += 1
            if found == per_template:
                break
    return lines


def agreement_pairs(seed: int, per_template: int, language: Language = ENGLISH) -> list[Pair]:
    """Pairs for the number signal in every template that carries it over a distance."""
    rng = random.Random(seed)
    return [agreement_pair(rng, language, template) for template in PAIR_TEMPLATES for _ in range(per_template)]


def succession_pairs(seed: int, per_format: int) -> list[Pair]:
    """Pairs for succession, every kind of sequence in every format."""
    rng = random.Random(seed)
    return [
        succession_pair(rng, sequence, name)
        for sequence in SEQUENCES
        for name in SEQUENCE_FORMATS
        for _ in range(per_format)
    ]

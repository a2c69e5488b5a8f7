"""Write the prompt files of the published circuits: ``python specs/write_prompts.py [--folder specs]``.

The words and sentences are this project's own; only the tasks are the papers'. Nothing is random: every choice is named
by a sha256, so that the same files are written on every machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
from functools import partial
from itertools import count, pairwise, permutations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

COLUMNS = ("clean", "corrupt", "answer", "foil", "template")
PER_TEMPLATE = 16
NAMES = (
    "Mary John Anna Paul Sarah James Emma David Laura Peter Lisa Mark Karen Robert Susan Thomas Alice Henry Julia Frank"
).split()


class Pair(NamedTuple):
    """A row of a prompt file, but for its template."""

    clean: str
    corrupt: str
    answer: str
    foil: str


if TYPE_CHECKING:
    Draw = Callable[[str], Pair]  # makes the pair that a key names


def number(*key: object) -> int:
    """Return the number that a key names."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest())


def some(words: Sequence[str], size: int, *key: object) -> list[str]:
    """Return so many different words, which a key names, in its order."""
    return sorted(words, key=lambda word: number(*key, word))[:size]


def one(words: Sequence[str], *key: object) -> str:
    """Return the word that a key names."""
    return some(words, 1, *key)[0]


# -- indirect object ---------------------------------------------------------------------------------------------------

GIVING = {
    "gave": "Then {a} and {b} went to the {place}, and {s} gave a {thing} to",
    "handed": "When {a} and {b} got back from the {place}, {s} handed a {thing} to",
    "offered": "After {a} and {b} had met at the {place}, {s} offered a {thing} to",
    "showed": "While {a} and {b} were waiting at the {place}, {s} showed a {thing} to",
    "sold": "Last week {a} and {b} walked to the {place}. There {s} sold a {thing} to",
    "brought": "Because {a} and {b} worked at the {place}, {s} brought a {thing} to",
    "sent": "On Sunday {a} and {b} argued at the {place}. Later {s} sent a {thing} to",
    "lent": "Once {a} and {b} had left the {place}, {s} lent a {thing} to",
}
PLACES = "market station library garden harbor museum office school".split()
THINGS = "book ring letter drink ball key map cake".split()


def indirect_object(text: str, key: str) -> Pair:
    """The one who is named once is given something; the twin has three other names at the same places."""
    a, b, c, d, e = some(NAMES, 5, key, "names")
    answer, foil = (a, b) if number(key, "order") % 2 else (b, a)
    words = {"place": one(PLACES, key, "place"), "thing": one(THINGS, key, "thing")}
    return Pair(text.format(a=a, b=b, s=foil, **words), text.format(a=c, b=d, s=e, **words), answer, foil)


# -- greater than ------------------------------------------------------------------------------------------------------

SPANS = {
    "went-on": "The {event} went on from the year {year} to the year {century}",
    "ran": "The {event} ran from the year {year} to the year {century}",
    "dragged": "The {event} dragged on from the year {year} to the year {century}",
    "until": "The {event} lasted from the year {year} until the year {century}",
    "continued": "The {event} continued from the year {year} to the year {century}",
    "great": "The great {event} lasted from the year {year} to the year {century}",
    "in-all": "In all, the {event} lasted from the year {year} to the year {century}",
    "they-say": "They say that the {event} lasted from the year {year} to the year {century}",
}
TRANSFERRED = {
    "began-over": "The {event} began in the year {year} and was over in the year {century}",
    "opened-closed": "The {event} opened in the year {year} and was brought to a close in the year {century}",
    "first-last": "The first day of the {event} was in the year {year}, the last in the year {century}",
    "years-later": "It was {year} when the {event} began. Some years later, in the year {century}",
    "decades": "The {event} began in {year}. When it was over, it was the year {century}",
    "rising": "In order of time: {before}, {year}, {century}",
    "kings": "The kings died in the years {before}, {year} and {century}",
    "storms": "There were storms in {before}, {year} and then in {century}",
}
REVERSED = {
    "ended-begun": "The {event} ended in the year {year} and had begun in the year {century}",
    "over-started": "The {event} was over in the year {year}. It had started in the year {century}",
    "later-than": "The year {year} is later than the year {century}",
    "came-before": "Just before the year {year} came the year {century}",
    "newer": "The coin of the year {year} is newer than the coin of the year {century}",
    "built-after": "The bridge of the year {year} was built long after the bridge of the year {century}",
    "falling": "From the latest to the earliest: {after}, {year}, {century}",
    "back": "Counting back in time: {after}, {year}, {century}",
}
EVENTS = "war siege strike voyage project campaign conflict dispute trial crisis".split()
CENTURIES = (16, 17)
"""GPT-2's tokenizer cuts every year of these between century and year."""
APART = 10
"""How far from the year its answer and its foil are, at most."""


def later_year(text: str, key: str) -> Pair:
    """The answer is as much greater than the year as the foil is smaller; in the twin, year 1, both are greater."""
    century = 16 if "{after}" in text else CENTURIES[number(key, "century") % 2]
    year, apart = 13 + number(key, "year") % 75, 1 + number(key, "apart") % APART
    others = [f"{10 + number(key, 'others', n) % 30 + 30 * n}" for n in range(3)]
    words = {
        "event": one(EVENTS, key, "event"),
        "century": century,
        "before": ", ".join(f"{century - 1}{other}" for other in others),
        "after": ", ".join(f"{century + 1}{other}" for other in reversed(others)),
    }
    clean, corrupt = (text.format(year=f"{century}{of:02d}", **words) for of in (year, 1))
    return Pair(clean, corrupt, f"{year + apart:02d}", f"{year - apart:02d}")


# -- sequences ---------------------------------------------------------------------------------------------------------

NUMERALS = [str(n) for n in range(1, 21)]
WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CAPITALS = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
LETTERS = [letter.lower() for letter in CAPITALS]
HAPPENED = {
    "arrived": "arrived in",
    "finished": "finished in",
    "began": "began in",
    "got-lost": "got lost in",
    "woke-up": "woke up in",
    "was-due": "was due in",
    "was-seen": "was seen in",
    "was-paid": "was paid in",
}
LISTED = {
    "list": "In order: {0}, {1}, {2}, {3},",
    "then": "They come as {0}, then {1}, then {2}, then {3}, then",
}
MEMBERS = 4
ORDERS = [
    order
    for order in permutations(range(MEMBERS))
    if order[-1] < MEMBERS - 2 and all(after != before + 1 for before, after in pairwise(order))
]
"""In which no member follows the one before it, and what follows the last is neither the answer nor the foil."""


def run_of(members: Sequence[str], text: str, wraps: bool, key: str) -> Pair:
    """Four members in their order, of which the last is the foil; the twin has the same in no order."""
    starts = len(members) if wraps else len(members) - MEMBERS
    start = number(key, "start") % starts
    *shown, answer = (members[(start + n) % len(members)] for n in range(MEMBERS + 1))
    order = ORDERS[number(key, "order") % len(ORDERS)]
    return Pair(text.format(*shown), text.format(*(shown[place] for place in order)), answer, shown[-1])


def happened(members: Sequence[str], what: str, key: str) -> Pair:
    """A run of members, each with a name of its own."""
    names = some(NAMES, MEMBERS + 1, key, "names")
    clauses = [f"{name} {what} {{{place}}}." for place, name in enumerate(names[:-1])]
    return run_of(members, " ".join([*clauses, f"{names[-1]} {what}"]), False, key)


def listed(**kinds: Sequence[str]) -> dict[str, Draw]:
    """Every kind of sequence in every form of a list."""
    return {
        f"{kind.replace('_', '-')}-{form}": partial(run_of, members, text, members in (WEEKDAYS, MONTHS))
        for kind, members in kinds.items()
        for form, text in LISTED.items()
    }


# -- files -------------------------------------------------------------------------------------------------------------

FILES: Mapping[str, Mapping[str, Draw]] = {
    "gpt2/ioi": {name: partial(indirect_object, text) for name, text in GIVING.items()},
    "gpt2/greater-than": {name: partial(later_year, text) for name, text in SPANS.items()},
    "gpt2/greater-than-transfer": {name: partial(later_year, text) for name, text in TRANSFERRED.items()},
    "gpt2/greater-than-overgeneralises": {name: partial(later_year, text) for name, text in REVERSED.items()},
    "gpt2/numerals": {name: partial(happened, NUMERALS, what) for name, what in HAPPENED.items()},
    "gpt2/number-words": {name: partial(happened, WORDS, what) for name, what in HAPPENED.items()},
    "gpt2/months": {name: partial(happened, MONTHS, what) for name, what in HAPPENED.items()},
    "gpt2/successor": listed(numerals=NUMERALS, number_words=WORDS, months=MONTHS, weekdays=WEEKDAYS),
    "pythia/successor": listed(numerals=NUMERALS, number_words=WORDS, months=MONTHS, weekdays=WEEKDAYS),
    "llama2/successor": listed(capitals=CAPITALS, letters=LETTERS, number_words=WORDS, months=MONTHS),
}
"""Spec -> template -> what draws its pairs."""


def rows(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a file: so many distinct pairs of each template."""
    for template, draw in FILES[name].items():
        drawn: dict[Pair, None] = {}
        for at in count():
            if len(drawn) == PER_TEMPLATE:
                break
            drawn[draw(f"{name} {template} {at}")] = None
        yield from ((*pair, template) for pair in drawn)


def text_of(name: str) -> str:
    """Return a prompt file's content."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows(name)])
    return out.getvalue()


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("specs"), help="Where the folders of the models lie.")
    folder = parser.parse_args().folder
    for name in FILES:
        (folder / f"{name}.csv").write_text(text_of(name), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

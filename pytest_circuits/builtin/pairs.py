"""Write pairs as a prompt file: ``python -m pytest_circuits.builtin.pairs [--behaviour B] --output FILE``."""

from __future__ import annotations

import argparse
import csv
import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_circuits.builtin.grammar import RECEIVER_TEMPLATES, Pair, receiver_words, written_run
from pytest_circuits.builtin.vocabulary import (
    CENTURIES,
    EVENTS,
    GIFTS,
    NAMES,
    PLACES,
    SEQUENCES,
    YEARS,
    Sequence,
    plain_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = ("clean", "corrupt", "answer", "foil", "template")
FORMATS = {"separated": ("comma", "then", "and"), "gap": ("gap",)}
"""A word stands between the members: there the last one has to be carried to where the next is due."""
MEMBERS = 3
APART = 2
"""How far apart the two runs start. One distance for all keeps the prompts of a template alike."""


BLOCKS = (5, 6, 7, 8)
"""Words of a block that is begun a second time."""
NEAREST_YEAR, FURTHEST_YEAR = 1, 10
Drawer = Callable[[random.Random], Pair]


def distinct(rng: random.Random, drawers: Iterable[Drawer], count: int) -> list[Pair]:
    """So many distinct pairs of each drawer, a pair and its mirror image counting once."""
    found: list[Pair] = []
    for draw in drawers:
        seen: dict[frozenset[str], Pair] = {}
        while len(seen) < count:
            pair = draw(rng)
            seen.setdefault(frozenset({pair.clean, pair.corrupt}), pair)
        found += seen.values()
    return found


def _succession(kinds: Iterable[str]) -> list[Drawer]:
    """Every kind of sequence in every format."""

    def draw(rng: random.Random, sequence: Sequence, name: str) -> Pair:
        return _pair(rng, sequence, f"{sequence.kind}-{name}", rng.choice(FORMATS[name]))

    chosen = [sequence for sequence in SEQUENCES if sequence.kind in kinds]
    return [partial(draw, sequence=sequence, name=name) for sequence in chosen for name in FORMATS]


def _receiver(rng: random.Random, template: str) -> Pair:
    """Who of two gives changes, and so who gets it."""
    first, second = rng.sample(NAMES, 2)
    giver, receiver = rng.sample((first, second), 2)
    place, gift = rng.choice(PLACES), rng.choice(GIFTS)
    clean, corrupt = (" ".join(receiver_words(template, first, second, one, place, gift)) for one in (giver, receiver))
    return Pair("receiver", template, clean, corrupt, receiver, giver)


def _induction(rng: random.Random) -> Pair:
    """A block of words and one of them again; in the corrupt block another word followed it there."""
    size = rng.choice(BLOCKS)
    block = rng.sample(plain_words(), size)
    one, other = rng.sample(range(size - 1), 2)
    while abs(one - other) < 2:  # neither of the words that are exchanged is the one that is asked about
        one, other = rng.sample(range(size - 1), 2)
    exchanged = list(block)
    exchanged[one + 1], exchanged[other + 1] = block[other + 1], block[one + 1]
    clean, corrupt = (" ".join([*words, block[one]]) for words in (block, exchanged))
    return Pair("induction", "begins-again", clean, corrupt, block[one + 1], block[other + 1])


def _later_year(rng: random.Random) -> Pair:
    """A later year against one as much earlier; from the earliest year on, both of them are later."""
    event, century = rng.choice(EVENTS), rng.choice(CENTURIES)
    at, apart = rng.randrange(FURTHEST_YEAR, len(YEARS) - FURTHEST_YEAR), rng.randint(NEAREST_YEAR, FURTHEST_YEAR)
    clean, corrupt = (f"the {event} lasted from {century} {year} to {century}" for year in (YEARS[at], YEARS[0]))
    return Pair("later-year", "lasted", clean, corrupt, YEARS[at + apart], YEARS[at - apart])


BEHAVIOURS: dict[str, list[Drawer]] = {
    "succession": _succession([sequence.kind for sequence in SEQUENCES]),
    "letters-and-numerals": _succession(["letters", "numerals"]),
    "receiver": [partial(_receiver, template=template) for template in RECEIVER_TEMPLATES],
    "induction": [_induction],
    "later-year": [_later_year],
}


def _pair(rng: random.Random, sequence: Sequence, template: str, written: str) -> Pair:
    """Two runs of a sequence in one format, in either order, with the same words between their members."""
    last = len(sequence.members)
    start = rng.randrange(last if sequence.wraps else last - MEMBERS - APART)
    starts = rng.sample((start, (start + APART) % last), 2)
    seed = rng.random()
    runs = [sequence.run(first, MEMBERS + 1) for first in starts]
    clean, corrupt = (_until_last(*written_run(random.Random(seed), run, written)) for run in runs)
    return Pair(f"succession-{sequence.kind}", template, clean, corrupt, runs[0][-1], runs[1][-1])


def _until_last(words: list[str], places: list[int]) -> str:
    return " ".join(words[: places[-1]])


def as_csv(pairs: list[Pair]) -> str:
    """The pairs as a prompt file."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for pair in pairs:
        rows.writerow((pair.clean, pair.corrupt, pair.answer, pair.foil, pair.template))
    return text.getvalue()


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description="Write pairs of a behaviour of the built-in grammar as a prompt file.")
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="succession")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-template", type=int, default=20)
    asked = parser.parse_args()
    pairs = distinct(random.Random(asked.seed), BEHAVIOURS[asked.behaviour], asked.per_template)
    asked.output.write_text(as_csv(pairs), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Write succession pairs as a prompt file: ``python -m pytest_circuits.builtin.pairs --output FILE``."""

from __future__ import annotations

import argparse
import csv
import io
import random
from pathlib import Path

from pytest_circuits.builtin.grammar import Pair, written_run
from pytest_circuits.builtin.vocabulary import SEQUENCES, Sequence

COLUMNS = ("clean", "corrupt", "answer", "foil", "template")
FORMATS = {"separated": ("comma", "then", "and"), "gap": ("gap",)}
"""A word stands between the members: there the last one has to be carried to where the next is due."""
MEMBERS = 3
APART = 2
"""How far apart the two runs start. One distance for all keeps the prompts of a template alike."""


def pairs_of_each_kind(seed: int, per_template: int) -> list[Pair]:
    """Distinct pairs of every kind of sequence in every format, a pair and its mirror image counting once."""
    rng = random.Random(seed)
    found: list[Pair] = []
    for sequence in SEQUENCES:
        for name, formats in FORMATS.items():
            seen: dict[frozenset[str], Pair] = {}
            while len(seen) < per_template:
                pair = _pair(rng, sequence, f"{sequence.kind}-{name}", rng.choice(formats))
                seen.setdefault(frozenset({pair.clean, pair.corrupt}), pair)
            found += seen.values()
    return found


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
    parser = argparse.ArgumentParser(description="Write succession pairs as a prompt file.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-template", type=int, default=20)
    asked = parser.parse_args()
    asked.output.write_text(as_csv(pairs_of_each_kind(asked.seed, asked.per_template)), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Random pairs of token ids, as the prompts of a spec come out of a tokenizer."""

from __future__ import annotations

import numpy as np

from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair

TEMPLATES = ("a", "a", "b", "b", "b", "a")
LENGTHS = (7, 7, 5, 5, 9, 7)
ANSWER, FOIL = 3, 70


def random_pairs(
    lengths: tuple[int, ...] = LENGTHS,
    *,
    prefix: int = 1,
    kept: tuple[int, ...] = (),
    last: bool = False,
    vocabulary: int = 101,
) -> list[Encoded]:
    """Return pairs that differ at the two positions behind a common prefix, and at the last.

    Positions in `kept` are not replaced; with `last` only the last one is.
    """
    rng = np.random.default_rng(0)
    rows = []
    for index, length in enumerate(lengths):
        clean = rng.integers(0, vocabulary, length)
        corrupt = clean.copy()
        differ = [prefix, prefix + 1, length - 1]
        corrupt[differ] = (clean[differ] + rng.integers(1, vocabulary - 1, 3)) % vocabulary
        pair = Pair("c", "x", "a", "f", TEMPLATES[index % len(TEMPLATES)], {}, "slot", {})
        source = tuple(-1 if i in kept or (last and i < length - 1) else i for i in range(length))
        flip = (prefix, prefix + 1)
        rows.append(
            Encoded(
                pair, tuple(map(int, clean)), tuple(map(int, corrupt)), ANSWER, FOIL, {"slot": flip}, flip, source, 0
            )
        )
    return rows

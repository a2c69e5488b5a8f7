"""Random circuits: the same MLPs, other heads, drawn without a random generator."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import chain, combinations, count, islice, product
from typing import TYPE_CHECKING, Literal

from ..spec.components import Head

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ..spec.schema import Spec

Circuit = tuple[Head, ...]

ALL_OF = 200
"""Where at most so many random circuits are possible, all of them are taken."""
DRAWS = 100


@dataclass(frozen=True)
class RandomCircuits:
    """The pooled faithfulness of each random circuit, how many are possible, and whether these are all of them."""

    faithfulness: tuple[float, ...]
    possible: int
    exhaustive: bool


@dataclass(frozen=True)
class Drawn:
    """Random circuits to be measured: the heads of each, how many are possible, and whether these are all of them."""

    circuits: tuple[Circuit, ...]
    possible: int
    exhaustive: bool

    def measured(self, faithfulness: Sequence[float]) -> RandomCircuits:
        """Return them with the faithfulness of each, in the order of `circuits`."""
        return RandomCircuits(tuple(faithfulness), self.possible, self.exhaustive)


def draw_circuits(spec: Spec, *, layers: int, heads_per_layer: int) -> Drawn:
    """Return the random circuits that the spec's claim `controls` asks for."""
    controls = spec.claims.controls
    return random_circuits(
        spec.member_heads,
        layers=layers,
        heads_per_layer=heads_per_layer,
        match="layer" if controls is None else controls.match,
        seed=getattr(spec.prompts, "seed", 1),  # a prompt file has no seed: nothing of it is drawn
    )


def random_circuits(
    heads: Collection[Head],
    *,
    layers: int,
    heads_per_layer: int,
    match: Literal["layer", "size"],
    seed: int,
    draws: int = DRAWS,
) -> Drawn:
    """Return distinct random sets of heads as large as `heads`, never that set itself.

    With `match="layer"` every layer keeps its number of heads, with "size" only their total stays. At most 200
    possible: all of them. Else each draw ranks all heads by the sha256 of the seed and the draw's number, and takes
    the first, so the same seed gives the same circuits everywhere.
    """
    pools = _pools(frozenset(heads), layers, heads_per_layer, match)
    own = tuple(sorted(heads))
    possible = math.prod(math.comb(len(pool), size) for pool, size in pools) - 1
    exhaustive = possible <= ALL_OF
    found = _all(pools) if exhaustive else _ranked(pools, seed)
    others = (circuit for circuit in _distinct(found) if circuit != own)
    return Drawn(tuple(others if exhaustive else islice(others, draws)), possible, exhaustive)


Pool = tuple[Circuit, int]
"""Heads to choose from, and how many of them."""


def _pools(heads: frozenset[Head], layers: int, heads_per_layer: int, match: Literal["layer", "size"]) -> list[Pool]:
    by_layer = [tuple(Head(layer, head) for head in range(heads_per_layer)) for layer in range(layers)]
    if match == "size":
        return [(tuple(chain.from_iterable(by_layer)), len(heads))]
    sizes = Counter(head.layer for head in heads)
    return [(pool, sizes[layer]) for layer, pool in enumerate(by_layer)]


def _all(pools: Sequence[Pool]) -> Iterator[Circuit]:
    choices = [combinations(pool, size) for pool, size in pools]
    return (tuple(sorted(chain.from_iterable(parts))) for parts in product(*choices))


def _ranked(pools: Sequence[Pool], seed: int) -> Iterator[Circuit]:
    """Yield one circuit a draw, for ever; any set of the right sizes is as likely as any other."""
    for draw in count():
        rank = partial(_rank, seed, draw)
        parts = (sorted(pool, key=rank)[:size] for pool, size in pools)
        yield tuple(sorted(chain.from_iterable(parts)))


def _rank(seed: int, draw: int, head: Head) -> bytes:
    return sha256(f"{seed}:{draw}:{head}".encode()).digest()


def _distinct(circuits: Iterator[Circuit]) -> Iterator[Circuit]:
    seen: set[Circuit] = set()
    for circuit in circuits:
        if circuit not in seen:
            seen.add(circuit)
            yield circuit

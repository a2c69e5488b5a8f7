"""A prompt pair, and the pairs of a spec with what a person should know about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FEWEST_IN_A_TEMPLATE = 8
FEWEST_WITHOUT_TEMPLATES = 64
"""With fewer pairs the standard error of a stratum is not known well enough."""


@dataclass(frozen=True)
class Pair:
    """A clean prompt and its corrupt twin, None where it has none.

    `template` is the stratum. `slots` maps a slot to its word in the clean prompt, `flip` is the slot whose word
    differs in the corrupt one, and `spans` maps a slot to the half-open character ranges of its word in `clean`; a pair
    from a file has none of the three. `join` is the text between a prompt and its answer where the file
    gives both as they are; None: as `tokens.join` says.
    """

    clean: str
    corrupt: str | None
    answer: str
    foil: str
    template: str
    slots: Mapping[str, str] = field(default_factory=dict)
    flip: str | None = None
    spans: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    join: str | None = None


@dataclass(frozen=True)
class PromptSet:
    """The pairs of a spec, templates in the spec's order, and notices to print."""

    pairs: tuple[Pair, ...]
    notices: tuple[str, ...] = ()


def without_mirrored(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield each pair that neither repeats nor mirrors an earlier one."""
    seen: set[tuple[str, str | None, str, str]] = set()
    for pair in pairs:
        if (pair.clean, pair.corrupt, pair.answer, pair.foil) not in seen:
            seen.add((pair.clean, pair.corrupt, pair.answer, pair.foil))
            if pair.corrupt is not None:
                seen.add((pair.corrupt, pair.clean, pair.foil, pair.answer))
            yield pair

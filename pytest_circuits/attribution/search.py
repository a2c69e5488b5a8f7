"""The smallest circuit that keeps enough: a ranking says where to look, exact runs decide.

Nested circuits of the first n parts of a ranking are run, n doubling, then between the last two. From the smallest that
keeps enough, parts are taken out again: each is left out once, and of those that can be spared the least missed go, as
many together as can. It ends where none can be spared: then each part is needed in that circuit, and another circuit
may do as well. Greedy search without a ranking (Conmy et al., arXiv:2304.14997) tries every part of the model in each
step: `greedy_runs` says how many runs that takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
AT_ONCE = 4
"""Sizes between two that are known are tried so many at a time."""


@dataclass(frozen=True)
class Smallest(Generic[T]):
    """A circuit from which nothing can be spared.

    Attributes:
        members: in the ranking's order.
        kept: what it keeps.
        without: what is kept without each member, in their order.
        runs: circuits that were run.
    """

    members: tuple[T, ...]
    kept: float
    without: tuple[float, ...]
    runs: int


def smallest(
    ranked: Sequence[T], keeps: Callable[[Sequence[Sequence[T]]], Sequence[float]], *, least: float
) -> Smallest[T]:
    """Return the smallest circuit found that keeps at least so much.

    Args:
        ranked: every part of the model, the most important first.
        keeps: what each of some circuits keeps, of which one at least must be all parts; runs they are.
        least: what is enough.

    Raises:
        MeasurementError: not even all parts keep enough.
    """
    run = _Counted(keeps)
    members = tuple(ranked[: _enough(len(ranked), lambda sizes: run([ranked[:n] for n in sizes]), least)])
    kept = run([members])[0]
    while True:
        without = run([_but(members, {one}) for one in members])
        spared = sorted((one for one, left in zip(members, without, strict=True) if left >= least), key=_by(members))
        spared.sort(key=lambda one: -without[members.index(one)])
        if not spared or len(members) == 1:
            return Smallest(members, kept, tuple(without), run.runs)
        members, kept = _lessened(members, spared, without, run, least)


def greedy_runs(parts: int, members: int) -> int:
    """Return how many circuits are run by taking out, from all parts, the one least missed until so many are left."""
    return sum(range(members + 1, parts + 1))


def _enough(most: int, keeps: Callable[[Sequence[int]], Sequence[float]], least: float) -> int:
    """Return the smallest size, of those that are tried, that keeps enough."""
    doubled = [*takewhile(lambda size: size < most, accumulate([1] * most, lambda size, _: 2 * size)), most]
    low, high = 0, None
    for at in range(0, len(doubled), AT_ONCE):
        some = doubled[at : at + AT_ONCE]
        for size, left in zip(some, keeps(some), strict=True):
            if left >= least:
                high = size
                break
            low = size
        if high is not None:
            break
    if high is None:
        raise MeasurementError(
            f"a circuit that keeps {least:.2f} was searched, and not even all {most} parts of the model keep so much.\n"
            "  The metric of the clean run is not what is kept. Ask for less, or look at the prompts."
        )
    while high - low > 1:
        step = max(1, -(-(high - low) // (AT_ONCE + 1)))
        between = list(range(low + step, high, step))
        found = dict(zip(between, keeps(between), strict=True))
        high = next((size for size in between if found[size] >= least), high)
        low = max((size for size in between if size < high), default=low)
    return high


def _lessened(
    members: tuple[T, ...], spared: Sequence[T], without: Sequence[float], run: _Counted[T], least: float
) -> tuple[tuple[T, ...], float]:
    """Return the members without as many of those that can be spared as can go together, and what these keep."""
    counts = [count for count in (len(spared), len(spared) // 2, len(spared) // 4) if count > 1]
    tried = run([_but(members, set(spared[:count])) for count in counts])
    for count, left in zip(counts, tried, strict=True):
        if left >= least:
            return _but(members, set(spared[:count])), left
    return _but(members, {spared[0]}), without[members.index(spared[0])]


def _but(members: tuple[T, ...], gone: set[T]) -> tuple[T, ...]:
    return tuple(one for one in members if one not in gone)


def _by(members: tuple[T, ...]) -> Callable[[T], int]:
    """Return the order in which equals stand: the last of the ranking first."""
    return lambda one: -members.index(one)


class _Counted(Generic[T]):
    """Runs circuits, each once, and counts them."""

    def __init__(self, keeps: Callable[[Sequence[Sequence[T]]], Sequence[float]]) -> None:
        self._keeps = keeps
        self._known: dict[frozenset[T], float] = {}

    @property
    def runs(self) -> int:
        return len(self._known)

    def __call__(self, circuits: Sequence[Sequence[T]]) -> list[float]:
        new = {frozenset(one): one for one in circuits if frozenset(one) not in self._known}
        if new:
            self._known |= dict(zip(new, self._keeps([*new.values()]), strict=True))
        return [self._known[frozenset(one)] for one in circuits]

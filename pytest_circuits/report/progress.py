"""The progress of long work as text: what a live line or a log says of it, and when. Pure; the clock is given."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import plain

if TYPE_CHECKING:
    from collections.abc import Callable

WHO = "circuits: "  # said first, in a log among many; and what stands behind it cannot begin the line
CUT = "..."
SHORTEST_CIRCUIT = 16  # columns that a circuit's name keeps while that of a checkpoint is cut


@dataclass(frozen=True)
class Pace:
    """When work is shown: once it has taken `after` seconds, and then at most every `every` seconds."""

    after: float
    every: float


LIVE = Pace(after=1.0, every=0.1)  # what takes less would only flicker
LOG = Pace(after=30.0, every=30.0)


class Progress:
    """How far an item's work is. It goes through parts, each of which is heard of many times while it runs."""

    def __init__(self, circuit: str, pace: Pace, clock: Callable[[], float]) -> None:
        """Begin now.

        Args:
            circuit: what is measured.
            pace: when it is shown.
            clock: the time in seconds, which never goes back.
        """
        self._circuit = circuit
        self._pace = pace
        self._clock = clock
        self._due = clock() + pace.after
        self._what = ""
        self._done = self._total = self._first_done = 0
        self._at = self._first_at = 0.0

    def heard(self, what: str, done: int, total: int) -> bool:
        """Take how many of a part's forwards are done, and say whether it is time to show it."""
        now = self._clock()
        # The time is taken from the end of a part's first forward, in which much is made that the others reuse.
        if what != self._what or done < self._done or self._first_done == 0:
            self._first_at, self._first_done = now, done
        self._at, self._what, self._done, self._total = now, what, done, total
        if now < self._due:
            return False
        self._due = now + self._pace.every
        return True

    def line(self, room: int) -> str:
        """Return one line of at most `room` columns; names that are too long lose their beginning."""
        counted = f", {self._done}/{self._total}{self._left()}"
        circuit, what = plain(self._circuit, limit=None), plain(self._what, limit=None)
        names = room - len(WHO) - len(" on ") - len(counted)
        what = shortened(what, names - min(columns(circuit), SHORTEST_CIRCUIT))
        circuit = shortened(circuit, names - columns(what))
        return shortened(f"{WHO}{circuit} on {what}{counted}", room)

    def _left(self) -> str:
        """Return the time that the rest of the part takes at its pace so far, or nothing where that is unknown."""
        timed, rest = self._done - self._first_done, self._total - self._done
        if timed <= 0 or rest <= 0:
            return ""
        return f", {duration((self._at - self._first_at) / timed * rest)} left"


def duration(seconds: float) -> str:
    """Return a time as `3:20` or, from an hour on, `1:03:20`; a second that has begun counts."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def columns(text: str) -> int:
    """Return the columns that a terminal gives a text at most: two for a wide letter."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def shortened(text: str, room: int) -> str:
    """Return a text, or as much of its end as has room: names differ at the end."""
    if columns(text) <= room:
        return text
    room = max(room - len(CUT), 0)
    kept = text[max(len(text) - room, 0) :]
    while columns(kept) > room:
        kept = kept[1:]
    return CUT + kept

"""The progress of an item that measures: a live line on a terminal, in a log a plain line now and then."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..report.progress import LIVE, LOG, Progress
from ..report.terminal import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from ..checks.suite import Suite

# The live line stands below pytest's own, which stays whole, and the cursor stays where pytest left it: IND makes sure
# of a line below without moving to its start, so the place that is saved holds even at the bottom of the screen.
CLEAR, INDEX, UP, SAVE, BACK = "\x1b[J", "\x1bD", "\x1b[A", "\x1b7", "\x1b8"
BELOW = CLEAR + INDEX + UP + SAVE + INDEX + "\r"


@contextmanager
def watching(config: pytest.Config, suite: Suite, circuit: str) -> Iterator[None]:
    """Show what the suite measures as long as this lasts: never when quiet, nor where there is no reporter."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.get_verbosity() < 0:
        yield
        return
    shown = _Shown(config, circuit, live=bool(reporter.isatty()) and _is_ours(config))
    suite.watch = shown.watch
    try:
        yield
    finally:
        suite.watch = None
        shown.end()


def _is_ours(config: pytest.Config) -> bool:
    """Say whether a terminal obeys codes that move its cursor, and nobody else writes to it while an item runs."""
    obeys = os.environ.get("TERM", "dumb") != "dumb" and sys.platform != "win32" and not os.environ.get("CI")
    return obeys and config.getoption("capture", "no") in ("fd", "sys")


class _Shown:
    """An item's progress on pytest's own terminal writer."""

    def __init__(self, config: pytest.Config, circuit: str, *, live: bool) -> None:
        self._writer = config.get_terminal_writer()
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")
        self._live = live
        self._progress = Progress(circuit, LIVE if live else LOG, monotonic)
        self._drawn = False

    def watch(self, what: str, done: int, total: int) -> None:
        """Take what the suite tells, and show it when it is time."""
        if self._progress.heard(what, done, total):
            with self._uncaptured():
                self._draw() if self._live else self._log()

    def end(self) -> None:
        """Take the live line away."""
        if self._drawn:
            with self._uncaptured():
                _command(CLEAR)

    def _uncaptured(self) -> Any:
        """Return a context in which the writer reaches the terminal: while an item runs, its output is captured."""
        return self._capture.global_and_fixture_disabled() if self._capture else nullcontext()

    def _draw(self) -> None:
        self._drawn = True
        room = shutil.get_terminal_size().columns - 1
        known = self._progress.line(room).encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)
        _command(BELOW + known[-room:] + BACK)

    def _log(self) -> None:
        """Write a line of its own: what pytest has begun to write goes on below it, as it does below a live log."""
        if self._writer.width_of_current_line:
            self._writer.write("\n")
        self._writer.write(f"{self._progress.line(WIDTH)}\n", flush=True)


def _command(text: str) -> None:
    """Write to the terminal past pytest's writer, which counts what it writes to know where its own line ends."""
    sys.stdout.write(text)
    sys.stdout.flush()

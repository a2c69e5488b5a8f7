"""What a person sees: a terminal's screen from the bytes that a program wrote, and a program run on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOKEN = re.compile(
    r"\x1b\](?P<title>.*?)(?:\x07|\x1b\\)"  # for the window and not for the screen
    r"|\x1b\[(?P<number>[0-9;?]*)(?P<control>[A-Za-z])|\x1b(?P<escape>[78D])|(?P<letter>.)",
    re.S,
)


class Screen:
    """The screen of a VT100, as far as pytest and the live line use it: what scrolled off stays readable above."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""] * rows  # from the first that was written; the last `rows` of them are on the screen
        self.row = self.column = 0
        self.saved = (0, 0)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()

    def line(self, below: int = 0) -> str:
        """The line of the cursor, or one below it."""
        return self.lines[len(self.lines) - self.rows + self.row + below].rstrip()

    def feed(self, output: str) -> None:
        for token in TOKEN.finditer(output):
            if token["letter"]:
                self._letter(token["letter"])
            elif token["escape"]:
                self._escape(token["escape"])
            elif token["control"]:
                self._control(token["control"], int(token["number"] or 0) if token["number"].isdigit() else 0)

    def _letter(self, letter: str) -> None:
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self._index()
        elif letter != "\x1b":
            if self.column == self.columns:  # the last column was written: the next letter wraps
                self.column = 0
                self._index()
            self._put(self.column, letter)
            self.column += 1

    def _escape(self, code: str) -> None:
        if code == "D":
            self.column = min(self.column, self.columns - 1)  # a wrap that waits is forgotten
            self._index()
        elif code == "7":
            self.saved = self.row, self.column
        else:
            self.row, self.column = self.saved  # of the screen, not of what stands on it

    def _control(self, code: str, number: int) -> None:
        if code == "A":
            self.row = max(0, self.row - max(number, 1))
        elif code in "JK":
            assert number == 0
            self._put(self.column, "", cut=True)
            if code == "J":
                below = len(self.lines) - self.rows + self.row + 1
                self.lines[below:] = [""] * (len(self.lines) - below)
        else:
            assert code == "m", code

    def _index(self) -> None:
        if self.row == self.rows - 1:
            self.lines.append("")
        else:
            self.row += 1

    def _put(self, column: int, text: str, *, cut: bool = False) -> None:
        at = len(self.lines) - self.rows + self.row
        line = self.lines[at].ljust(column)
        self.lines[at] = line[:column] + text + ("" if cut else line[column + len(text) :])


def run_in_terminal(
    command: Sequence[str], *, columns: int, rows: int, environment: Mapping[str, str], cwd: os.PathLike[str]
) -> str:
    """Run a program on a pseudo-terminal of this size, and return everything that it wrote there."""
    import termios

    ours, its = os.openpty()
    termios.tcsetwinsize(its, (rows, columns))
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, cwd=cwd) as process:
        os.close(its)
        output = b""
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # Linux ends a pseudo-terminal so
            pass
        process.wait(timeout=60)
    os.close(ours)
    return output.decode()

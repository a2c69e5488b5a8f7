"""The documentation as data: its pages, their fenced blocks, and how printed output is compared with a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")  # not the digits of L1H3


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` names the file that a reader is asked to save it as."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a console block that a reader types."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["title"], match["text"])
        for match in FENCE.finditer(text)
    ]


def agree(expected: str, found: str, tolerance: float) -> bool:
    """Say whether two lines differ only in widths and, by the tolerance, absolute or relative, in numbers."""
    one, other = (" ".join(NUMBER.sub("#", line).split()) for line in (expected, found))
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(found), strict=False)
    return one == other and all(abs(float(a) - float(b)) <= max(tolerance, tolerance * abs(float(a))) for a, b in pairs)


@pytest.fixture
def pages() -> list[Path]:
    """Every page of the documentation."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [*top, ROOT / "changelog.d/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture
def blocks(pages: list[Path]) -> Callable[..., list[Block]]:
    """`blocks("yaml")`: a language's blocks on every page; `blocks("any", "README.md")`: all blocks of one page."""

    def of(language: str, *names: str) -> list[Block]:
        chosen = [ROOT / name for name in names] or pages
        found = [block for page in chosen for block in read_blocks(page) if language in ("any", block.language)]
        assert found, f"no {language} block"
        return found

    return of


@pytest.fixture
def lacks() -> Callable[..., list[str]]:
    """`lacks(output, text, tolerance=0.02)`: the first line of the text that the output does not have, in order.

    A line `...` stands for any lines, and so does an empty one.
    """

    def of(output: str, text: str, *, tolerance: float) -> list[str]:
        printed = iter(output.splitlines())
        expected = [line for line in text.splitlines() if line.strip() not in ("", "...")]
        return next(([line] for line in expected if not any(agree(line, one, tolerance) for one in printed)), [])

    return of

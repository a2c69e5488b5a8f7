"""CSV and JSONL files become pairs; every problem of a file is told at once, with its line."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import PromptError
from .pair import FEWEST_IN_A_TEMPLATE, FEWEST_WITHOUT_TEMPLATES, Pair, PromptSet, without_mirrored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGEST_FILE = 16 * 1024 * 1024
COLUMNS = ("clean", "corrupt", "answer", "foil", "template")
OPTIONAL = ("corrupt", "template")
SINGLE_STRATUM = "all"
"""The stratum of every pair of a file without templates."""


class Row(NamedTuple):
    """A row of a file by column, and its line from 1."""

    line: int
    cells: dict[str, Any]


class _Unreadable(Exception):
    """Nothing after this line can be read."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def read_pairs(path: Path, name: str) -> PromptSet:
    """Return the pairs of a CSV or JSONL file with the columns clean, corrupt, answer, foil and template.

    Without `corrupt` the pairs have no twin; without `template` they are one stratum. A row that repeats or mirrors
    another is left out and counted in a notice.

    Args:
        path: the file, whose name ends in `.csv` or `.jsonl`.
        name: how messages call the file.

    Raises:
        PromptError: every problem of the file, each `file:line: message`.
    """
    read = _read(path, name)
    fewest = FEWEST_IN_A_TEMPLATE if read.has_templates else FEWEST_WITHOUT_TEMPLATES
    sizes = Counter({SINGLE_STRATUM: 0}) if not read.pairs else Counter(pair.template for pair in read.pairs)
    small = [
        f"{name}:1: {f'template {template!r}' if read.has_templates else 'a file without templates'} has {size} "
        f"distinct pair{'s' * (size != 1)}; at least {fewest} are needed to know how much prompts vary"
        for template, size in sizes.items()
        if size < fewest
    ]
    if small:
        raise PromptError("\n".join(small))
    return PromptSet(read.pairs, read.notices)


def look_at_pairs(path: Path, name: str) -> PromptSet:
    """Return the pairs of a file as `read_pairs` does, however few there are: to look at, and not to judge by.

    Raises:
        PromptError: every problem of the file, each `file:line: message`; it has no pair.
    """
    read = _read(path, name)
    if not read.pairs:
        raise PromptError(f"{name}:1: the file should have pairs of prompts, and has none; add rows below the header")
    return PromptSet(read.pairs, read.notices)


class _Read(NamedTuple):
    """The distinct pairs of a file."""

    pairs: tuple[Pair, ...]
    notices: tuple[str, ...]
    has_templates: bool


def _read(path: Path, name: str) -> _Read:
    problems: list[str] = []
    try:
        rows = _rows(path)
    except _Unreadable as error:
        raise PromptError(f"{name}:{error.line}: {error}") from error
    columns = {column for row in rows for column in row.cells}
    for row in rows:
        problems += [f"{name}:{row.line}: {problem}" for problem in _wrong(row.cells, columns)]
    if problems:
        raise PromptError("\n".join(dict.fromkeys(problems)))
    read = [Pair(**{"corrupt": None, "template": SINGLE_STRATUM, **row.cells}) for row in rows]
    pairs, notices = tuple(without_mirrored(read)), []
    if len(pairs) < len(read):
        repeated = len(read) - len(pairs)
        notices.append(f"{name}: {repeated} of {len(read)} rows repeat or mirror another and do not count")
    if "template" not in columns:
        notices.append(f"{name}: no column `template`, so all {len(pairs)} pairs are one stratum")
    return _Read(pairs, tuple(notices), "template" in columns)


def _rows(path: Path) -> list[Row]:
    """Return the rows of a file by the format that its name tells."""
    formats: dict[str, Callable[[str], list[Row]]] = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix not in formats:
        raise _Unreadable(1, f"the name must end in .csv or .jsonl, found {path.suffix!r}")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _Unreadable(1, f"the file cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise _Unreadable(1, f"the file has more than {LARGEST_FILE} bytes; no more are read")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _Unreadable(
            1,
            "the file begins with a byte order mark, which would join the first column's name; "
            "save it as UTF-8 without BOM",
        )
    try:
        return formats[path.suffix](raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _Unreadable(line, f"the file is not UTF-8: byte 0x{raw[error.start]:02x}; save it as UTF-8") from error


def _csv_rows(text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Row] = []
    line = 1
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise _Unreadable(1, f"a column is given twice: {', '.join(header)}")
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return found
            if len(cells) not in (0, len(header)):
                raise _Unreadable(
                    line,
                    f"expected {len(header)} cells, as in the header, found {len(cells)}; "
                    "a cell with a comma needs quotes",
                )
            if cells:
                found.append(Row(line, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise _Unreadable(line, f"this is not CSV: {error}") from error


def _jsonl_rows(text: str) -> list[Row]:
    found: list[Row] = []
    for line, written in enumerate(text.split("\n"), start=1):
        if written.strip():
            try:
                cells = json.loads(written, object_pairs_hook=_once)
            except RecursionError as error:
                raise _Unreadable(line, "this is not a row: it is nested too deep") from error
            except ValueError as error:
                raise _Unreadable(line, f"this is not JSON: {error}") from error
            if not isinstance(cells, dict):
                raise _Unreadable(line, 'expected an object such as {"clean": ..., "answer": ...}')
            found.append(Row(line, cells))
    return found


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different."""
    if len(dict(items)) < len(items):
        raise ValueError(f"a key is given twice: {', '.join(key for key, _ in items)}")
    return dict(items)


def _is_text(value: str) -> bool:
    """Say whether UTF-8 can write it: JSON can escape half of a surrogate pair, which is no character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(cells: dict[str, Any], columns: set[str]) -> list[str]:
    """Return what is wrong with a row, given the columns that any row has."""
    problems = [
        f"unknown column {column!r}; known here: {', '.join(COLUMNS)}" for column in cells if column not in COLUMNS
    ]
    for column in COLUMNS:
        value = cells.get(column)
        if column not in cells:
            if column not in OPTIONAL:
                problems.append(f"the column {column!r} is missing")
            elif column in columns:
                problems.append(f"{column!r} is missing here and given in other rows; give it in every row or in none")
        elif not isinstance(value, str):
            problems.append(f"{column!r} must be a text, found {value!r}; write it in quotes")
        elif not _is_text(value):
            problems.append(f"{column!r} holds half of a surrogate pair, which is no character: {value!r}")
        elif not value.strip():
            problems.append(f"{column!r} is empty")
        elif column in ("clean", "corrupt") and value != value.strip():
            problems.append(f"{column!r} begins or ends with a space; `tokens.join` puts the space before the answer")
    for one, other in (("clean", "corrupt"), ("answer", "foil")):
        if one in cells and cells[one] == cells.get(other):
            problems.append(f"{one!r} and {other!r} are the same, so nothing would differ")
    return problems

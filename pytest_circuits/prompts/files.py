"""Files of prompts become pairs; every problem of a file is told at once, with its line."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import PromptError
from .pair import FEWEST_IN_A_TEMPLATE, FEWEST_WITHOUT_TEMPLATES, Pair, PromptSet, without_mirrored
from .published import OURS, translated
from .rows import Row, Unreadable, csv_rows, json_rows, jsonl_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .published import Form

LARGEST_FILE = 16 * 1024 * 1024
OPTIONAL = ("corrupt", "template")
SINGLE_STRATUM = "all"
"""The stratum of every pair of a file without templates."""


def read_pairs(path: Path, name: str) -> PromptSet:
    """Return the pairs of a CSV or JSONL file with the columns clean, corrupt, answer, foil and template.

    Files of other tools are told by their columns (`published`), and what is chosen to read them is a notice. Without
    `corrupt` the pairs have no twin; without `template` they are one stratum. A row that repeats or mirrors another is
    left out and counted in a notice.

    Args:
        path: the file, whose name ends in `.csv`, `.jsonl` or `.json`.
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
    try:
        found = translated(_rows(path))
    except Unreadable as error:
        raise PromptError(f"{name}:{error.line}: {error}") from error
    columns = {column for row in found.rows for column in row.cells}
    problems = list(found.problems)
    for row in found.rows:
        problems += [(row.line, problem) for problem in _wrong(row.cells, columns, found.form)]
    if problems:
        problems.sort(key=lambda problem: problem[0])
        raise PromptError("\n".join(dict.fromkeys(f"{name}:{line}: {problem}" for line, problem in problems)))
    read = [
        Pair(**{"corrupt": None, "template": SINGLE_STRATUM, **row.cells}, join=found.form.join) for row in found.rows
    ]
    pairs, notices = tuple(without_mirrored(read)), [f"{name}: {found.notice}"] if found.notice else []
    if len(pairs) < len(read):
        repeated = len(read) - len(pairs)
        notices.append(f"{name}: {repeated} of {len(read)} rows repeat or mirror another and do not count")
    if "template" not in columns:
        notices.append(f"{name}: no column `template`, so all {len(pairs)} pairs are one stratum")
    return _Read(pairs, tuple(notices), "template" in columns)


def _rows(path: Path) -> list[Row]:
    """Return the rows of a file by the format that its name tells."""
    formats: dict[str, Callable[[str], list[Row]]] = {".csv": csv_rows, ".jsonl": jsonl_rows, ".json": json_rows}
    if path.suffix not in formats:
        raise Unreadable(1, f"the name must end in .csv, .jsonl or .json, found {path.suffix!r}")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise Unreadable(1, f"the file cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise Unreadable(1, f"the file has more than {LARGEST_FILE} bytes; no more are read")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise Unreadable(
            1,
            "the file begins with a byte order mark, which would join the first column's name; "
            "save it as UTF-8 without BOM",
        )
    try:
        return formats[path.suffix](raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Unreadable(line, f"the file is not UTF-8: byte 0x{raw[error.start]:02x}; save it as UTF-8") from error


def _is_text(value: str) -> bool:
    """Say whether UTF-8 can write it: JSON can escape half of a surrogate pair, which is no character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(cells: dict[str, Any], columns: set[str], form: Form) -> list[str]:
    """Return what is wrong with a row, given the columns that any row has; each by its name in the file."""
    problems = []
    for column in OURS:
        value, called = cells.get(column), form.called(column)
        if column not in cells:
            if column not in OPTIONAL:
                problems.append(f"the column {called!r} is missing")
            elif column in columns:
                problems.append(f"{called!r} is missing here and given in other rows; give it in every row or in none")
        elif not isinstance(value, str):
            problems.append(f"{called!r} must be a text, found {value!r:.80}; write it in quotes")
        elif not _is_text(value):
            problems.append(f"{called!r} holds half of a surrogate pair, which is no character: {value!r}")
        elif not value.strip():
            problems.append(f"{called!r} is empty")
        elif column in ("clean", "corrupt") and value != value.strip() and form.join is None:
            problems.append(f"{called!r} begins or ends with a space; `tokens.join` puts the space before the answer")
    for one, other in (("clean", "corrupt"), ("answer", "foil")):
        if one in cells and cells[one] == cells.get(other):
            problems.append(f"{form.called(one)!r} and {form.called(other)!r} are the same, so nothing would differ")
    return problems

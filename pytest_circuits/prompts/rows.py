"""A file's rows by column, each with its line: CSV, JSON Lines, or one JSON document with a list of prompts."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS = "prompts"


class Row(NamedTuple):
    """A row of a file by column, and its line from 1."""

    line: int
    cells: dict[str, Any]


class Unreadable(Exception):
    """Nothing after this line can be read."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def csv_rows(text: str) -> list[Row]:
    """Return the rows below a header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Row] = []
    line = 1
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise Unreadable(1, f"a column is given twice: {', '.join(header)}")
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return found
            if len(cells) not in (0, len(header)):
                raise Unreadable(
                    line,
                    f"expected {len(header)} cells, as in the header, found {len(cells)}; "
                    "a cell with a comma needs quotes",
                )
            if cells:
                found.append(Row(line, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise Unreadable(line, f"this is not CSV: {error}") from error


def jsonl_rows(text: str) -> list[Row]:
    """Return the rows of a file with an object in each line."""
    found: list[Row] = []
    for line, written in enumerate(text.split("\n"), start=1):
        if written.strip():
            try:
                cells = json.loads(written, object_pairs_hook=_once)
            except RecursionError as error:
                raise Unreadable(line, "this is not a row: it is nested too deep") from error
            except ValueError as error:
                raise Unreadable(line, f"this is not JSON: {error}") from error
            if not isinstance(cells, dict):
                raise Unreadable(line, 'expected an object such as {"clean": ..., "answer": ...}')
            found.append(Row(line, cells))
    return found


def json_rows(text: str) -> list[Row]:
    """Return the rows of a document with a list `prompts`, or of JSON Lines that go by the name of JSON."""
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise Unreadable(1, "this is not a file of prompts: it is nested too deep") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return jsonl_rows(text)
        raise Unreadable(error.lineno, f"this is not JSON: {error}") from error
    except ValueError as error:
        raise Unreadable(1, f"this is not JSON: {error}") from error
    if isinstance(document, dict) and PROMPTS not in document:
        return jsonl_rows(text)
    prompts = document[PROMPTS] if isinstance(document, dict) else None
    if not isinstance(prompts, list) or not all(isinstance(cells, dict) for cells in prompts):
        raise Unreadable(
            1, f'expected {{"{PROMPTS}": [{{"clean": ..., "answers": [...]}}]}}, or an object in each line'
        )
    return [Row(line, cells) for line, cells in zip(_lines(text, prompts), prompts, strict=True)]


def _lines(text: str, prompts: list[Any]) -> Iterator[int]:
    """Yield the line on which each of a document's prompts begins."""
    decoder = json.JSONDecoder()
    starts = (match.end() for match in re.finditer(rf'"{PROMPTS}"\s*:\s*(?=\[)', text))
    at = next(start for start in starts if decoder.raw_decode(text, start)[0] == prompts) + 1
    line = 1 + text.count("\n", 0, at)
    for _ in prompts:
        begin = text.index("{", at)  # between two prompts are blanks and a comma
        line += text.count("\n", at, begin)
        yield line
        _, at = decoder.raw_decode(text, begin)
        line += text.count("\n", begin, at)


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different."""
    if len(dict(items)) < len(items):
        raise ValueError(f"a key is given twice: {', '.join(key for key, _ in items)}")
    return dict(items)

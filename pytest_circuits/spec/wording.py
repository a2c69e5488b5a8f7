"""What a person reads when pydantic refuses a value of a spec file."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .document import misreading, odd_number
from .json_schema import keys_at
from .schema import UNION_TAGS

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic_core import ErrorDetails

    from .document import Document, Path

_KEY_MARK = "[key]"
_TWO_NUMBERS = re.compile(r"([0-9]+)[._:]([0-9]+)")
_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def note_refusals(document: Document, errors: list[ErrorDetails]) -> None:
    """Note each refusal of the schema, except where the file's text itself is already at fault."""
    # The last part of a path, because an included file is noted with its own paths.
    faulty = {(problem.place, problem.path[-1:]) for problem in document.problems}
    for error in errors:
        path = tuple(part for part in error["loc"] if part not in UNION_TAGS and part != _KEY_MARK)
        about_key = error["type"] == "extra_forbidden" or error["loc"][-1] == _KEY_MARK
        place = (document.keys.get(path) if about_key else None) or document.place(path)
        shortened = error["type"] == "too_short" and error["input"]  # its items were refused one by one
        if (place, path[-1:]) not in faulty and not shortened:
            document.problem(path, _text(error, path, document), at=place)
    for error in errors:
        if error["type"] == "extra_forbidden":  # what is left can then be judged by the rules
            path = tuple(part for part in error["loc"] if part not in UNION_TAGS)
            _value(document.data, path[:-1]).pop(path[-1])


def note_odd_numbers(document: Document) -> None:
    """Note each number that YAML 1.1 reads otherwise than people do, where nothing else is wrong with it."""
    faulty = {problem.path for problem in document.problems}
    for path, text in document.plain.items():
        value = _value(document.data, path)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and odd_number(text) and path not in faulty:
            document.problem(path, f"{misreading(text, value)}; write {value} if that is meant, or a text in quotes")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return a suggestion, or what is known."""
    close = get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _text(error: ErrorDetails, path: Path, document: Document) -> str:
    kind, value = error["type"], error["input"]
    written = document.plain.get(path)
    if kind == "missing":
        return "this key is missing" + ("; write `format: 1`" if path == ("format",) else "")
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), path)
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind in ("string_too_short", "too_short"):
        return "this must not be empty"
    if kind == "string_pattern_mismatch":
        return f"{value!r} is not a name; a name matches {error['ctx']['pattern']}"
    if kind == "string_type" and path[0] == "circuit" and path[2:3] in (("heads",), ("mlps",), ("layers",)):
        return _not_a_component(value, written)
    if kind == "string_type" and written is not None:
        return f'{misreading(written, value)}; write "{written}" in quotes if the text is meant'
    if kind == "literal_error":
        expected = error["ctx"]["expected"]
        near = did_you_mean(value, re.findall(r"'([^']*)'", expected)) if isinstance(value, str) else ""
        return f"expected {expected}, found {_found(value, written)}" + (near if near.endswith("?") else "")
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {_found(value, written)}{_hint(kind, value)}"
    return f"{error['msg'].replace('Input should', 'this should')}, found {_found(value, written)}"


def _found(value: Any, written: str | None) -> str:
    """Name a value of the file."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if isinstance(value, str):
        return f"the text {value!r}"
    if value is None:
        return "nothing"
    if isinstance(value, bool) and written is not None and written.lower() not in ("true", "false"):
        return f"`{written}`, which YAML reads as {str(value).lower()}"
    return f"{str(value).lower() if isinstance(value, bool) else value}"


def _hint(kind: str, value: Any) -> str:
    if kind == "tuple_type" and isinstance(value, str):
        return f"; write [{value!r}]"
    if kind == "float_type" and isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", value):
        return f"; YAML 1.1 reads {value} as text, write {float(value)}"
    return ""


def _not_a_component(value: Any, written: str | None) -> str:
    """Say why a YAML number cannot name a head: `9.10` is the number 9.1, so head 10 would become head 1."""
    if written is None:
        return f"expected the name of a part, such as L9H10, found {_found(value, None)}"
    two = _TWO_NUMBERS.fullmatch(written)
    if two is None:
        return f"{misreading(written, value)}, not the name of a part; write a name such as L9H10"
    meant = f"write L{two[1]}H{two[2]}"
    if isinstance(value, float) and str(value) != written:
        return f"{misreading(written, value)}, so head {two[2]} would become another; {meant}"
    return f"{misreading(written, value)}, not as a head; {meant}"


def _unknown_key(key: str, path: Path) -> str:
    known = keys_at(path[:-1])
    if key in known:
        return f"the key {key!r} cannot stand beside `file`: prompts come from templates or from a file"
    return f"unknown key {key!r}{did_you_mean(key, known)}"


def _value(data: Any, path: Path) -> Any:
    """Return what stands at a path, None where nothing does."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data

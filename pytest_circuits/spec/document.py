"""YAML text becomes plain data with the place of every key and value, or a list of problems with file:line:col."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import yaml

Path = tuple[str | int, ...]
"""Where something stands in a file: the keys and the indices that lead to it."""

LARGEST_FILE = 256 * 1024
DEEPEST = 20

_PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?")
_PLAIN_KEY = re.compile(r"[\w-]+(\.[\w-]+)*")


class Place(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    place: Place
    path: Path
    text: str

    def __str__(self) -> str:
        """Return `file:line:col: dotted.path: text`."""
        parts = [part if isinstance(part, str) and _PLAIN_KEY.fullmatch(part) else repr(part) for part in self.path]
        where = f"{self.place.file}:{self.place.line}:{self.place.column}: "
        return where + (".".join(parts) + ": " if parts else "") + self.text


@dataclass
class Document:
    """A file as plain dicts, tuples and scalars, with where and how each was written.

    `plain` holds the text of every scalar without quotes that YAML 1.1 does not read as text.
    """

    name: str
    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    plain: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Place:
        """Return where the value at a path begins, or what is known of the way to it."""
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.values), ())
        return self.values.get(known, Place(self.name, 1, 1))

    def problem(self, path: Path, text: str, *, at: Place | None = None) -> None:
        """Note what is wrong at a path."""
        self.problems.append(Problem(at or self.place(path), path, text))


def odd_number(text: str) -> bool:
    """Say whether a YAML 1.1 number is written in a way that people read otherwise, as `012`, `9_10` or `9:6`."""
    return _PLAIN_NUMBER.fullmatch(text) is None


def read_document(raw: bytes, name: str) -> Document:
    """Read one YAML document, or collect what forbids it.

    Refused are what makes a short file large or its meaning unclear: aliases, anchors, tags, merge keys, duplicate
    keys, further documents, and too much size or depth.
    """
    import yaml

    document = Document(name)
    start = Place(name, 1, 1)
    if len(raw) > LARGEST_FILE:
        document.problems.append(Problem(start, (), f"the file has more than {LARGEST_FILE} bytes; no spec needs that"))
        return document
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        place = Place(name, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        document.problems.append(Problem(place, (), f"the file is not UTF-8: byte 0x{raw[error.start]:02x}"))
        return document
    try:
        _Reader(document, text).read()
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(error, name, text))
    except _TooDeep:
        pass
    return document


def _syntax_problem(error: yaml.YAMLError, name: str, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        why = " ".join(part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
        return Problem(Place(name, mark.line + 1, mark.column + 1), (), f"this is not YAML: {why}")
    bad = next((i for i, sign in enumerate(text) if not sign.isprintable() and sign not in "\n\r\t"), 0)
    line = text.count("\n", 0, bad) + 1
    place = Place(name, line, bad - text.rfind("\n", 0, bad))
    return Problem(place, (), f"this is not YAML: the character {text[bad : bad + 1]!r} is not allowed")


class _TooDeep(Exception):
    """Ends the reading; the problem is already noted."""


class _Reader:
    """Reads a document from YAML events: PyYAML's composer recurses without a limit and forgets anchors and tags."""

    def __init__(self, document: Document, text: str) -> None:
        import yaml
        from yaml.constructor import SafeConstructor

        self.document = document
        self.events = yaml
        # PyYAML may have been built without libyaml; its own reader is slower and gives the same events.
        self.loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        self.constructor = SafeConstructor()

    def read(self) -> None:
        """Fill the document."""
        self.loader.get_event()
        first = self.loader.get_event()
        if isinstance(first, self.events.StreamEndEvent):
            self.problem(first, (), "the file is empty")
            return
        self.document.data = self.node(self.loader.get_event(), ())
        self.loader.get_event()
        after = self.loader.get_event()
        if not isinstance(after, self.events.StreamEndEvent):
            self.problem(after, (), "a second document begins here; a file holds one circuit, in one document")

    def place(self, event: Any) -> Place:
        """Return where an event starts."""
        return Place(self.document.name, event.start_mark.line + 1, event.start_mark.column + 1)

    def problem(self, event: Any, path: Path, text: str) -> None:
        """Note a problem at an event."""
        self.document.problems.append(Problem(self.place(event), path, text))

    def node(self, event: Any, path: Path) -> Any:
        """Read what an event begins."""
        events = self.events
        self.document.values[path] = self.place(event)
        if isinstance(event, events.AliasEvent):
            self.problem(event, path, f"aliases are not allowed: write out what *{event.anchor} stands for")
            return None
        if event.anchor is not None:
            self.problem(event, path, f"anchors are not allowed: remove &{event.anchor}")
        if event.tag is not None:
            self.problem(event, path, f"tags are not allowed: remove {event.tag!r}")
        if isinstance(event, events.ScalarEvent):
            return self.scalar(event, path)
        if len(path) >= DEEPEST:
            self.problem(event, path[:3], f"lists and mappings lie more than {DEEPEST} deep here; no spec needs that")
            raise _TooDeep
        return self.mapping(path) if isinstance(event, events.MappingStartEvent) else self.sequence(path)

    def sequence(self, path: Path) -> tuple[Any, ...]:
        """Read the rest of a list."""
        items: list[Any] = []
        while not isinstance(event := self.loader.get_event(), self.events.SequenceEndEvent):
            items.append(self.node(event, (*path, len(items))))
        return tuple(items)

    def mapping(self, path: Path) -> dict[str, Any]:
        """Read the rest of a mapping; what a refused key holds is read too, for its own problems, and dropped."""
        data: dict[str, Any] = {}
        while not isinstance(event := self.loader.get_event(), self.events.MappingEndEvent):
            key = self.key(event, path, data)
            value = self.node(self.loader.get_event(), (*path, "?" if key is None else key))
            if key is not None:
                data[key] = value
        return data

    def key(self, event: Any, path: Path, data: dict[str, Any]) -> str | None:
        """Return a key that is a text and new; else note the problem and return None."""
        if not isinstance(event, self.events.ScalarEvent):
            self.problem(event, path, "a key must be a text, found a list, a mapping or an alias")
            self.node(event, (*path, "?"))
            return None
        value = self.scalar(event, (*path, "?"))
        if event.value == "<<" and event.implicit[0]:
            self.problem(event, path, "merge keys (<<) are not allowed: write out the keys")
        elif event.anchor is not None or event.tag is not None:
            self.problem(event, path, f"anchors and tags are not allowed: remove them from the key {event.value!r}")
        elif not isinstance(value, str):
            self.problem(event, path, f'the key {misreading(event.value, value)}; write "{event.value}" in quotes')
        elif value in data:
            first = self.document.keys[(*path, value)].line
            self.problem(event, (*path, value), f"this key is already given in line {first}; remove one of the two")
        else:
            self.document.keys[(*path, value)] = self.place(event)
            return value
        return None

    def scalar(self, event: Any, path: Path) -> Any:
        """Return a text, a number, a boolean or None, as YAML 1.1 reads it; dates stay text."""
        kind = _kind(event.value, event.implicit)
        if kind not in ("null", "bool", "int", "float"):
            return event.value
        try:
            value = self.constructor.construct_object(
                self.events.ScalarNode(f"tag:yaml.org,2002:{kind}", event.value, event.start_mark, event.end_mark)
            )
        except ValueError:
            return event.value
        self.document.plain[path] = event.value
        if isinstance(value, float) and not math.isfinite(value):
            self.problem(event, path, f"numbers must be finite, found {event.value}")
        return value


@lru_cache(maxsize=4096)
def _kind(text: str, implicit: tuple[bool, bool]) -> str:
    """Return how YAML 1.1 reads a scalar. Keys and words repeat from spec to spec, and this is asked of every one."""
    import yaml

    tag: str = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, implicit)  # type: ignore[no-untyped-call]
    return tag.rpartition(":")[2]


def misreading(text: str, value: Any) -> str:
    """Say what YAML 1.1 makes of an unquoted text that is not read as text."""
    if value is None:
        return f"`{text}` is read by YAML as nothing" if text else "is empty"
    if isinstance(value, bool):
        return f"`{text}` is read by YAML as {str(value).lower()}"
    return f"`{text}` is read by YAML as the number {value}"

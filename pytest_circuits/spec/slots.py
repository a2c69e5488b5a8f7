"""The slots of a template text, `{subject}`: finding them and filling them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SLOT = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*)\}")

Spans = dict[str, tuple[tuple[int, int], ...]]
"""Slot -> the half-open character ranges that its word fills."""


def slots_in(text: str) -> tuple[str, ...]:
    """Return the slots of a text in their order, repeated ones repeated.

    Raises:
        ValueError: a brace belongs to no slot.
    """
    rest = _SLOT.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError("a brace here belongs to no slot; a slot is a name in braces, as {subject}")
    return tuple(_SLOT.findall(text))


def fill(text: str, words: Mapping[str, str]) -> tuple[str, Spans]:
    """Return the text with its slots filled, and where each word stands.

    Words are put in as they are: nothing in a text can name an attribute or a format, as `str.format` would let it.
    """
    filled, end = "", 0
    spans: Spans = {}
    for match in _SLOT.finditer(text):
        filled += text[end : match.start()]
        word = words[match[1]]
        spans[match[1]] = (*spans.get(match[1], ()), (len(filled), len(filled) + len(word)))
        filled, end = filled + word, match.end()
    return filled + text[end:], spans

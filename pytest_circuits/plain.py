"""Text from a checkpoint, a spec or a file made harmless for a terminal and for the log of a build server."""

from __future__ import annotations

import re

# Build servers take commands from what a job prints: GitHub `::error::` at the start of a line after any indentation,
# and `##[group]` anywhere in it; Azure `##vso[...]` and TeamCity `##teamcity[...]` likewise. Text may be wrapped, so
# `::` is broken after every blank and not only at the start.
COMMAND = re.compile(r"(?:(?<=\s)|^):{2,}|##(?=\w*\[)")


def plain(text: str, *, limit: int | None = 200) -> str:
    """Return one line of at most `limit` characters that commands neither a terminal nor a build server.

    What `repr` would escape is escaped (control characters, ANSI codes, line ends, invisible and right-to-left
    marks), letters of every language stay; a build server's command is broken by a blank; what is too long ends in
    `...`.
    """
    escaped = "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)
    broken = COMMAND.sub(lambda found: " ".join(found[0]), escaped)
    return broken if limit is None or len(broken) <= limit else broken[: limit - 3] + "..."

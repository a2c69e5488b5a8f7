"""Every exception that the project raises, one class for each remedy; and foreign text in them made harmless."""

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


class CircuitsError(Exception):
    """The base of all: a text that says what was expected, what was found, why it matters and what to do."""

    def __str__(self) -> str:
        """Return the text, harmless line by line: it may hold words from a checkpoint, a spec or a file."""
        return "\n".join(plain(line, limit=None) for line in super().__str__().split("\n"))


class UsageProblem(CircuitsError):
    """The command line or the ini file asks for something that cannot be done. Remedy: call it differently."""


class SpecError(CircuitsError):
    """A spec file is wrong. Remedy: edit the file; the text lists every problem as `file:line:col: path: message`."""


class PromptError(CircuitsError):
    """The prompts cannot be asked of this tokenizer. Remedy: change the words, the template or the token options."""


class CheckpointRefused(CircuitsError):
    """A checkpoint is unsafe, damaged or unknown. Remedy: convert it, download it again, or name another."""


class MismatchError(CircuitsError):
    """A spec and a checkpoint do not fit: architecture, layers or heads. Remedy: pair them differently."""


class InstrumentError(CircuitsError):
    """A self-check of the measurement failed. Remedy: report it; nothing that this model measured can be trusted."""


class MeasurementError(CircuitsError):
    """A measured value is undefined, such as a NaN logit. Remedy: look at the checkpoint."""


class BaselineError(CircuitsError):
    """A stored baseline is missing, stale, damaged or orphaned. Remedy: the text names the command."""


class BaselineRefused(CircuitsError):
    """A baseline cannot be written because it could never decide, or is not clean. Remedy: as the text says."""


class GraphError(CircuitsError):
    """A graph file cannot be read, or not be written without a loss. Remedy: as the text says, place by place."""


class MissingExtra(CircuitsError):
    """What measures is not installed. Remedy: `pip install "pytest-circuits[hf]"`."""

"""Every exception that the project raises: one class for each remedy."""

from __future__ import annotations

from .plain import plain


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


class MissingExtra(CircuitsError):
    """What measures is not installed. Remedy: `pip install "pytest-circuits[hf]"`."""

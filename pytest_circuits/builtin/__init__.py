"""The built-in checkpoints: small language models with known circuits, and the code that made them."""

from __future__ import annotations

from pathlib import Path

_NAMES = ("tiny", "tiny-tuned", "tiny-rewired")


def builtin_names() -> tuple[str, ...]:
    """The names of the built-in checkpoints."""
    return _NAMES


def builtin_directory(name: str) -> Path:
    """The directory a built-in checkpoint lies in; ``KeyError`` for a name there is none of."""
    if name not in _NAMES:
        raise KeyError(name)
    return Path(__file__).parent / name

"""Behavioural regression tests of transformer circuits: does a checkpoint still solve the task by the same heads?

The public names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.handle import open_checkpoint as open_checkpoint
    from .checks.suite import judge_spec as judge
    from .checks.suite import measure as measure
    from .spec.loader import load_spec as load_spec

_PUBLIC = {
    "judge": (".checks.suite", "judge_spec"),
    "load_spec": (".spec.loader", "load_spec"),
    "measure": (".checks.suite", "measure"),
    "open_checkpoint": (".checkpoints.handle", "open_checkpoint"),
}
__all__ = ["judge", "load_spec", "measure", "open_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module, __name__), attribute)

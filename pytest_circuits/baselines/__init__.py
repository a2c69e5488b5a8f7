"""The stored reference of a spec: read, compare its identity, write atomically."""

from .changes import changes
from .reading import Baseline, Reference, StoredReading, keep, rounded
from .store import baseline_path, previous, read_baseline, write_baseline

__all__ = [
    "Baseline",
    "Reference",
    "StoredReading",
    "baseline_path",
    "changes",
    "keep",
    "previous",
    "read_baseline",
    "rounded",
    "write_baseline",
]

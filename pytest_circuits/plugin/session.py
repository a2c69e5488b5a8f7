"""One pytest run: what was collected, what each item came to, and the account of what did not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..checkpoints.naming import Checkpoint, parse_checkpoint, refuse_clashes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from ..checks.suite import Suite
    from ..checks.updating import Prepared
    from ..records import Result, Verdict
    from ..spec.loader import SpecFile
    from .options import Options
    from .run import Told

INSTALL = 'pip install "pytest-circuits[hf]"'
NEEDED = ("torch", "transformers", "safetensors", "huggingface_hub", "numpy", "scipy")


@dataclass
class Session:
    """The state of one run, in the config's stash."""

    options: Options
    suite: Suite | None = None
    lent: bool = False  # whether a hand-written test had a model since a spec was last measured
    specs: dict[str, SpecFile] = field(default_factory=dict)
    clash: str = ""  # why no item of this worker may run; without xdist that stops the run
    collected: list[str] = field(default_factory=list)
    items: dict[str, tuple[str, str]] = field(default_factory=dict)  # node id -> circuit and check, in this process
    told: dict[str, Told] = field(default_factory=dict)
    measured: dict[str, dict[str, Result]] = field(default_factory=dict)  # circuit -> check -> result, being updated
    prepared: dict[str, Prepared] = field(default_factory=dict)  # circuit -> what is written at the end of the run
    updated: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)  # files that the file system refused, in words
    stopped: set[str] = field(default_factory=set)  # items that failed or were skipped, in whichever phase
    broken: list[str] = field(default_factory=list)  # specs that did not load, orphans, items whose process died
    excused: list[str] = field(default_factory=list)  # items whose verdict is red and whose test is not, as by xfail

    def checkpoints_for(self, file: SpecFile | None, *, root: Path) -> tuple[Checkpoint, ...]:
        """Return what a spec is tested on: the options' checkpoints, else its own; the reference for an update."""
        if self.options.checkpoints:
            return self.options.checkpoints
        if self.options.update != "none" and self.options.reference is not None:
            return (self.options.reference,)
        return () if file is None else (parse_checkpoint(file.spec.model.checkpoint, folder=root),)

    def is_red(self, verdict: Verdict) -> bool:
        """Say whether a check's verdict fails its item."""
        return verdict != "pass" and not (verdict == "inconclusive" and self.options.inconclusive == "warn")

    @property
    def missing(self) -> list[str]:
        """Items that were collected and told nothing: killed, skipped, or never started."""
        return [node_id for node_id in self.collected if node_id not in self.told and node_id not in self.broken]

    def unfinished(self, circuit: str) -> list[str]:
        """Return the checks of a spec being updated that were not measured, or of which an item did not end well."""
        absent = set(self.specs[circuit].spec.declared) - set(self.measured[circuit])
        for node_id, (owner, check) in self.items.items():
            if owner == circuit and (node_id in self.stopped or node_id not in self.told):
                absent.add(check)
        return sorted(absent)


def by_checkpoint(items: list[pytest.Item], ours: Iterable[tuple[int, Checkpoint]]) -> None:
    """Sort our items by checkpoint, in place and stably; all others keep their places.

    Each checkpoint is then loaded once: older versions of pytest group parameters by their index and not by value.

    Raises:
        UsageProblem: two checkpoints share a name.
    """
    places = list(ours)
    refuse_clashes(checkpoint for _, checkpoint in dict.fromkeys((0, checkpoint) for _, checkpoint in places))
    order: dict[Checkpoint, int] = {}
    for _, checkpoint in places:
        order.setdefault(checkpoint, len(order))
    ranked = sorted(places, key=lambda place: order[place[1]])
    moved = [items[index] for index, _ in ranked]
    for (index, _), item in zip(places, moved, strict=True):
        items[index] = item


def missing_extra() -> list[str]:
    """Return the packages of the extra [hf] that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def checkpoint_of(item: pytest.Item) -> Checkpoint:
    """Return the checkpoint that an item of a spec is about."""
    checkpoint: Checkpoint = item.callspec.params["circuit_checkpoint"]  # type: ignore[attr-defined]
    return checkpoint

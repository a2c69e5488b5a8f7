"""A spec measured on its reference becomes its stored baseline, unless it could not serve as one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..baselines import Baseline, Reference, baseline_path, changes, keep, previous, write_baseline
from ..errors import BaselineRefused
from ..gate.readiness import refusals, warnings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..checkpoints.handle import CheckpointModel
    from ..records import Reading, Result
    from ..spec.loader import SpecFile

NEEDED = {
    "behaviour": ("corrupt",),
    "faithfulness": ("circuit", "floor"),
    "necessity": ("knockout", "floor"),
    "controls": ("circuit", "floor"),
    "heads": ("corrupt", "floor", "heads"),
    "roles": ("floor", "heads", "roles"),
    "attribution": ("attribution",),
    "successor": ("successor",),
    "edges": ("corrupt", "edges"),
}
"""The parts of a reading that each check compares with."""


@dataclass(frozen=True)
class Prepared:
    """A baseline that could serve, and has not been written yet."""

    path: Path
    baseline: Baseline
    warnings: tuple[str, ...]


def prepare(
    file: SpecFile,
    model: CheckpointModel,
    reading: Reading,
    red: Sequence[Result],
    *,
    reason: str,
    environment: Mapping[str, str],
) -> Prepared:
    """Return a spec's baseline from what was measured on its reference.

    Raises:
        BaselineRefused: a check is red, which it then is on every checkpoint as good as this, or its prompts could
            never decide.
    """
    against = [result.headline for result in red] or list(refusals(file, reading))
    if against:
        lines = [f"{file.circuit}: no baseline was written from {model.source!r}, because it could not serve:"]
        raise BaselineRefused("\n  ".join([*lines, *(f"- {line}" for line in against)]))
    parts = {part for check in file.spec.declared for part in NEEDED[check]}
    baseline = Baseline(
        circuit=file.circuit,
        identity=file.identity,
        reference=Reference(model.name, model.source, model.fingerprint, model.identified.revision),
        measured=keep(reading, circuit=file.circuit, parts=sorted(parts)),
        environment=environment,
        created=datetime.now(UTC).date().isoformat(),
        reason=reason,
    )
    return Prepared(baseline_path(file.path), baseline, warnings(file, reading))


def store(prepared: Prepared) -> tuple[str, ...]:
    """Write a baseline, and return what to tell.

    Raises:
        BaselineRefused: the file system refused.
    """
    baseline = prepared.baseline
    before = previous(prepared.path)
    said = write_baseline(prepared.path, baseline)
    told = [f"{baseline.circuit}: baseline {said} from {baseline.reference.source!r}"]
    if said == "written":
        told += [f"  {line}" for line in changes(before, baseline)]
    return (*told, *(f"  warning: {line}" for line in prepared.warnings))

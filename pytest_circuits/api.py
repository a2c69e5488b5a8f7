"""The Python API: a spec, a checkpoint, what is measured, and the verdict, without pytest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .spec.loader import SpecFile
from .spec.loader import load_spec as _load_spec

if TYPE_CHECKING:
    from .checkpoints.handle import CheckpointModel
    from .checks.measurements import Measurements
    from .records import Reading, Result


def load_spec(path: str | Path, *, root: str | Path | None = None) -> SpecFile:
    """Read a spec file.

    Args:
        path: the `*.circuit.yaml` file.
        root: the project's folder, from which ids and paths count; by default the current folder.

    Raises:
        SpecError: lists every problem of the file.
    """
    return _load_spec(Path(path).absolute(), root=Path(root or Path.cwd()).absolute())


def open_checkpoint(source: str, *, device: str = "auto", dtype: str = "float32") -> CheckpointModel:
    """Identify a checkpoint, `[NAME=]SOURCE` as on the command line; its weights are loaded on the first measurement.

    Raises:
        CheckpointRefused: it is unsafe, damaged, unknown or of an unsupported architecture.
        UsageProblem: the text names no checkpoint.
    """
    from .checkpoints.handle import open_checkpoint as opened
    from .checkpoints.naming import parse_checkpoint

    return opened(parse_checkpoint(source, folder=Path.cwd()), device=device, dtype=dtype)


def measure(spec: SpecFile, model: CheckpointModel, *, batch_size: int = 256) -> Measurements:
    """Return a spec's reading of a checkpoint: each part runs when it is first asked for, and once.

    Raises:
        MismatchError: the spec is for a model of another shape.
        PromptError: the prompts cannot be asked of this tokenizer.
        InstrumentError: a self-check of the measurement failed.
    """
    from .checks.measurements import Measurements
    from .checks.suite import refuse_mismatch

    refuse_mismatch(spec, model)
    return Measurements(spec, model.bound, batch_size=batch_size)


def judge(
    spec: SpecFile, observed: Reading, *, reference: Reading | None = None, name: str = "checkpoint"
) -> tuple[Result, ...]:
    """Judge every check that a spec declares, against a reference where one is given.

    Args:
        spec: the spec.
        observed: what `measure` gave for the checkpoint.
        reference: what it gave for the reference; without one a drift claim is an error.
        name: what the checkpoint is called in messages.
    """
    from .checks import Comparison
    from .checks import judge as judge_one

    comparison = Comparison(
        file=spec,
        checkpoint=name,
        observed=observed,
        reference=reference,
        reference_name="reference" if reference is not None else "none",
        identical=observed is reference,
        missing=None,
        random_circuits=lambda: observed.random_circuits,  # type: ignore[attr-defined]
    )
    return tuple(judge_one(check, comparison) for check in spec.spec.declared)

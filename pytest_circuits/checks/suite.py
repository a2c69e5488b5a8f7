"""Everything that one process measures: models, readings and baselines, and how a check is judged from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ..baselines import Baseline, baseline_path, read_baseline
from ..checkpoints.architectures import Shape
from ..checkpoints.handle import CheckpointModel, open_checkpoint
from ..errors import BaselineError, CircuitsError, MismatchError
from . import Comparison, judge
from .cached import Cached
from .updating import Prepared, prepare, store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..baselines.cache import Cache
    from ..checkpoints.naming import Checkpoint
    from ..records import Reading, Result, Watch
    from ..spec.loader import SpecFile
    from .measurements import Measurements


@dataclass
class Suite:
    """One process's measurements. A checkpoint is opened once, and a spec's part on it is measured once.

    At most two models are resident: the reference, and the checkpoint that was measured last. What the cache holds is
    not measured, and a checkpoint of which it holds all is not loaded.
    """

    root: Path
    reference: Checkpoint | None = None
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 256
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: Cache | None = None
    watch: Watch | None = None  # told whose part runs; readings outlive it, so it may be set and unset at any time
    _models: dict[Checkpoint, CheckpointModel | CircuitsError] = field(default_factory=dict)
    _readings: dict[tuple[str, CheckpointModel], Cached] = field(default_factory=dict)
    _live: dict[tuple[str, CheckpointModel], Measurements] = field(default_factory=dict)
    _baselines: dict[str, Baseline | BaselineError] = field(default_factory=dict)

    @property
    def device_name(self) -> str:
        """The kind of device that `auto` comes to here, with a GPU's own name.

        Raises:
            UsageProblem: the device is not there.
        """
        from ..checkpoints.devices import describe_device

        return describe_device(self.device)

    def model(self, checkpoint: Checkpoint) -> CheckpointModel:
        """Return the handle of a checkpoint; a refusal is remembered and raised again."""
        if checkpoint not in self._models:
            try:
                self._models[checkpoint] = open_checkpoint(checkpoint, device=self.device, dtype=self.dtype)
            except CircuitsError as refusal:
                self._models[checkpoint] = refusal
        found = self._models[checkpoint]
        if isinstance(found, CircuitsError):
            raise found
        return found

    def reading(self, file: SpecFile, model: CheckpointModel) -> Cached:
        """Return what a spec measures on a model, part by part when it is asked for: from the cache where it is there.

        Raises:
            MismatchError: the spec is written for a model of another shape.
        """
        refuse_mismatch(file, model)
        key = file.circuit, model
        if key not in self._readings:
            measure = partial(self._measurements, file, model)
            self._readings[key] = Cached(file, model, store=self.cache, measure=measure)
        return self._readings[key]

    def _measurements(self, file: SpecFile, model: CheckpointModel) -> Measurements:
        """Return the live measurements of a spec on a model, which are kept as long as the model is."""
        from .measurements import Measurements  # torch and transformers: only where something is measured

        key = file.circuit, model
        if key not in self._live:
            self._make_room(model)
            watch = partial(self._heard, model.name)
            self._live[key] = Measurements(file, model.bound, batch_size=self.batch_size, watch=watch)
        return self._live[key]

    def _heard(self, name: str, what: str, done: int, total: int) -> None:
        """Tell how far a part is, with the name of its checkpoint: an item measures the reference too."""
        if self.watch is not None:
            self.watch(f"{name}: {what}", done, total)

    def _make_room(self, model: CheckpointModel) -> None:
        """Free every model but the reference, unless it is the one that is asked for."""
        reference = self._models.get(self.reference) if self.reference else None
        if model is reference:
            return
        for other in {held for _, held in self._live} - {model, reference}:
            other.release()
            self._live = {key: value for key, value in self._live.items() if key[1] is not other}

    def let_go(self) -> None:
        """Free every model: what is measured from now on is measured on weights that are read again."""
        for held in self._models.values():
            if isinstance(held, CheckpointModel):
                held.release()
        self._live.clear()

    def judge(self, file: SpecFile, check: str, model: CheckpointModel) -> Result:
        """Measure what a check needs on a checkpoint, and judge it against the reference or the stored baseline."""
        observed = self.reading(file, model)
        if self.reference is not None:
            other = self.model(self.reference)
            same = other.fingerprint == model.fingerprint
            reading = self.reading(file, other)
            comparison = _compared(file, model, observed, reference=reading, name=other.source, identical=same)
        elif isinstance(baseline := self.baseline(file), BaselineError):
            comparison = _compared(file, model, observed, missing=str(baseline))
        else:
            stored = baseline.reference
            same = stored.fingerprint == model.fingerprint
            comparison = _compared(
                file, model, observed, reference=baseline.measured, name=stored.source, identical=same
            )
        return judge(check, comparison)

    def judge_reference(self, file: SpecFile, check: str, model: CheckpointModel) -> Result:
        """Judge a checkpoint that is to become the reference: against itself, so that absolute limits decide."""
        observed = self.reading(file, model)
        return judge(check, _compared(file, model, observed, reference=observed, name=model.source, identical=True))

    def prepare(self, file: SpecFile, model: CheckpointModel, red: Sequence[Result], *, reason: str) -> Prepared:
        """Return a spec's baseline from what was measured on its reference; `store` writes it.

        Args:
            file: the spec.
            model: the reference.
            red: the results that stand against it; any of them is a refusal.
            reason: why it is written, kept in the file.

        Raises:
            BaselineRefused: it could not serve as one.
        """
        reading = self.reading(file, model)
        return prepare(file, model, reading, red, reason=reason, environment=self.environment)

    def store(self, prepared: Prepared) -> tuple[str, ...]:
        """Write a baseline that was prepared, and return what to tell.

        Raises:
            BaselineRefused: the file system refused.
        """
        self._baselines.pop(prepared.baseline.circuit, None)
        return store(prepared)

    def has_baseline(self, file: SpecFile) -> bool:
        """Say whether a baseline lies beside the spec, whatever its state."""
        return baseline_path(file.path).exists()

    def fits(self, file: SpecFile, model: CheckpointModel) -> bool:
        """Say whether a spec is written for a model of this shape."""
        return shape_wanted(file) == model.shape

    def compared_with(self, file: SpecFile, fingerprint: str | None) -> tuple[str | None, bool]:
        """Return the source of what a spec is compared with, None for nothing, and whether it is the same."""
        if self.reference is not None:
            held = self._models.get(self.reference)
            if isinstance(held, CheckpointModel):
                return held.source, held.fingerprint == fingerprint
            return None, False
        baseline = self._baselines.get(file.circuit)
        if isinstance(baseline, Baseline):
            return baseline.reference.source, baseline.reference.fingerprint == fingerprint
        return None, False

    def notices(self, file: SpecFile) -> tuple[str, ...]:
        """Return what a reader of the run should know: prompts that are fewer than asked, another environment."""
        every: list[tuple[tuple[str, CheckpointModel], Cached | Measurements]]
        every = [*self._readings.items(), *self._live.items()]
        said = [notice for (circuit, _), one in every if circuit == file.circuit for notice in one.notices]
        told = [f"{file.circuit}: {notice}" for notice in dict.fromkeys(said)]
        told += [
            f"{model.name}: {model.source!r} is commit {model.identified.revision}"
            for model in self._models.values()
            if isinstance(model, CheckpointModel) and model.identified.revision
        ]
        told += [
            f"{model.name}: the architecture {model.shape.architecture!r} has no row, so its parts were probed; they "
            "hold every check"
            for model in self._models.values()
            if isinstance(model, CheckpointModel) and model.shape.probed
        ]
        baseline = self._baselines.get(file.circuit)
        if self.reference is None and isinstance(baseline, Baseline):
            differing = [
                f"{key} {baseline.environment.get(key, 'unknown')} -> {value}"
                for key, value in self.environment.items()
                if baseline.environment.get(key) != value
            ]
            if differing:
                told.append(f"{file.circuit}: the baseline comes from another environment: {', '.join(differing)}")
        return (*told, self.cache.problem) if self.cache and self.cache.problem else tuple(told)

    def cached(self, file: SpecFile) -> dict[str, bool]:
        """Return for each part that was read of a spec, by circuit, checkpoint and part, whether it was cached."""
        return {
            f"{circuit} {model.name} {part}": was
            for (circuit, model), reading in self._readings.items()
            if circuit == file.circuit
            for part, was in reading.cached.items()
        }

    def baseline(self, file: SpecFile) -> Baseline | BaselineError:
        """Return the stored baseline, or why there is none to compare with."""
        if file.circuit not in self._baselines:
            try:
                self._baselines[file.circuit] = read_baseline(
                    baseline_path(file.path), circuit=file.circuit, identity=file.identity
                )
            except BaselineError as missing:
                self._baselines[file.circuit] = missing
        return self._baselines[file.circuit]


def _compared(
    file: SpecFile,
    model: CheckpointModel,
    observed: Cached | Measurements,
    *,
    reference: Reading | None = None,
    name: str = "none",
    identical: bool = False,
    missing: str | None = None,
) -> Comparison:
    """Return a reading beside what it is compared with."""
    return Comparison(
        file=file,
        checkpoint=model.name,
        observed=observed,
        reference=reference,
        reference_name=name,
        identical=identical,
        missing=missing,
        random_circuits=lambda: observed.random_circuits,
    )


def shape_wanted(file: SpecFile) -> Shape:
    """Return the shape of model that a spec is written for."""
    return Shape(file.spec.model.architecture, file.spec.model.layers, file.spec.model.heads)


def refuse_mismatch(file: SpecFile, model: CheckpointModel) -> None:
    """Raise MismatchError when a spec is written for a model of another shape."""
    if model.shape != shape_wanted(file):
        raise MismatchError(
            f"{file.circuit} is for {shape_wanted(file)}; the checkpoint {model.name!r} is {model.shape}.\n"
            "  Its heads are not the ones that the spec names, so nothing was measured."
        )


def measure(spec: SpecFile, model: CheckpointModel, *, batch_size: int = 256) -> Measurements:
    """Return a spec's reading of a checkpoint: each part runs when it is first asked for, and once.

    Raises:
        MismatchError: the spec is for a model of another shape.
        PromptError: the prompts cannot be asked of this tokenizer.
        InstrumentError: a self-check of the measurement failed.
    """
    from .measurements import Measurements

    refuse_mismatch(spec, model)
    return Measurements(spec, model.bound, batch_size=batch_size)


def judge_spec(
    spec: SpecFile,
    model: CheckpointModel,
    observed: Measurements,
    *,
    reference: Reading | None = None,
    name: str = "reference",
) -> tuple[Result, ...]:
    """Judge every check that a spec declares, against a reference's reading where one is given.

    Without a reference only absolute limits can be judged: a drift claim is then an error that says so.
    """
    missing = None if reference is not None else "no reference was given, so nothing can be said about drift."
    comparison = _compared(spec, model, observed, reference=reference, name=name, missing=missing)
    return tuple(judge(check, comparison) for check in spec.spec.declared)

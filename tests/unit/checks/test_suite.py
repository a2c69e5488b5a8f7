"""One process's measurements: what is loaded, what is freed, and what the cache spares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from imagined import reading

from pytest_circuits.baselines.cache import Cache
from pytest_circuits.checkpoints.architectures import Shape
from pytest_circuits.checkpoints.handle import CheckpointModel
from pytest_circuits.checkpoints.identify import Identified
from pytest_circuits.checkpoints.naming import Checkpoint
from pytest_circuits.checks import measurements, suite
from pytest_circuits.checks.suite import Suite
from pytest_circuits.errors import CheckpointRefused, MeasurementError, MismatchError
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = """\
format: 1
model: {checkpoint: "builtin:imagined", architecture: gpt2, layers: 2, heads: 4}
prompts:
  vocabulary: {a: {x: [a, b, c, d, e, f, g, h], y: [A, B, C, D, E, F, G, H]}, v: {x: [is], y: [are]}}
  templates: [{id: t, text: "the {a}", answer: "{v}", flip: a}]
  per_template: 8
circuit: {mover: {heads: [L1H2]}}
claims: {behaviour: , faithfulness: }
"""


class Model:
    """A handle that is resident once it was bound, until it is released."""

    resident: list[str]

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        self.name, self.source, self.device, self.dtype = checkpoint.name, checkpoint.source, device, dtype
        self.fingerprint, self.shape = checkpoint.source.ljust(64, "0"), Shape("gpt2", 2, 4)

    @property
    def bound(self) -> Model:
        if self.source == "broken":
            raise CheckpointRefused("refused: broken")
        if self.name not in self.resident:
            self.resident.append(self.name)
        return self

    def release(self) -> None:
        self.resident.remove(self.name)


class Measured:
    """Live measurements, which count themselves and hold their model."""

    made: list[str]

    def __init__(self, file: SpecFile, model: Model, **options: Any) -> None:
        self.made.append(f"{file.circuit} {model.name}")
        self.model, self.whole, self.of_prompts = model, reading(), ("few prompts",)
        self.notices = (*self.of_prompts, "memory was out")

    def __getattr__(self, part: str) -> Any:
        assert self.model.name in self.model.resident, "measured on a model that was freed"
        if part == "knockout":
            raise MeasurementError("not finite")
        return getattr(self.whole, part)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Suite]:
    """Make a suite of a new process over imagined checkpoints: nothing is resident, nothing was measured."""
    monkeypatch.setattr(suite, "open_checkpoint", lambda c, device, dtype: Model(c, device, dtype))
    monkeypatch.setattr(measurements, "Measurements", Measured)

    def house(**options: Any) -> Suite:
        monkeypatch.setattr(Model, "resident", [], raising=False)
        monkeypatch.setattr(Measured, "made", [], raising=False)
        return Suite(root=tmp_path, device="cpu", **options)

    return house


@pytest.fixture
def file(tmp_path: Path) -> SpecFile:
    (tmp_path / "a.circuit.yaml").write_text(SPEC)
    return load_spec(tmp_path / "a.circuit.yaml", root=tmp_path)


def checkpoint(name: str) -> Checkpoint:
    return Checkpoint(name, name)


def read(made: Suite, file: SpecFile, name: str, part: str = "clean") -> Any:
    return getattr(made.reading(file, made.model(checkpoint(name))), part)


def test_at_most_the_reference_and_one_checkpoint_are_resident(
    house: Callable[..., Suite], file: SpecFile, tmp_path: Path
) -> None:
    made = house(reference=checkpoint("base"), cache=Cache(tmp_path / "cache"))
    for name in ("one", "base", "two", "base", "three"):
        read(made, file, name)
        assert len(set(Model.resident) - {"base"}) == 1
    assert Model.resident == ["base", "three"]


def test_a_freed_model_takes_its_live_measurements_along_and_its_numbers_stay(
    house: Callable[..., Suite], file: SpecFile
) -> None:
    made = house()
    first = read(made, file, "one")
    read(made, file, "two")
    assert Model.resident == ["two"]

    assert read(made, file, "one") is first
    assert Model.resident == ["two"]
    read(made, file, "one", "corrupt")  # what was not read before needs the model again
    assert Model.resident == ["one"]
    assert Measured.made == ["a one", "a two", "a one"]


def test_a_checkpoint_that_is_cached_whole_is_neither_loaded_nor_frees_another(
    house: Callable[..., Suite], file: SpecFile, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    read(house(cache=cache), file, "one")
    made = house(cache=cache)
    read(made, file, "two")
    read(made, file, "one")

    assert (Model.resident, Measured.made) == (["two"], ["a two"])


def test_a_checkpoint_of_another_shape_is_refused_before_the_cache_is_asked(
    house: Callable[..., Suite], file: SpecFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = house(cache=Cache(tmp_path / "cache"))
    monkeypatch.setattr(made.model(checkpoint("one")), "shape", Shape("gpt2", 2, 5))
    monkeypatch.setattr(Cache, "get", lambda self, key: pytest.fail("asked"))

    with pytest.raises(MismatchError):
        read(made, file, "one")


def test_what_cannot_be_loaded_or_measured_leaves_no_reading_and_no_entry(
    house: Callable[..., Suite], file: SpecFile, tmp_path: Path
) -> None:
    made = house(cache=Cache(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(CheckpointRefused):
            read(made, file, "broken")
        with pytest.raises(MeasurementError):
            read(made, file, "one", "knockout")

    assert made.notices(file) == ("a: few prompts", "a: memory was out")
    assert made.cached(file) == {"a one prompts": False}


def test_which_parts_were_cached_is_told_of_each_checkpoint(
    house: Callable[..., Suite], file: SpecFile, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    read(house(cache=cache), file, "one")
    made = house(cache=cache)
    read(made, file, "one")
    read(made, file, "one", "corrupt")
    read(made, file, "two")

    assert made.cached(file) == {
        "a one prompts": True,
        "a one clean": True,
        "a one corrupt": False,
        "a two prompts": False,
        "a two clean": False,
    }


def test_a_notice_of_the_prompts_is_told_from_the_cache_and_one_of_the_run_is_not(
    house: Callable[..., Suite], file: SpecFile, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    first = house(cache=cache)
    read(first, file, "one")
    assert first.notices(file) == ("a: few prompts", "a: memory was out")
    second = house(cache=cache)
    read(second, file, "one")

    assert second.notices(file) == ("a: few prompts",)


def test_parts_that_were_probed_are_told(house: Callable[..., Suite], file: SpecFile) -> None:
    made = house()
    for name, architecture in (("odd", "arcee"), ("known", "llama")):
        config = {"model_type": architecture, "num_hidden_layers": 2, "num_attention_heads": 4}
        identified = Identified(name, name, Path(), None, "0" * 64, config, (), {})
        made._models[checkpoint(name)] = CheckpointModel(identified)

    assert made.notices(file) == (
        "odd: the architecture 'arcee' has no row, so its parts were probed; they hold every check",
    )


def test_a_cache_that_cannot_be_written_is_told(house: Callable[..., Suite], file: SpecFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = house(cache=Cache(tmp_path / "file"))
    read(made, file, "one")

    assert made.notices(file)[-1].startswith(f"the cache {str(tmp_path / 'file')!r} cannot be written: File exists; ")

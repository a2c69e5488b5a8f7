"""Where baselines lie, what is refused on reading, and what survives a write that fails."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_circuits.baselines import baseline_path, previous, read_baseline, write_baseline
from pytest_circuits.baselines.encoding import body
from pytest_circuits.errors import BaselineError, BaselineRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_circuits.baselines import Baseline

CIRCUIT = "specs/tiny/verb-agreement"
SHOWN = "specs/tiny/__circuits__/verb-agreement.json"
AGAIN = f'pytest "{CIRCUIT}.circuit.yaml" --circuits-update=all --circuits-update-reason "..."'


def refusal_of(path: Path, identity: str = "1d" * 32) -> str:
    with pytest.raises(BaselineError) as refusal:
        read_baseline(path, circuit=CIRCUIT, identity=identity)
    return str(refusal.value)


def test_a_baseline_lies_in_a_folder_beside_its_spec() -> None:
    found = baseline_path(Path("specs/tiny/verb-agreement.circuit.yaml"))

    assert found == Path("specs/tiny/__circuits__/verb-agreement.json")


def test_a_dot_in_a_spec_s_name_stays() -> None:
    assert baseline_path(Path("v1.5.circuit.yaml")).name == "v1.5.json"


def test_what_was_written_is_read(path: Path, baseline: Baseline) -> None:
    assert write_baseline(path, baseline) == "written"

    assert body(read_baseline(path, circuit=CIRCUIT, identity=baseline.identity)) == body(baseline)


def test_a_spec_may_move_together_with_its_baseline(path: Path, baseline: Baseline) -> None:
    write_baseline(path, replace(baseline, circuit="old/place/verb-agreement"))

    found = read_baseline(path, circuit=CIRCUIT, identity=baseline.identity)

    assert (found.circuit, found.measured.circuit_id) == (CIRCUIT, CIRCUIT)


def test_a_missing_baseline_names_the_command_that_creates_it(path: Path) -> None:
    assert refusal_of(path) == (
        f"{SHOWN}: a stored baseline was expected here, and there is none.\n"
        "  Drift is judged against it, so nothing can be said about drift without it.\n"
        '  Create it: pytest "specs/tiny/verb-agreement.circuit.yaml" --circuits-update=new'
    )


def test_another_identity_is_stale_and_says_that_it_is_no_drift(path: Path, baseline: Baseline) -> None:
    write_baseline(path, baseline)

    assert refusal_of(path, identity="2e" * 32) == (
        f"{SHOWN}: the stored baseline is stale: it was measured for the identity '1d1d1d1d1d1d', and the spec now has "
        "'2e2e2e2e2e2e'.\n"
        "  The spec's prompts, tokens, measure, ablation or circuit changed since, so its numbers answer another "
        "question; this is not drift.\n"
        f"  Measure it again: {AGAIN}"
    )


def test_a_damaged_baseline_is_never_repaired(path: Path, baseline: Baseline) -> None:
    write_baseline(path, baseline)
    damaged = path.read_text().replace("4.12346", "4.12345")
    path.write_text(damaged)

    message = refusal_of(path)

    assert message == (
        f"{SHOWN}: the stored baseline is damaged: its content does not match its sha256, so it was edited or merged "
        "by hand.\n"
        "  It is never repaired: one wrong number in it would pass or fail every checkpoint.\n"
        f"  Restore it from git. Measure it again: {AGAIN}"
    )
    assert path.read_text() == damaged


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"null", b"[" * 200_000])
def test_whatever_is_no_baseline_is_damaged(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    assert f"{SHOWN}: the stored baseline is damaged: " in refusal_of(path)


def test_a_baseline_that_cannot_be_opened_says_why(path: Path) -> None:
    path.mkdir(parents=True)

    assert refusal_of(path) == (
        f"{SHOWN}: the stored baseline cannot be read: Is a directory.\n  Measure it again: {AGAIN}"
    )


def test_damage_is_told_before_staleness(path: Path, baseline: Baseline) -> None:
    write_baseline(path, baseline)
    path.write_text(path.read_text().replace("1d1d", "2e2e"))

    assert "is damaged" in refusal_of(path, identity="3f" * 32)


def test_writing_the_same_again_leaves_the_file_as_it_is(path: Path, baseline: Baseline) -> None:
    write_baseline(path, baseline)
    before = path.read_bytes()
    again = replace(baseline, created="2032-01-01", environment={"torch": "2.11.0"}, reason="again")

    assert write_baseline(path, again) == "unchanged"
    assert path.read_bytes() == before


def test_the_same_content_has_the_same_bytes(path: Path, baseline: Baseline) -> None:
    write_baseline(path, baseline)
    before = path.read_bytes()
    path.unlink()
    write_baseline(path, baseline)

    assert path.read_bytes() == before


CHANGED: dict[str, Callable[[Baseline], Baseline]] = {
    "identity": lambda old: replace(old, identity="2e" * 32),
    "circuit": lambda old: replace(old, circuit="specs/other"),
    "fingerprint": lambda old: replace(old, reference=replace(old.reference, fingerprint="00")),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_another_content_is_written(path: Path, baseline: Baseline, change: Callable[[Baseline], Baseline]) -> None:
    write_baseline(path, baseline)
    other = change(baseline)

    assert write_baseline(path, other) == "written"
    assert body(previous(path)) == body(other)  # type: ignore[arg-type]


def test_other_numbers_are_written(path: Path, baseline: Baseline, moved: Baseline) -> None:
    write_baseline(path, baseline)
    same_reference = replace(moved, reference=baseline.reference)

    assert write_baseline(path, same_reference) == "written"
    assert body(previous(path)) == body(same_reference)  # type: ignore[arg-type]


def test_an_update_overwrites_a_damaged_file(path: Path, baseline: Baseline) -> None:
    path.parent.mkdir()
    path.write_text("{")

    assert write_baseline(path, baseline) == "written"
    assert body(previous(path)) == body(baseline)  # type: ignore[arg-type]


def test_previous_is_none_where_nothing_can_be_read(path: Path) -> None:
    assert previous(path) is None
    path.parent.mkdir()
    path.write_text("{")
    assert previous(path) is None


def test_a_written_baseline_has_the_permissions_of_any_new_file(path: Path, baseline: Baseline) -> None:
    write_baseline(path, baseline)
    plain = path.with_name("plain")
    plain.touch()

    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def broken_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)


def broken_write(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def half(self: Path, mode: str = "r", **options: Any) -> Any:
        file = real(self, mode, **options)
        if mode == "x":
            write = file.write

            def fill(text: str) -> int:
                write(text[: len(text) // 2])
                raise OSError(28, "No space left on device")

            file.write = fill
        return file

    monkeypatch.setattr(Path, "open", half)


def broken_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)


def broken_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)


FAULTS = {
    "open": (broken_open, "Read-only file system"),
    "write": (broken_write, "No space left on device"),
    "sync": (broken_sync, "Input/output error"),
    "replace": (broken_replace, "Permission denied"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("old_file", [True, False], ids=["over an old file", "as a new file"])
def test_a_fault_at_any_step_leaves_the_old_file_and_no_temporary(
    path: Path,
    baseline: Baseline,
    moved: Baseline,
    fault: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    old_file: bool,
) -> None:
    if old_file:
        write_baseline(path, baseline)
    before = {file.name: file.read_bytes() for file in path.parent.glob("*")}

    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        with pytest.raises(BaselineRefused) as refusal:
            write_baseline(path, moved)

    assert {file.name: file.read_bytes() for file in path.parent.glob("*")} == before
    assert str(refusal.value) == (
        f"the baseline {path.as_posix()!r} could not be written: {reason}.\n"
        "  What stood there before is unchanged. Free space or permit writing, and run the update again."
    )


def test_an_interrupted_write_leaves_the_old_file_and_no_temporary(
    path: Path, baseline: Baseline, moved: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_baseline(path, baseline)
    before = path.read_bytes()

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_baseline(path, moved)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_synced_still_holds_the_whole_new_file(
    path: Path, baseline: Baseline, moved: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_baseline(path, baseline)
    real = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)

    assert write_baseline(path, moved) == "written"
    assert body(previous(path)) == body(moved)  # type: ignore[arg-type]


def test_the_file_is_synced_before_it_replaces_and_the_folder_after(
    path: Path, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        steps.append("sync folder" if stat.S_ISDIR(state.st_mode) else f"sync {state.st_size} bytes")
        real_sync(descriptor)

    def move(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        steps.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    write_baseline(path, baseline)

    assert steps == [f"sync {path.stat().st_size} bytes", "replace", "sync folder"]

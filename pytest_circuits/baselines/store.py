"""Where baselines lie, and how one is read whole or not at all, and written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..errors import BaselineError, BaselineRefused
from .encoding import body, decode, encode
from .reading import Baseline, StoredReading, update_command

__all__ = ["Baseline", "baseline_path", "previous", "read_baseline", "write_baseline"]

FOLDER = "__circuits__"
SPEC_SUFFIX = ".circuit.yaml"
INCIDENTAL = ("created", "environment", "reason")  # what may differ while the measured content is the same


def baseline_path(spec_path: Path) -> Path:
    """Return where a spec's baseline lies: in `__circuits__` beside it, under its name."""
    return spec_path.parent / FOLDER / f"{spec_path.name.removesuffix(SPEC_SUFFIX)}.json"


def read_baseline(path: Path, *, circuit: str, identity: str) -> Baseline:
    """Return the stored baseline of a circuit.

    The circuit's id is for the messages: a spec may move together with its baseline, and only the identity says
    whether the numbers are still an answer to what the spec asks.

    Raises:
        BaselineError: it is missing, damaged or stale; the text names the command.
    """
    shown = baseline_path(Path(circuit + SPEC_SUFFIX)).as_posix()
    again = f"Measure it again: {update_command(circuit)}"
    try:
        found = decode(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaselineError(
            f"{shown}: a stored baseline was expected here, and there is none.\n"
            "  Drift is judged against it, so nothing can be said about drift without it.\n"
            f'  Create it: pytest "{circuit}{SPEC_SUFFIX}" --circuits-update=new'
        ) from None
    except OSError as error:
        raise BaselineError(f"{shown}: the stored baseline cannot be read: {error.strerror}.\n  {again}") from error
    except ValueError as error:
        raise BaselineError(
            f"{shown}: the stored baseline is damaged: {error}.\n"
            "  It is never repaired: one wrong number in it would pass or fail every checkpoint.\n"
            f"  Restore it from git. {again}"
        ) from error
    if found.identity != identity:
        raise BaselineError(
            f"{shown}: the stored baseline is stale: it was measured for the identity {found.identity[:12]!r}, and the "
            f"spec now has {identity[:12]!r}.\n"
            "  The spec's prompts, tokens, measure, ablation or circuit changed since, so its numbers answer another "
            "question; this is not drift.\n"
            f"  {again}"
        )
    return replace(found, circuit=circuit, measured=StoredReading(found.measured.parts, circuit))


def previous(path: Path) -> Baseline | None:
    """Return what the file holds, whatever its identity; None where it is missing or damaged."""
    try:
        return decode(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_baseline(path: Path, baseline: Baseline) -> Literal["written", "unchanged"]:
    """Write a baseline, unless the file already holds the same but for its date, environment and reason.

    At every moment the file is the whole old one or the whole new one.

    Raises:
        BaselineRefused: the file system refused; the old file is as it was.
    """
    old = previous(path)
    if old is not None and _content(old) == _content(baseline):
        return "unchanged"
    text = encode(baseline)
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise BaselineRefused(
            f"the baseline {path.as_posix()!r} could not be written: {error.strerror or error}.\n"
            "  What stood there before is unchanged. Free space or permit writing, and run the update again."
        ) from error
    return "written"


def _content(baseline: Baseline) -> dict[str, Any]:
    return {key: value for key, value in body(baseline).items() if key not in INCIDENTAL}


def write_whole(path: Path, text: str) -> None:
    """Put a text into a file of a folder that is there: at every moment it is the whole old one or the whole new one.

    Raises:
        OSError: the file system refused; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    # The new file is in place and whole; where a folder cannot be synced (Windows, some network file systems), a power
    # cut can at worst bring the old file back.
    with suppress(OSError):
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

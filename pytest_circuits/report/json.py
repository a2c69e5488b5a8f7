"""Results as plain builtins: the result file, and a result on its way from an xdist worker."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ..errors import MeasurementError, UsageProblem
from ..records import HeadEffect, Record, Result, Verdict, worst

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1


def builtins(value: Any, where: str = "result") -> Any:
    """Return a value as exact builtins: what execnet and JSON carry.

    NumPy's scalars become Python's, tuples lists, and a StrEnum its text. `where` names the value in messages.

    Raises:
        MeasurementError: a number is NaN or infinite; what is undefined is None.
        TypeError: the value is of another kind, such as an array.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {builtins(key, f"a key of {where}"): builtins(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [builtins(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _finite(float(value), where)
    if getattr(value, "ndim", None) == 0:  # numpy.bool and arrays of no dimension
        return builtins(value.item(), where)
    raise TypeError(f"{where} is a {type(value).__name__}, and only plain values can be reported")


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise MeasurementError(
            f"{where} must be a finite number or None where it is undefined, and is {value}.\n"
            "  A verdict that rests on it could mean anything. Look at the checkpoint, and report this."
        )
    return value


def result_as_dict(result: Result) -> dict[str, Any]:
    """Return a result as exact builtins, so that it travels as an attribute of a pytest report.

    Raises:
        MeasurementError: a number in it is NaN or infinite.
    """
    plain = dict(result.__dict__)
    plain["records"] = [record.as_json() for record in result.records]
    plain["heads"] = {head: effect.__dict__ for head, effect in result.heads.items()}
    return dict(builtins(plain))


def result_from_dict(plain: Mapping[str, Any]) -> Result:
    """Return the result that `result_as_dict` made plain."""
    parts = dict(plain)
    parts["verdict"] = Verdict(plain["verdict"])
    parts["records"] = tuple(_record(record) for record in plain["records"])
    parts["details"], parts["warnings"] = tuple(plain["details"]), tuple(plain["warnings"])
    parts["heads"] = {head: HeadEffect(**effect) for head, effect in plain["heads"].items()}
    return Result(**parts)


def _record(plain: Mapping[str, Any]) -> Record:
    interval = None if plain["interval"] is None else tuple(plain["interval"])
    return Record(**{**plain, "verdict": Verdict(plain["verdict"]), "interval": interval})


def result_document(
    *,
    complete: bool,
    collected: Sequence[str],
    results: Sequence[Result],
    specs: Mapping[str, str],
    checkpoints: Mapping[str, Mapping[str, str | None]],
    environment: Mapping[str, str],
    unverified: Mapping[str, str],
) -> dict[str, Any]:
    """Return the result file's content, format 1, as plain builtins.

    Args:
        complete: every collected check has its result; otherwise the verdict is an error whatever the results say.
        collected: the node ids of every check that was to run.
        results: what ran.
        specs: circuit -> sha256 of its spec file.
        checkpoints: name -> source and fingerprint; the fingerprint of one that could not be opened is None.
        environment: versions, device and dtype as text.
        unverified: circuit -> why it was not verified, where its spec says so.

    Raises:
        MeasurementError: a number is NaN or infinite.
    """
    heads: dict[str, dict[str, dict[str, Any]]] = {}
    for result in results:
        if result.heads:
            effects = {head: effect.__dict__ for head, effect in result.heads.items()}
            heads.setdefault(result.circuit, {}).setdefault(result.checkpoint, {}).update(effects)
    verdict = worst([result.verdict for result in results]) if complete else Verdict.ERROR
    document = {
        "format": FORMAT,
        "complete": complete,
        "collected": collected,
        "verdict": verdict,
        "environment": environment,
        "specs": specs,
        "unverified": unverified,
        "checkpoints": checkpoints,
        "records": [record.as_json() for result in results for record in result.records],
        "heads": heads,
    }
    return dict(builtins(document, "the result file"))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write the result file into a folder that is there.

    Raises:
        UsageProblem: the file system refused.
    """
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageProblem(
            f"the result file {path.as_posix()!r} cannot be written: {error.strerror or error}.\n"
            "  Without it a run leaves no numbers behind. Name another file with --circuits-json."
        ) from error

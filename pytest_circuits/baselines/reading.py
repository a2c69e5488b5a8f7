"""What a baseline holds: who was measured, when and why, and the per-prompt numbers as a `Reading`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import BaselineError, MeasurementError

if TYPE_CHECKING:
    from ..records import PerPrompt, Reading

T = TypeVar("T")

ALWAYS = ("templates", "clean", "clean_logit_diff", "noise")
ON_DEMAND = ("corrupt", "circuit", "knockout", "floor", "heads", "attention", "successor")


def update_command(circuit: str) -> str:
    """Return the command that measures a spec's baseline again."""
    return f'pytest "{circuit}.circuit.yaml" --circuits-update=all --circuits-update-reason "..."'


def rounded(value: float) -> float:
    """Return `value` at 6 significant digits, as a baseline stores it; minus zero becomes zero.

    Raises:
        MeasurementError: the value is NaN or infinite.
    """
    if not math.isfinite(value):
        raise MeasurementError(
            f"a measured value must be a finite number to be stored, and one is {float(value)}.\n"
            "  A baseline with an undefined number in it could decide nothing. Look at the checkpoint."
        )
    return float(f"{value:.6g}") + 0.0


class _Part(Generic[T]):
    """One part of a stored reading, made from its JSON form when first asked for."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, reading: StoredReading, owner: type | None = None) -> T:
        stored = reading.parts[self.name]
        if stored is None:
            raise BaselineError(
                f"the stored baseline of {reading.circuit_id} was expected to hold {self.name!r}, and it does not: "
                "no declared check needed it when it was written.\n"
                f"  Without it this check has nothing to compare with. Measure it: {update_command(reading.circuit_id)}"
            )
        made = reading.__dict__[self.name] = self.make(stored)
        return made


def _array(numbers: list[float]) -> PerPrompt:
    import numpy as np

    array = np.array(numbers, dtype=np.float64)
    array.setflags(write=False)
    return array


def _arrays(heads: dict[str, list[float]]) -> Mapping[str, PerPrompt]:
    return {head: _array(numbers) for head, numbers in heads.items()}


def _counts(heads: dict[str, dict[str, list[int]]]) -> Mapping[str, Mapping[str, tuple[int, int]]]:
    return {head: {task: (hits, tokens) for task, (hits, tokens) in tasks.items()} for head, tasks in heads.items()}


def _names(templates: list[str]) -> tuple[str, ...]:
    return tuple(templates)


class StoredReading:
    """A `Reading` over the JSON form of its parts; one that no declared check needed is absent.

    Args:
        parts: each part's name -> lists, mappings and builtin numbers at 6 significant digits, or None when absent.
        circuit: the circuit's id, for the message about an absent part.

    Asking for an absent part raises BaselineError with the command that measures it.
    """

    def __init__(self, parts: Mapping[str, Any], circuit: str) -> None:
        self.parts = parts
        self.circuit_id = circuit  # `circuit` is the part k

    templates = _Part(_names)
    clean = _Part(_array)
    corrupt = _Part(_array)
    clean_logit_diff = _Part(_array)
    circuit = _Part(_array)
    knockout = _Part(_array)
    floor = _Part(_array)
    heads = _Part(_arrays)
    attention = _Part(_arrays)
    successor = _Part(_counts)
    noise = _Part(float)


@dataclass(frozen=True)
class Reference:
    """The checkpoint that a baseline was measured on."""

    name: str
    source: str
    fingerprint: str
    revision: str | None


@dataclass(frozen=True)
class Baseline:
    """A spec's stored reference. `identity` is the spec's; `created` an ISO date in UTC."""

    circuit: str
    identity: str
    reference: Reference
    measured: StoredReading
    environment: Mapping[str, str]
    created: str
    reason: str


def keep(reading: Reading, *, circuit: str, parts: Collection[str] = ON_DEMAND) -> StoredReading:
    """Return what of a reading is stored, at 6 significant digits, so that memory and file hold the same numbers.

    Args:
        reading: what was measured; only the parts named, and those that every check reads, are asked for.
        circuit: the circuit's id.
        parts: those of `ON_DEMAND` that the spec's declared checks need.

    Raises:
        MeasurementError: a value is NaN or infinite.
    """
    kept = dict.fromkeys((*ALWAYS, *ON_DEMAND))
    kept |= {name: _plain(getattr(reading, name)) for name in (*ALWAYS, *parts)}
    return StoredReading(kept, circuit)


def _plain(part: Any) -> Any:
    """Return a part in its JSON form: counts and names as they are, every other number rounded."""
    if isinstance(part, str):
        return str(part)
    if isinstance(part, Mapping):
        return {str(key): _counted(item) if isinstance(item, Mapping) else _plain(item) for key, item in part.items()}
    if hasattr(part, "__iter__"):
        return [_plain(item) for item in part]
    return rounded(part)


def _counted(tasks: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    return {str(task): [int(hits), int(tokens)] for task, (hits, tokens) in tasks.items()}

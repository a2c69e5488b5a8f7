"""What a baseline holds: who was measured, when and why, and the per-prompt numbers as a `Reading`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import BaselineError, MeasurementError

if TYPE_CHECKING:
    from ..records import OfRole, PerPrompt, Reading

T = TypeVar("T")

ALWAYS = ("templates", "clean", "clean_logit_diff", "noise")
LATER = ("attribution", "successor", "edges")
"""Parts that a baseline lacks rather than has as None: one that was written before there were any stays valid."""
ON_DEMAND = ("corrupt", "circuit", "knockout", "floor", "heads", "roles", *LATER)


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


class Part(Generic[T]):
    """One part of a reading that comes in parts, made from its JSON form when first asked for, and kept."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, reading: Parts, owner: type | None = None) -> T:
        made = reading.__dict__[self.name] = self.make(reading.part(self.name))
        return made


def array(numbers: list[float]) -> PerPrompt:
    """Return numbers as an array that nobody can change."""
    import numpy as np

    made = np.array(numbers, dtype=np.float64)
    made.setflags(write=False)
    return made


def arrays(heads: dict[str, list[float]]) -> Mapping[str, PerPrompt]:
    return {head: array(numbers) for head, numbers in heads.items()}


def of_role(heads: dict[str, dict[str, list[float]]]) -> OfRole:
    return {head: arrays(samples) for head, samples in heads.items()}


def of_roles(roles: dict[str, Any]) -> Mapping[str, OfRole]:
    return {key: of_role(heads) for key, heads in roles.items()}


def names(templates: list[str]) -> tuple[str, ...]:
    return tuple(templates)


class Parts(ABC):
    """A reading whose parts come in their JSON form; templates, heads and roles come as each kind of it has them."""

    clean = Part(array)
    corrupt = Part(array)
    clean_logit_diff = Part(array)
    circuit = Part(array)
    knockout = Part(array)
    floor = Part(array)
    noise = Part(float)
    attribution = Part(arrays)
    successor = Part(of_role)
    edges = Part(arrays)

    @abstractmethod
    def part(self, name: str) -> Any:
        """Return a part's JSON form."""


class StoredReading(Parts):
    """A `Reading` over the JSON form of its parts; one that no declared check needed is absent.

    Args:
        parts: each part's name -> lists, mappings and builtin numbers at 6 significant digits. An absent one is None,
            or of `LATER` left out.
        circuit: the circuit's id, for the message about an absent part.

    Asking for an absent part raises BaselineError with the command that measures it.
    """

    def __init__(self, parts: Mapping[str, Any], circuit: str) -> None:
        self.parts = parts
        self.circuit_id = circuit  # `circuit` is the part k

    templates = Part(names)
    heads = Part(arrays)
    roles = Part(of_roles)

    def part(self, name: str) -> Any:
        """Return a part's JSON form; BaselineError where it is absent."""
        stored = self.parts.get(name)
        if stored is None:
            raise BaselineError(
                f"the stored baseline of {self.circuit_id} was expected to hold {name!r}, and it does not: "
                "no declared check needed it when it was written.\n"
                f"  Without it this check has nothing to compare with. Measure it: {update_command(self.circuit_id)}"
            )
        return stored


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
    kept = dict.fromkeys(name for name in (*ALWAYS, *ON_DEMAND) if name not in LATER)
    kept |= {name: plain_part(getattr(reading, name), rounded) for name in (*ALWAYS, *parts)}
    return StoredReading(kept, circuit)


def plain_part(part: Any, number: Callable[[float], float]) -> Any:
    """Return a part in its JSON form: names and whole numbers as they are, other numbers as `number` gives them."""
    if isinstance(part, str):
        return str(part)
    if isinstance(part, Mapping):
        return {str(key): plain_part(item, number) for key, item in part.items()}
    if hasattr(part, "__iter__"):
        return [plain_part(item, number) for item in part]
    return int(part) if isinstance(part, Integral) and not isinstance(part, bool) else number(part)

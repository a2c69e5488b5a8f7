"""The checks of a spec, one module each: the claims that it makes, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gate.controls import RandomCircuits
    from ..records import Reading, Result
    from ..spec.loader import SpecFile


@dataclass(frozen=True)
class Comparison:
    """A checkpoint's reading beside that of the reference, and the spec by which they are judged.

    `identical` says that both have the same fingerprint: the verdicts come from the same formulas, and the headline
    says it. `missing` is why there is no reference. A part of a reading is measured when a check first asks for it.
    """

    file: SpecFile
    checkpoint: str
    observed: Reading
    reference: Reading | None
    reference_name: str
    identical: bool
    missing: str | None
    random_circuits: Callable[[], RandomCircuits] | None


def judge(check: str, comparison: Comparison) -> Result:
    """Return what a declared check of the spec comes to on the checkpoint.

    Raises:
        UsageProblem: the spec does not declare the check.
        MeasurementError, BaselineError: a part of a reading that the check needs is undefined or missing.
    """
    declared = comparison.file.spec.declared
    if check not in declared:
        raise UsageProblem(
            f"{comparison.file.circuit} declares {', '.join(declared)}, not {check!r}.\n"
            "  A check without limits has no verdict. Add it to the spec's claims, or ask for one of these."
        )
    result: Result = import_module(f".{check}", __name__).judge(comparison)
    return result

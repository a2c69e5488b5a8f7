"""What a stored reading holds in memory."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_circuits.baselines import keep, rounded
from pytest_circuits.errors import BaselineError, MeasurementError

if TYPE_CHECKING:
    from pytest_circuits.records import Measured


@pytest.mark.parametrize("value", [3.14159265, -123456.789, 1.0e-7, 9.9999995, 2.0, 1e300, -0.1])
def test_a_number_is_stored_at_six_significant_digits(value: float) -> None:
    digits = Decimal(value).normalize()
    expected = float(round(digits, 5 - digits.adjusted()))

    assert rounded(value) == expected


def test_minus_zero_is_stored_as_zero_so_that_equal_content_has_equal_bytes() -> None:
    assert str(rounded(-0.0)) == "0.0"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_undefined_number_is_refused(value: float) -> None:
    with pytest.raises(MeasurementError) as refusal:
        rounded(value)

    assert str(refusal.value) == (
        f"a measured value must be a finite number to be stored, and one is {value}.\n"
        "  A baseline with an undefined number in it could decide nothing. Look at the checkpoint."
    )


def test_nan_in_a_part_is_refused_when_it_is_kept(measured: Measured) -> None:
    broken = replace(measured, floor=np.array([0.0, 1.0, np.nan, 0.0, 0.0, 0.0]))

    with pytest.raises(MeasurementError):
        keep(broken, circuit="a")


def test_a_kept_reading_is_the_measured_one_rounded(measured: Measured) -> None:
    kept = keep(measured, circuit="a")

    assert kept.templates == measured.templates
    assert kept.noise == 1.23457e-6
    for name in ("clean", "corrupt", "clean_logit_diff", "circuit", "knockout", "floor"):
        expected = [float(f"{value:.6g}") for value in getattr(measured, name)]
        assert getattr(kept, name).tolist() == expected
        assert getattr(kept, name).dtype == np.float64
    expected = {head: [float(f"{value:.6g}") for value in array] for head, array in measured.heads.items()}
    assert {head: array.tolist() for head, array in kept.heads.items()} == expected
    expected = {head: [float(f"{value:.6g}") for value in array] for head, array in measured.attribution.items()}
    assert {head: array.tolist() for head, array in kept.attribution.items()} == expected
    assert {name: array.tolist() for name, array in kept.successor["L2H0"].items()} == {
        "probe": [1, 0, 1, 1],
        "greater than": [0.123457, -1.0],
    }
    assert list(kept.roles) == list(measured.roles)
    for key, heads in measured.roles.items():
        for head, named in heads.items():
            expected = {name: [float(f"{value:.6g}") for value in array] for name, array in named.items()}
            assert {name: array.tolist() for name, array in kept.roles[key][head].items()} == expected


def test_what_is_whole_is_stored_as_a_whole_number(measured: Measured) -> None:
    kept = keep(measured, circuit="a").parts["roles"]["successor"]["L2H0"]

    assert kept == {"numbers": [1, 0, 1], "weekdays": [0.123457]}
    assert {type(number) for number in kept["numbers"]} == {int}


def test_keeping_a_kept_reading_changes_nothing(measured: Measured) -> None:
    once = keep(measured, circuit="a")

    assert keep(once, circuit="a").parts == once.parts


def test_only_the_parts_that_are_needed_are_measured() -> None:
    class Lazy:
        templates = ("near",)
        clean = np.array([1.0])
        clean_logit_diff = np.array([1.0])
        noise = 0.0
        floor = np.array([0.5])  # every other part would raise AttributeError

    kept = keep(Lazy(), circuit="a", parts=["floor"])

    assert kept.parts["floor"] == [0.5]
    assert kept.parts["heads"] is None


def test_a_part_that_is_absent_says_how_to_measure_it(measured: Measured) -> None:
    kept = keep(measured, circuit="specs/tiny/verb-agreement", parts=["floor"])

    with pytest.raises(BaselineError) as refusal:
        _ = kept.heads

    assert str(refusal.value) == (
        "the stored baseline of specs/tiny/verb-agreement was expected to hold 'heads', and it does not: "
        "no declared check needed it when it was written.\n"
        "  Without it this check has nothing to compare with. Measure it: "
        'pytest "specs/tiny/verb-agreement.circuit.yaml" --circuits-update=all --circuits-update-reason "..."'
    )


def test_a_stored_array_cannot_be_changed(measured: Measured) -> None:
    with pytest.raises(ValueError, match="read-only"):
        keep(measured, circuit="a").clean[0] = 1.0

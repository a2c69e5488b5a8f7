"""The result file, and a result on its way from a worker."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import execnet
import numpy as np
import pytest

from pytest_circuits.errors import MeasurementError, UsageProblem
from pytest_circuits.records import HeadEffect, Verdict
from pytest_circuits.report import result_as_dict, result_document, result_from_dict, write_json
from pytest_circuits.report.json import builtins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_circuits.records import Result

    MakeResult = Callable[..., Result]


def document(results: list[Result], *, complete: bool = True) -> dict[str, Any]:
    return result_document(
        complete=complete,
        collected=("a.circuit.yaml::heads[tuned]",),
        results=results,
        specs={"specs/tiny/verb-agreement": "ab"},
        checkpoints={"tuned": {"source": "./out", "fingerprint": None}},
        environment={"torch": "2.10.0"},
        unverified={"specs/tiny/verb-agreement": "no weights"},
    )


def kinds(value: Any) -> set[type]:
    """Every exact type in a nested value."""
    found = {type(value)}
    for item in [*value.keys(), *value.values()] if isinstance(value, dict) else value if type(value) is list else []:
        found |= kinds(item)
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(0.25), 0.25),
        (Verdict.DRIFT, "drift"),
        ((1, 2), [1, 2]),
        ({"a": (np.int8(1),)}, {"a": [1]}),
        (None, None),
        (True, True),
        ("a", "a"),
        (-0.5, -0.5),
    ],
    ids=repr,
)
def test_everything_becomes_an_exact_builtin(value: Any, expected: Any) -> None:
    made = builtins(value)

    assert made == expected
    assert kinds(made) == kinds(expected)
    execnet.dumps(made)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan"), np.float32("-inf"), np.array(np.nan)])
def test_an_undefined_number_is_refused_and_named(value: Any) -> None:
    with pytest.raises(MeasurementError) as refusal:
        builtins({"records": [{"value": value}]}, "the result file")

    assert str(refusal.value) == (
        "the result file.records[0].value must be a finite number or None where it is undefined, and is "
        f"{float(value)}.\n"
        "  A verdict that rests on it could mean anything. Look at the checkpoint, and report this."
    )


@pytest.mark.parametrize("value", [np.zeros(2), np.zeros(1), {1, 2}, b"a", 1j], ids=repr)
def test_what_is_no_plain_value_is_a_defect(value: Any) -> None:
    with pytest.raises(TypeError, match=r"heads\.L0H0 is a .*, and only plain values can be reported"):
        builtins({"L0H0": value}, "heads")


def test_a_result_travels_as_exact_builtins_and_comes_back_equal(moved: Result) -> None:
    plain = result_as_dict(moved)

    assert kinds(plain) <= {dict, list, str, int, float, type(None)}
    assert result_from_dict(execnet.loads(execnet.dumps(plain))) == moved
    assert result_from_dict(json.loads(json.dumps(plain, allow_nan=False))) == moved


def test_numpy_numbers_in_a_result_travel_as_python_s(moved: Result) -> None:
    first, second = moved.records
    numpy = replace(
        moved,
        records=(replace(first, value=np.float64(0.0), interval=(np.float32(-0.5), np.float64(0.5))), second),
        heads={"L2H0": replace(moved.heads["L2H0"], share=np.float32(0.25), templates={"near": np.float64(0.5)})},
        line=np.int64(31),
    )

    found = result_from_dict(execnet.loads(execnet.dumps(result_as_dict(numpy))))

    assert found.records[0].interval == (-0.5, 0.5)
    assert found.heads["L2H0"].share == 0.25
    assert {type(found.line), type(found.records[0].value), type(found.heads["L2H0"].share)} == {int, float}


def test_the_verdict_comes_back_as_a_verdict(moved: Result) -> None:
    found = result_from_dict(result_as_dict(moved))

    assert found.verdict is Verdict.DRIFT
    assert found.records[0].verdict is Verdict.DRIFT


def test_nan_in_a_result_is_refused_before_it_travels(moved: Result) -> None:
    broken = replace(moved, heads={"L2H0": HeadEffect(float("nan"), None, None, None, {})})

    with pytest.raises(MeasurementError, match=r"result\.heads\.L2H0\.strength must be a finite number"):
        result_as_dict(broken)


def test_the_result_file_has_exactly_the_keys_of_format_1(every_verdict: list[Result]) -> None:
    found = document(every_verdict)

    assert list(found) == [
        "format", "complete", "collected", "verdict", "environment", "specs", "unverified", "checkpoints", "records",
        "heads",
    ]  # fmt: skip
    assert found["format"] == 1
    assert found["complete"] is True
    assert found["collected"] == ["a.circuit.yaml::heads[tuned]"]
    assert found["environment"] == {"torch": "2.10.0"}
    assert found["specs"] == {"specs/tiny/verb-agreement": "ab"}
    assert found["unverified"] == {"specs/tiny/verb-agreement": "no weights"}
    assert found["checkpoints"] == {"tuned": {"source": "./out", "fingerprint": None}}
    assert set(found["records"][0]) == {
        "circuit", "checkpoint", "check", "claim", "component", "verdict", "value", "reference", "drift", "interval",
        "limit", "unit", "prompts", "templates", "message", "line", "template",
    }  # fmt: skip
    assert len(found["records"]) == sum(len(result.records) for result in every_verdict)


def test_heads_are_found_by_circuit_checkpoint_and_head(moved: Result) -> None:
    other = replace(moved, checkpoint="other", heads={"L0H0": HeadEffect(0.1, 0.2, 0.3, 0.4, {})})
    elsewhere = replace(moved, circuit="specs/b")

    heads = document([moved, other, elsewhere])["heads"]

    assert set(heads) == {moved.circuit, "specs/b"}
    assert set(heads[moved.circuit]) == {"tuned", "other"}
    assert heads[moved.circuit]["tuned"] == {head: asdict(effect) for head, effect in moved.heads.items()}
    assert heads[moved.circuit]["other"] == {
        "L0H0": {
            "strength": 0.1,
            "share": 0.2,
            "reference_strength": 0.3,
            "reference_share": 0.4,
            "templates": {},
        }
    }


def test_a_check_without_heads_leaves_no_empty_entry(make_result: MakeResult) -> None:
    assert document([make_result("behaviour", Verdict.PASS)])["heads"] == {}


@pytest.mark.parametrize(
    ("verdicts", "complete", "expected"),
    [
        (["pass", "drift", "inconclusive"], True, "drift"),
        (["pass", "pass"], True, "pass"),
        (["pass", "pass"], False, "error"),
        (["drift"], False, "error"),
        ([], True, "error"),
    ],
)
def test_the_verdict_is_the_worst_and_never_green_for_what_did_not_run(
    make_result: MakeResult, verdicts: list[str], complete: bool, expected: str
) -> None:
    results = [make_result("behaviour", Verdict(verdict)) for verdict in verdicts]

    found = document(results, complete=complete)

    assert found["verdict"] == expected
    assert found["complete"] is complete


def test_the_document_is_exact_builtins(every_verdict: list[Result]) -> None:
    assert kinds(document(every_verdict)) <= {dict, list, str, int, float, bool, type(None)}


def test_the_file_holds_the_document(tmp_path: Path, every_verdict: list[Result]) -> None:
    path = tmp_path / "result.json"
    write_json(path, document(every_verdict))

    assert json.loads(path.read_text()) == document(every_verdict)
    assert path.read_bytes().endswith(b"}\n")
    assert path.read_bytes().isascii()


def test_a_document_with_nan_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"value": float("nan")})

    assert path.read_text() == "old"


def test_a_file_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as refusal:
        write_json(tmp_path, {})

    assert str(refusal.value) == (
        f"the result file {tmp_path.as_posix()!r} cannot be written: Is a directory.\n"
        "  Without it a run leaves no numbers behind. Name another file with --circuits-json."
    )

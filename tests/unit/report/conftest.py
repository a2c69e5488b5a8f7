"""Results as the checks would make them, with every verdict."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from pytest_circuits.records import HeadEffect, Record, Result, Verdict

AGREEMENT, SUCCESSOR, OBJECT = "specs/tiny/verb-agreement", "specs/tiny/successor", "specs/gpt2/indirect-object"


class MakeResult(Protocol):
    """Make a result of the circuit `verb-agreement` on `tuned`; each record is given by what differs."""

    def __call__(self, check: str, verdict: Verdict, *records: dict[str, Any], **parts: Any) -> Result:
        """Return the result."""


@pytest.fixture
def make_result() -> MakeResult:
    def make(check: str, verdict: Verdict, *records: dict[str, Any], **parts: Any) -> Result:
        circuit, checkpoint = parts.pop("circuit", AGREEMENT), parts.pop("checkpoint", "tuned")
        usual: dict[str, Any] = {
            "circuit": circuit,
            "checkpoint": checkpoint,
            "check": check,
            "claim": "drift",
            "component": None,
            "verdict": verdict,
            "value": None,
            "reference": None,
            "drift": None,
            "interval": None,
            "limit": 0.1,
            "unit": "share",
            "prompts": 128,
            "templates": 8,
            "message": "",
            "line": 31,
        }
        made = tuple(Record(**{**usual, **record}) for record in records)
        rest: dict[str, Any] = {
            "headline": f"{check}: a headline",
            "details": (),
            "warnings": (),
            "heads": {},
            "line": 31,
        }
        return Result(circuit, checkpoint, check, verdict, made, **{**rest, **parts})

    return make


@pytest.fixture
def moved(make_result: MakeResult) -> Result:
    """A head that lost its role while another took it over."""
    return make_result(
        "heads",
        Verdict.DRIFT,
        {"component": "L2H0", "value": 0.0, "reference": 0.98, "drift": -0.98, "interval": (-0.99, -0.97)},
        {"component": "L1H2", "value": 1.01, "reference": 0.04, "drift": 0.97, "interval": (0.95, 0.99)},
        headline="heads: 2 of 16 heads left their limits (reference: builtin:tiny, 12.3 logits)",
        details=(
            "L2H0  number_mover  share 0.98 -> 0.00  drift -0.98 [-0.99, -0.97]  lost",
            "L1H2                share 0.04 -> 1.01  drift +0.97 [+0.95, +0.99]  took over",
            "behaviour is unchanged (accuracy 1.00 -> 1.00): the task is still solved, by other heads.",
        ),
        heads={
            "L2H0": HeadEffect(0.0, 0.0, 0.97, 0.98, {"near": 0.0, "that": None}),
            "L1H2": HeadEffect(None, None, None, None, {}),
        },
    )


@pytest.fixture
def every_verdict(make_result: MakeResult, moved: Result) -> list[Result]:
    """Three circuits with all verdicts between them."""
    passed, unsure, lost = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.NOT_EVALUATED
    idle = "a random circuit of this size does as well (112 of 200): this claim says nothing"
    return [
        make_result("behaviour", passed, {"value": 0.99, "drift": -0.01}),
        make_result("faithfulness", passed, {"value": 0.97}),
        make_result("necessity", passed, {"value": 0.95}),
        make_result("controls", passed, {"value": 0.995}, warnings=(idle,)),
        moved,
        make_result("roles", Verdict.DRIFT, {"component": "L2H0", "value": 0.0, "drift": -0.97}),
        make_result("behaviour", passed, {"value": 1.02}, circuit=SUCCESSOR),
        make_result("faithfulness", Verdict.DRIFT, {"claim": "at_least", "value": 0.62}, circuit=SUCCESSOR),
        make_result("necessity", unsure, {"value": 0.8, "drift": -0.07}, circuit=SUCCESSOR),
        make_result("controls", unsure, {"claim": "at_least", "value": 0.88}, circuit=SUCCESSOR),
        make_result(
            "heads",
            passed,
            {"component": "L0H1", "value": 0.9, "drift": -0.02},
            {"component": "L1H3", "value": 0.9, "drift": 0.04},
            circuit=SUCCESSOR,
        ),
        make_result("behaviour", Verdict.DRIFT, {"value": 0.1, "drift": -0.88}, circuit=OBJECT),
        make_result("faithfulness", lost, {"value": 7.7}, circuit=OBJECT),
        make_result("necessity", lost, circuit=OBJECT),
        make_result("controls", Verdict.ERROR, {"value": 7.7}, circuit=OBJECT),
        make_result("heads", lost, circuit=OBJECT),
    ]

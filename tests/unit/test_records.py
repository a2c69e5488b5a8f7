"""The frozen values: which verdict is the worst, and a record as the result file holds it."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from pytest_circuits.records import SEVERITY, Record, Verdict, worst

RECORD = Record(
    circuit="specs/tiny/verb-agreement",
    checkpoint="tuned",
    check="heads",
    claim="share",
    component="L2H0",
    verdict=Verdict.DRIFT,
    value=0.0,
    reference=0.98,
    drift=-0.98,
    interval=(-0.99, -0.97),
    limit=0.1,
    unit="share",
    prompts=128,
    templates=8,
    message="lost",
    line=31,
)


def test_error_is_worse_than_drift_and_so_on_down_to_pass() -> None:
    order = ["pass", "inconclusive", "not-evaluated", "drift", "error"]

    assert list(SEVERITY) == order
    for mild, bad in itertools.combinations(order, 2):
        assert worst([Verdict(bad), Verdict(mild)]) == worst([Verdict(mild), Verdict(bad)]) == bad


def test_every_verdict_has_its_place_in_the_order() -> None:
    assert sorted(SEVERITY) == sorted(Verdict)


@pytest.mark.parametrize("verdict", Verdict)
def test_one_verdict_is_its_own_worst(verdict: Verdict) -> None:
    assert worst([verdict]) is verdict
    assert worst([verdict, verdict]) is verdict


def test_nothing_that_ran_is_an_error_and_never_green() -> None:
    assert worst([]) is Verdict.ERROR


def test_a_record_as_json_holds_every_field_as_plain_builtins() -> None:
    plain = RECORD.as_json()

    assert list(plain) == [field.name for field in dataclasses.fields(Record)]
    assert type(plain["verdict"]) is str
    assert plain["verdict"] == "drift"
    assert plain["interval"] == [-0.99, -0.97]
    assert json.loads(json.dumps(plain)) == plain


def test_what_is_undefined_stays_none() -> None:
    nothing = dict.fromkeys(("component", "value", "reference", "drift", "interval", "limit"))

    plain = dataclasses.replace(RECORD, **nothing).as_json()

    assert {name: plain[name] for name in nothing} == nothing


def test_as_json_leaves_the_record_as_it_is() -> None:
    RECORD.as_json()["verdict"] = "pass"

    assert RECORD.verdict is Verdict.DRIFT
    assert RECORD.interval == (-0.99, -0.97)

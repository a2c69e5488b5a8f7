"""The scores of heads with a role."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from imagined import compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.errors import MeasurementError
from pytest_circuits.records import Verdict

REFERENCE = reading()
TASKS = REFERENCE.successor["L0H1"]


def judged(observed, reference=REFERENCE, **changes):
    result = judge("roles", compared(observed, reference, file=spec_file({"roles": {}}, **changes)))
    return {(record.component, record.claim): record for record in result.records if record.claim != "task"} | {
        record.message.split("'")[1]: record for record in result.records if record.claim == "task"
    }


def attending(share, attention, seed=1):
    r = reading(seed=seed, shares={"L1H2": share})
    return replace(r, attention={"L1H2": r.attention["L1H2"] - 0.95 + attention})


@pytest.mark.parametrize(
    ("share", "attention", "verdict"),
    [
        pytest.param(0.8, 0.95, Verdict.PASS, id="unchanged"),
        pytest.param(0.75, 0.95, Verdict.PASS, id="a little less"),
        pytest.param(0.7, 0.95, Verdict.INCONCLUSIVE, id="at the limit"),
        pytest.param(0.6, 0.95, Verdict.DRIFT, id="share fallen"),
        pytest.param(0.01, 0.99, Verdict.DRIFT, id="idle, and looking"),
        pytest.param(0.8, 0.85, Verdict.PASS, id="attention fallen, still the larger"),
        pytest.param(0.8, 0.5, Verdict.DRIFT, id="looking elsewhere"),
        pytest.param(1.2, 0.99, Verdict.PASS, id="risen"),
    ],
)
def test_a_number_mover_drifts_when_its_score_falls(share, attention, verdict):
    assert judged(attending(share, attention))["L1H2", "drift"].verdict is verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.8, Verdict.PASS), (0.5, Verdict.INCONCLUSIVE), (0.3, Verdict.DRIFT)])
def test_the_score_is_at_least_what_the_group_asks(share, verdict):
    assert judged(attending(share, 0.95))["L1H2", "at_least"].verdict is verdict


def test_both_components_of_the_score_are_told():
    exact = reading(spread=0.0)
    record = judged(replace(reading(spread=0.0, shares={"L1H2": 0.01})), exact)["L1H2", "drift"]

    assert record.message == (
        "L1H2 number_mover 0.80 -> 0.01, drift -0.79 [-0.79, -0.79] (templates as a sample [-0.79, -0.79])"
        " (share 0.80 -> 0.01, attention 0.95 -> 0.95) is beyond its limit 0.1"
    )
    assert (record.unit, record.limit) == ("score", 0.1)


def test_a_score_is_compared_by_the_component_that_is_smaller_in_each_reading():
    """The share of 0.8 was the smaller, the attention of 0.4 is now."""
    record = judged(attending(0.9, 0.4))["L1H2", "drift"]

    assert (record.value, record.reference) == (pytest.approx(0.4, abs=0.01), pytest.approx(0.8, abs=0.01))


def test_a_lost_task_leaves_no_share_to_score():
    records = judged(reading(seed=1, effect=0.1))

    assert {records["L1H2", claim].verdict for claim in ("drift", "at_least")} == {Verdict.NOT_EVALUATED}
    assert records["L1H2", "drift"].message.startswith("L1H2 number_mover: task lost: ")
    assert records["L0H1", "drift"].verdict is Verdict.PASS


def counting(**tasks):
    return replace(REFERENCE, successor={"L0H1": TASKS | tasks})


def test_a_successor_is_compared_exactly_pooled_and_task_by_task():
    records = judged(counting())

    assert records["L0H1", "drift"].message == (
        "L0H1 successor 0.98 -> 0.98, drift +0.00 (89 -> 89 of 91 tokens), limit 0.1"
    )
    assert {key: records[key].limit for key in TASKS} == pytest.approx(dict.fromkeys(TASKS, 0.3))
    assert (records["L0H1", "drift"].unit, records["L0H1", "drift"].interval) == ("tokens", None)


@pytest.mark.parametrize(("hits", "verdict"), [(50, Verdict.PASS), (49, Verdict.PASS), (48, Verdict.DRIFT)])
def test_a_successor_is_never_undecided(hits, verdict):
    """89 of 91 tokens may fall by 9.1 of them."""
    assert judged(counting(numerals=(hits, 59)))["L0H1", "drift"].verdict is verdict


def test_one_broken_task_cannot_hide_in_the_pool():
    records = judged(counting(weekdays=(4, 7)))

    assert records["L0H1", "drift"].verdict is Verdict.PASS
    assert records["weekdays"].verdict is Verdict.DRIFT
    assert records["weekdays"].message == (
        "L0H1 successor of 'weekdays' 1.00 -> 0.57, drift -0.43 (7 -> 4 of 7 tokens) is beyond its limit 0.3"
    )


def test_a_fall_by_exactly_the_limit_passes_whatever_its_rounding():
    tens = {"L0H1": {"letters": (9, 20)}}
    fallen = {"L0H1": {"letters": (7, 20)}}
    record = judged(replace(REFERENCE, successor=fallen), replace(REFERENCE, successor=tens))["L0H1", "drift"]

    assert record.verdict is Verdict.PASS


def test_a_limit_finer_than_two_tokens_is_refused_with_their_number():
    few = {"L0H1": {"letters": (19, 19)}}
    records = judged(replace(REFERENCE, successor=few), replace(REFERENCE, successor=few))

    assert records["L0H1", "drift"].verdict is Verdict.ERROR
    assert records["L0H1", "drift"].message == (
        "L0H1 successor: the score is of 19 tokens, so its step is 1/19, and the limit 0.1 is less than two steps"
        " (0.105). Raise drift_at_most."
    )


def test_twenty_tokens_are_enough_for_a_limit_of_a_tenth():
    few = {"L0H1": {"letters": (19, 20)}}

    assert judged(replace(REFERENCE, successor=few), replace(REFERENCE, successor=few))["L0H1", "drift"].verdict is (
        Verdict.PASS
    )


@pytest.mark.parametrize(("hits", "verdict"), [(46, Verdict.PASS), (45, Verdict.DRIFT)])
def test_a_successor_is_at_least_what_the_group_asks(hits, verdict):
    circuit = {"counter": {"layers": ("L0",), "role": {"name": "successor", "at_least": 0.5}}}
    one = {f"L0H{head}": {"all": (91, 92) if head != 1 else (hits, 92)} for head in range(4)}
    records = judged(replace(REFERENCE, successor=one), replace(REFERENCE, successor=one), circuit=circuit)

    assert records["L0H1", "at_least"].verdict is verdict
    assert f"({hits} of 92 tokens)" in records["L0H1", "at_least"].message


def test_only_the_group_with_the_role_sets_its_least_score():
    circuit = {
        "a": {"heads": ("L1H2",), "role": {"name": "number_mover", "at_least": 0.7}},
        "b": {"heads": ("L1H2", "L0H1"), "role": {"name": "successor", "at_least": 0.9}},
    }
    both = {head: {"all": (91, 92)} for head in ("L1H2", "L0H1")}
    result = judge(
        "roles",
        compared(
            replace(REFERENCE, successor=both),
            replace(REFERENCE, successor=both),
            file=spec_file({"roles": {}}, circuit=circuit),
        ),
    )

    floors = sorted((r.component, r.unit, r.limit) for r in result.records if r.claim == "at_least")
    assert floors == [("L0H1", "tokens", 0.9), ("L1H2", "score", 0.7), ("L1H2", "tokens", 0.9)]


def test_other_tokens_than_the_references_do_not_compare():
    with pytest.raises(MeasurementError, match="expected the reference's 91 tokens, found 92"):
        judged(counting(letters=(24, 26)))


@pytest.mark.parametrize("successor", [{}, {"L0H1": {}}, {"L0H1": {"letters": (0, 0)}}])
def test_a_successor_that_was_not_measured_is_an_error(successor):
    with pytest.raises(MeasurementError, match="L0H1 successor: expected a score on at least one task"):
        judged(replace(REFERENCE, successor=successor))


def test_attention_that_was_not_measured_is_an_error():
    with pytest.raises(MeasurementError, match="attention: expected every head of the model, found none named L1H2"):
        judged(replace(REFERENCE, attention={}))


def test_a_name_of_a_task_cannot_speak_to_the_terminal():
    odd = {"L0H1": {"\x1b[2J": (59, 60)}}
    result = judge("roles", compared(replace(REFERENCE, successor=odd), replace(REFERENCE, successor=odd)))

    assert not any("\x1b" in record.message for record in result.records)


def test_the_intervals_of_a_score_are_paired():
    """A swing that both readings share, prompt by prompt, is no uncertainty of the drift."""
    swing = np.tile([3.0, -3.0], 64)
    noisy = replace(REFERENCE, heads=REFERENCE.heads | {"L1H2": REFERENCE.heads["L1H2"] + swing})
    record = judged(noisy, noisy)["L1H2", "drift"]

    assert record.interval == (0.0, 0.0)

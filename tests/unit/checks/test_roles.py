"""The scores of heads with a role: kept, lost, ranked, and of the sign that the spec states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from imagined import HEADS, TASKS, compared, counted, in_role, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.errors import MeasurementError
from pytest_circuits.records import Verdict

REFERENCE = reading()
PROMPTS = len(REFERENCE.templates)


def result_of(observed, reference=REFERENCE, **changes):
    return judge("roles", compared(observed, reference, file=spec_file({"roles": {}}, **changes)))


def judged(observed, reference=REFERENCE, **changes):
    records = result_of(observed, reference, **changes).records
    return {(record.component, record.claim): record for record in records if record.claim != "task"} | {
        record.message.split("'")[1]: record for record in records if record.claim == "task"
    }


def one_role(head="L1H2", **role):
    return {"only": {"heads": (head,), "role": role}}


def attending(share, attention, seed=1):
    r = reading(seed=seed, shares={"L1H2": share})
    return in_role(
        r, "number_mover", L1H2={"attention": r.roles["number_mover"]["L1H2"]["attention"] - 0.95 + attention}
    )


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


def test_the_intervals_of_a_score_are_paired():
    """A swing that both readings share, prompt by prompt, is no uncertainty of the drift."""
    swing = np.tile([3.0, -3.0], 64)
    noisy = replace(REFERENCE, heads=REFERENCE.heads | {"L1H2": REFERENCE.heads["L1H2"] + swing})
    record = judged(noisy, noisy)["L1H2", "drift"]

    assert record.interval == (0.0, 0.0)


# -- what a task is needed for -----------------------------------------------------------------------------------------


def with_role(r, key, value, head="L1H2", count=PROMPTS):
    """The reading in which a head has one number of a role throughout, and every other head 0.1."""
    kinds = {
        "induction": {"50 repeated tokens": 16},
        "attractor_tracker": {"attention": count},
        "name_mover": {"direct": count, "attention": count},
        "backup_name_mover": {"backup": count},
        "s_inhibition": {"path": count, "attention": count},
    }

    def numbers(value):
        return {
            name: np.zeros(length) + (value if name in ("attention", "50 repeated tokens") else 10 * value)
            for name, length in kinds[key].items()
        }

    found = {other: numbers(0.1) for other in HEADS} | {head: numbers(value)}
    return in_role(r, key, **found)


def test_a_lost_task_leaves_no_share_to_score():
    records = judged(reading(seed=1, effect=0.1))

    assert {records["L1H2", claim].verdict for claim in ("drift", "at_least")} == {Verdict.NOT_EVALUATED}
    assert records["L1H2", "drift"].message.startswith("L1H2 number_mover: task lost: ")
    assert records["L0H1", "drift"].verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("key", "verdict"),
    [
        ("induction", Verdict.PASS),
        ("attractor_tracker", Verdict.PASS),
        ("name_mover", Verdict.NOT_EVALUATED),
        ("backup_name_mover", Verdict.NOT_EVALUATED),
        ("s_inhibition", Verdict.NOT_EVALUATED),
    ],
)
def test_a_lost_task_leaves_what_no_effect_is_divided_by(key, verdict):
    role = one_role(name=key, at_least=0.5, percentile_at_least=0.9, effect="positive")
    lost, reference = with_role(reading(seed=1, effect=0.1), key, 0.9), with_role(REFERENCE, key, 0.9)
    records = judged(lost, reference, circuit=role)

    assert {records["L1H2", claim].verdict for claim in ("drift", "at_least", "percentile")} == {verdict}
    assert records["L1H2", "effect"].verdict is Verdict.NOT_EVALUATED
    assert records["L1H2", "effect"].message.startswith("L1H2 effect: task lost: ")
    if verdict is Verdict.NOT_EVALUATED:
        assert records["L1H2", "percentile"].message.startswith(f"L1H2 {key} percentile: task lost: ")


def test_a_part_of_no_logit_difference_is_not_evaluated_in_either_reading():
    good = with_role(REFERENCE, "name_mover", 0.9)
    bad = replace(good, clean_logit_diff=np.tile([1.0, -1.0], 64))
    role = one_role(name="name_mover")
    why = "the clean logit difference is 0 with standard error 0.091; a ratio needs at least 10 times that"

    for now, before, told in ((bad, good, why), (good, bad, f"in the reference {why}")):
        record = judged(now, before, circuit=role)["L1H2", "drift"]
        assert (record.verdict, record.message) == (
            Verdict.NOT_EVALUATED,
            f"L1H2 name_mover: no ratio: {told}",
        )


# -- rank and sign -----------------------------------------------------------------------------------------------------


def ranked(below):
    """A reading in which so many of the other heads attend less than L1H2, whose score is its attention of 0.5."""
    others = [head for head in HEADS if head != "L1H2"]
    lower = dict.fromkeys(others[:below], 0.4) | dict.fromkeys(others[below:], 0.5)
    return in_role(
        REFERENCE,
        "attractor_tracker",
        **{head: {"attention": np.full(PROMPTS, value)} for head, value in {**lower, "L1H2": 0.5}.items()},
    )


@pytest.mark.parametrize(("below", "verdict"), [(7, Verdict.PASS), (6, Verdict.PASS), (5, Verdict.DRIFT)])
def test_a_head_is_above_a_part_of_the_models_others(below, verdict):
    role = one_role(name="attractor_tracker", percentile_at_least=6 / 7)
    record = judged(ranked(below), ranked(7), circuit=role)["L1H2", "percentile"]

    assert record.verdict is verdict
    assert (record.value, record.limit, record.unit) == (below / 7, 6 / 7, "fraction")
    ending = ", limit 0.857" if verdict is Verdict.PASS else " is below its limit 0.857"
    assert record.message == (
        f"L1H2 attractor_tracker percentile {below / 7:.2f} (above {below} of 7 other heads){ending}"
    )


@pytest.mark.parametrize(
    ("share", "sign", "verdict"),
    [
        (0.3, "positive", Verdict.PASS),
        (-0.3, "positive", Verdict.DRIFT),
        (0.3, "negative", Verdict.DRIFT),
        (-0.3, "negative", Verdict.PASS),
        (0.0, "positive", Verdict.INCONCLUSIVE),
        (0.0, "negative", Verdict.INCONCLUSIVE),
    ],
)
def test_the_effect_of_a_head_has_the_sign_that_is_stated(share, sign, verdict):
    r = reading(seed=4, spread=0.05, shares={"L1H2": share})
    record = judged(r, r, circuit=one_role(name="number_mover", effect=sign))["L1H2", "effect"]

    assert record.verdict is verdict
    assert (record.unit, record.limit, record.drift) == ("share", 0.0, None)
    assert f" (stated: {sign})" in record.message
    ending = {
        Verdict.PASS: ", limit 0",
        Verdict.DRIFT: " is beyond its limit 0",
        Verdict.INCONCLUSIVE: " is not proven on either side of its limit 0: within 2 SE of the limit, so no practical"
        " n decides",
    }
    assert record.message.endswith(f"(stated: {sign}){ending[verdict]}")


def test_a_head_that_works_against_the_answer_keeps_a_role_of_that_sign():
    def writing(direct):
        one = {"direct": np.full(PROMPTS, direct), "attention": np.full(PROMPTS, 0.9)}
        none = {"direct": np.zeros(PROMPTS), "attention": np.full(PROMPTS, 0.1)}
        return in_role(
            replace(REFERENCE, clean_logit_diff=np.full(PROMPTS, 10.0)),
            "negative_mover",
            **dict.fromkeys(HEADS, none) | {"L1H2": one},
        )

    role = one_role(name="negative_mover")
    kept, lost = (judged(writing(now), writing(-4.0), circuit=role)["L1H2", "drift"] for now in (-4.1, 4.0))

    assert (kept.verdict, kept.value) == (Verdict.PASS, pytest.approx(0.41))
    assert (lost.verdict, lost.value) == (Verdict.DRIFT, 0.0)
    assert "(direct -0.40 -> 0.40, attention 0.90 -> 0.90)" in lost.message


def test_half_precision_is_too_coarse_for_shares_and_not_for_attention_or_words():
    noisy = with_role(replace(reading(seed=1), noise=0.2), "attractor_tracker", 0.9, "L0H1")
    circuit = {
        **one_role(name="number_mover"),
        "tracker": {"heads": ("L0H1",), "role": {"name": "attractor_tracker"}},
        "counter": {"heads": ("L0H0",), "role": {"name": "successor"}},
    }
    reference = with_role(replace(REFERENCE, noise=0.2), "attractor_tracker", 0.9, "L0H1")
    records = judged(noisy, reference, circuit=circuit)

    assert records["L1H2", "drift"].verdict is Verdict.ERROR
    assert records["L1H2", "drift"].message.startswith("instrument: L1H2 number_mover 0.80 -> ")
    assert {records[head, "drift"].verdict for head in ("L0H1", "L0H0")} == {Verdict.PASS}


def test_repeated_sequences_are_what_more_of_would_decide():
    def repeating(mean):
        return with_role(REFERENCE, "induction", mean + np.tile([0.1, -0.1], 8))

    before = with_role(REFERENCE, "induction", 0.9)
    record = judged(repeating(0.86), before, circuit=one_role(name="induction"))["L1H2", "drift"]

    assert record.verdict is Verdict.INCONCLUSIVE
    assert record.message.startswith("L1H2 induction 0.90 -> 0.86, drift -0.04 [-0.11, +0.03] is not proven on either")
    assert record.message.endswith(": about 20 repeated sequences in all would decide, there are 16")


def test_repeated_sequences_of_another_length_than_the_references_do_not_compare():
    def repeating(size):
        return in_role(REFERENCE, "induction", **{head: {f"{size} repeated tokens": np.ones(16)} for head in HEADS})

    told = "L1H2 induction: expected the reference's 16 of '50 repeated tokens'; found 16 of '24 repeated tokens'"
    with pytest.raises(MeasurementError, match=told):
        judged(repeating(24), repeating(50), circuit=one_role(name="induction"))
    assert judged(repeating(24), repeating(24), circuit=one_role(name="induction"))["L1H2", "drift"].verdict is (
        Verdict.PASS
    )


# -- exact words -------------------------------------------------------------------------------------------------------


def counting(**tasks):
    return in_role(REFERENCE, "successor", L0H1=counted(TASKS | tasks))


def only_letters(hits, tokens):
    return in_role(REFERENCE, "successor", **{head: counted({"letters": (hits, tokens)}) for head in HEADS})


def test_a_successor_is_compared_exactly_pooled_and_task_by_task():
    records = judged(counting())

    assert records["L0H1", "drift"].message == (
        "L0H1 successor 0.98 -> 0.98, drift +0.00 (89 -> 89 of 91 tokens), limit 0.1"
    )
    assert {key: records[key].limit for key in TASKS} == pytest.approx(dict.fromkeys(TASKS, 0.3))
    assert (records["L0H1", "drift"].unit, records["L0H1", "drift"].interval) == ("score", None)


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
    assert judged(only_letters(7, 20), only_letters(9, 20))["L0H1", "drift"].verdict is Verdict.PASS


def test_a_limit_finer_than_two_tokens_is_refused_with_their_number():
    records = judged(only_letters(19, 19), only_letters(19, 19))

    assert records["L0H1", "drift"].verdict is Verdict.ERROR
    assert records["L0H1", "drift"].message == (
        "L0H1 successor: the score is of 19 tokens, so its step is 1/19, and the limit 0.1 is less than two steps"
        " (0.105). Raise drift_at_most."
    )


def test_twenty_tokens_are_enough_for_a_limit_of_a_tenth():
    assert judged(only_letters(19, 20), only_letters(19, 20))["L0H1", "drift"].verdict is Verdict.PASS


def test_a_number_a_token_has_no_step_and_is_compared_just_as_exactly():
    def biased(value):
        return in_role(REFERENCE, "greater_than", **{head: {"years": np.full(5, value)} for head in HEADS})

    role = one_role(name="greater_than")
    kept, lost = (judged(biased(now), biased(0.5), circuit=role)["L1H2", "drift"] for now in (0.41, 0.39))

    assert (kept.verdict, lost.verdict) == (Verdict.PASS, Verdict.DRIFT)
    assert kept.message == "L1H2 greater_than 0.50 -> 0.41, drift -0.09 (over 5 tokens), limit 0.1"


@pytest.mark.parametrize(("hits", "verdict"), [(46, Verdict.PASS), (45, Verdict.DRIFT)])
def test_a_successor_is_at_least_what_the_group_asks(hits, verdict):
    circuit = {"counter": {"layers": ("L0",), "role": {"name": "successor", "at_least": 0.5}}}
    one = in_role(
        REFERENCE, "successor", **{head: counted({"all": (91 if head != "L0H1" else hits, 92)}) for head in HEADS}
    )
    records = judged(one, one, circuit=circuit)

    assert records["L0H1", "at_least"].verdict is verdict
    assert records["L0H1", "at_least"].interval is None
    assert f"({hits} -> {hits} of 92 tokens)" in records["L0H1", "at_least"].message


def test_only_the_group_with_the_role_sets_its_least_score():
    circuit = {
        "a": {"heads": ("L1H2",), "role": {"name": "number_mover", "at_least": 0.7}},
        "b": {"heads": ("L1H2", "L0H1"), "role": {"name": "successor", "at_least": 0.9}},
    }
    result = result_of(REFERENCE, circuit=circuit)

    floors = sorted((r.component, r.message.split()[1], r.limit) for r in result.records if r.claim == "at_least")
    assert floors == [("L0H1", "successor", 0.9), ("L1H2", "number_mover", 0.7), ("L1H2", "successor", 0.9)]


def test_other_tokens_than_the_references_do_not_compare():
    with pytest.raises(MeasurementError, match="expected the reference's 25 of 'letters'.* found 26 of 'letters'"):
        judged(counting(letters=(24, 26)))


@pytest.mark.parametrize("tasks", [{}, {"letters": (0, 0)}])
def test_a_successor_that_was_not_measured_is_an_error(tasks):
    with pytest.raises(MeasurementError, match="L0H1 successor: expected "):
        judged(in_role(REFERENCE, "successor", L0H1=counted(tasks)))


def test_attention_that_was_not_measured_is_an_error():
    with pytest.raises(MeasurementError, match="number_mover: expected every head of the model, found none named L1H2"):
        judged(replace(REFERENCE, roles=REFERENCE.roles | {"number_mover": {}}))


def test_a_name_of_a_task_cannot_speak_to_the_terminal():
    odd = in_role(REFERENCE, "successor", **{head: counted({"\x1b[2J": (59, 60)}) for head in HEADS})
    fallen = in_role(odd, "successor", L0H1=counted({"\x1b[2J": (1, 60)}))
    result = judge("roles", compared(fallen, odd))

    assert not any("\x1b" in text for text in [*(record.message for record in result.records), *result.details])


# -- where a role is told of a slot ------------------------------------------------------------------------------------


def test_two_slots_of_one_role_are_two_roles():
    def looking(one, two):
        numbers = {
            f"letter_mover:{slot}": {
                head: {"attention": np.full(PROMPTS, value if head == "L1H2" else 0.1)} for head in HEADS
            }
            for slot, value in (("one", one), ("two", two))
        }
        return replace(REFERENCE, roles={**REFERENCE.roles, **numbers})

    circuit = {
        "a": {"heads": ("L1H2",), "role": {"name": "letter_mover", "to": "one", "at_least": 0.5}},
        "b": {"layers": ("L1",), "role": {"name": "letter_mover", "to": "two"}},
    }
    result = result_of(looking(0.7, 0.2), looking(0.7, 0.7), circuit=circuit)
    told = {record.message.split()[1] for record in result.records if record.verdict is Verdict.DRIFT}

    assert told == {"letter_mover:two"}
    assert [r.message.split()[1] for r in result.records if r.claim == "at_least"] == ["letter_mover:one"]


# -- laziness ----------------------------------------------------------------------------------------------------------


class Sweep(dict):
    """The runs with one head out, noting for whom they were asked."""

    def __init__(self, heads):
        super().__init__(heads)
        self.asked = []

    def __iter__(self):
        self.asked.append("sweep")
        return super().__iter__()

    def __getitem__(self, head):
        self.asked.append(head)
        return super().__getitem__(head)


def asked(role, observed=REFERENCE, **limits):
    sweep = Sweep(observed.heads)
    file = spec_file({"roles": limits}, circuit=one_role(**{"name": "number_mover", **role}))
    judge("roles", compared(replace(observed, heads=sweep), REFERENCE, file=file))
    return sweep.asked


@pytest.mark.parametrize("on_move", ["fail", "warn", "allow"])
def test_a_role_that_is_kept_asks_only_for_its_own_heads(on_move):
    assert set(asked({"at_least": 0.5, "effect": "positive"}, on_move=on_move)) == {"L1H2"}


def test_a_rank_and_a_fall_ask_for_every_head_in_one_sweep():
    fallen = reading(seed=1, shares={"L1H2": 0.1})

    for found in (asked({"percentile_at_least": 0.5}), asked({}, fallen)):
        assert found.count("sweep") == 1
        assert set(found) == {"sweep", *HEADS}
        assert not {*found[: found.index("sweep")]} - {"L1H2"}


def test_a_role_without_a_share_asks_for_no_head_at_all():
    assert asked({"name": "successor", "percentile_at_least": 0.1, "at_least": 0.01}) == []

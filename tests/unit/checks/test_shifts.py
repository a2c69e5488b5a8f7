"""A role that is kept, lost, moved to another head, or moved within its group, and what the spec says of a move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from imagined import HEADS, OTHER_TASKS, SHARES, TASKS, compared, counted, in_role, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict

PROMPTS = len(reading().templates)
GROUP = {"mover": {"heads": ("L1H2",), "role": {"name": "number_mover"}}}
BOTH = {"mover": {"heads": ("L0H1", "L1H2"), "role": {"name": "number_mover"}}}
MODES = ("fail", "warn", "allow")


def carrying(*, noise=0.0, seed=1, spread=0.02, **shares):
    """A reading in which every head looks at the subject, so that its share alone is its score."""
    attention = {head: {"attention": np.full(PROMPTS, 0.95)} for head in HEADS}
    return in_role(reading(seed=seed, noise=noise, spread=spread, shares=shares), "number_mover", **attention)


REFERENCE = carrying(seed=0)
MOVED = carrying(L1H2=0.01, L1H3=0.80)


def judged(observed, *, reference=REFERENCE, circuit=GROUP, **limits):
    return judge("roles", compared(observed, reference, file=spec_file({"roles": limits}, circuit=circuit)))


def only(result, claim="drift", component="L1H2"):
    (record,) = (one for one in result.records if (one.claim, one.component) == (claim, component))
    return record


def fates(result):
    return [line for line in result.details if line.startswith("the role ")]


@pytest.mark.parametrize("on_move", MODES)
def test_a_role_that_is_kept_passes_and_nothing_is_told_of_other_heads(on_move):
    result = judged(carrying(L1H2=0.78), on_move=on_move)

    assert result.verdict is Verdict.PASS
    assert (fates(result), result.warnings) == ([], ())
    assert "all heads" not in only(result).message


@pytest.mark.parametrize("on_move", MODES)
def test_a_role_that_is_lost_is_never_forgiven(on_move):
    result = judged(carrying(spread=0.0, L1H2=0.01), reference=carrying(spread=0.0), on_move=on_move)

    assert only(result).verdict is Verdict.DRIFT
    assert result.warnings == ()
    assert fates(result) == [
        "the role number_mover was lost: L1H2 0.80 -> 0.01; no head is proven to have risen by more than 0.1; "
        "all heads: 1.01 -> 0.22, drift -0.79 [-0.79, -0.79], limit 0.101."
    ]


def test_a_role_that_moved_is_drift_by_default_and_the_details_say_where_it_went():
    result = judged(carrying(spread=0.0, L1H2=0.01, L1H3=0.80), reference=carrying(spread=0.0))

    assert only(result).verdict is Verdict.DRIFT
    assert fates(result) == [
        "the role number_mover moved: L1H2 0.80 -> 0.01; risen: L1H3 0.01 -> 0.80; all heads: 1.01 -> 1.01, drift "
        "+0.00 [+0.00, +0.00], limit 0.101."
    ]
    assert "all heads" not in only(result).message
    assert result.warnings == ()


@pytest.mark.parametrize("on_move", ["warn", "allow"])
def test_a_role_that_moved_passes_where_the_spec_says_so(on_move):
    result = judged(carrying(spread=0.0, L1H2=0.01, L1H3=0.80), reference=carrying(spread=0.0), on_move=on_move)
    told = "risen: L1H3 0.01 -> 0.80; all heads: 1.01 -> 1.01, drift +0.00 [+0.00, +0.00], limit 0.101"

    assert result.verdict is Verdict.PASS
    assert only(result).message == (
        "L1H2 number_mover 0.80 -> 0.01, drift -0.79 [-0.79, -0.79] (templates as a sample [-0.79, -0.79])"
        f" (share 0.80 -> 0.01, attention 0.95 -> 0.95) ({told}), limit 0.1"
    )
    warned = (f"the role number_mover moved: L1H2 0.80 -> 0.01; {told}.",)
    assert result.warnings == (warned if on_move == "warn" else ())
    assert fates(result) == []


@pytest.mark.parametrize("on_move", ["warn", "allow"])
def test_a_move_is_forgiven_with_the_noise_of_real_prompts_too(on_move):
    result = judged(MOVED, on_move=on_move)

    assert result.verdict is Verdict.PASS
    assert len(result.warnings) == (on_move == "warn")


def test_a_role_that_moved_within_its_group_is_told_of_the_head_that_lost_it():
    swapped = carrying(L1H2=SHARES["L0H1"], L0H1=SHARES["L1H2"])
    failed, warned = (judged(swapped, circuit=BOTH, on_move=on_move) for on_move in ("fail", "warn"))

    assert only(failed).verdict is Verdict.DRIFT
    assert only(failed, component="L0H1").verdict is Verdict.PASS
    assert fates(failed)[0].startswith("the role number_mover moved: L1H2 0.80 -> 0.15; risen: L0H1 0.15 -> 0.80; ")
    assert warned.verdict is Verdict.PASS
    assert len(warned.warnings) == 1


@pytest.mark.parametrize("on_move", MODES)
def test_a_role_of_which_a_part_arrived_has_not_moved(on_move):
    result = judged(carrying(L1H2=0.01, L1H3=0.40), on_move=on_move)

    assert only(result).verdict is Verdict.DRIFT
    assert fates(result)[0].startswith(
        "the role number_mover is not shown to have moved: L1H2 0.80 -> 0.01; risen: L1H3 0.01 -> 0.40; "
    )
    assert result.warnings == ()


@pytest.mark.parametrize(("limit", "verdict"), [(None, Verdict.DRIFT), (0.1, Verdict.DRIFT), (0.5, Verdict.PASS)])
def test_how_much_may_be_lost_on_the_way_is_a_limit_of_its_own(limit, verdict):
    result = judged(carrying(L1H2=0.01, L1H3=0.50), on_move="allow", mass_drift_at_most=limit)

    assert only(result).verdict is verdict


def test_the_limit_on_the_way_is_that_on_the_head_where_it_is_not_given():
    """Of 0.79 that went, 0.30 did not arrive."""
    result = judged(carrying(L1H2=0.01, L1H3=0.50), on_move="allow", drift_at_most=0.4)

    assert only(result).verdict is Verdict.PASS


@pytest.mark.parametrize("on_move", MODES)
def test_what_many_heads_have_a_little_of_does_not_hide_the_head_that_lost_it(on_move):
    """The sum over all heads of 4.8 may fall by 0.48, which is all that the head had: nobody took it over."""

    def looking(value):
        numbers = {head: {"attention": np.full(PROMPTS, 0.62)} for head in HEADS}
        return in_role(reading(), "attractor_tracker", **numbers | {"L1H2": {"attention": np.full(PROMPTS, value)}})

    circuit = {"a": {"heads": ("L1H2",), "role": {"name": "attractor_tracker"}}}
    result = judged(looking(0.0), reference=looking(0.46), circuit=circuit, on_move=on_move)

    assert only(result).verdict is Verdict.DRIFT
    assert fates(result) == [
        "the role attractor_tracker was lost: L1H2 0.46 -> 0.00; no head is proven to have risen by more than 0.1; "
        "all heads: 4.80 -> 4.34, drift -0.46 [-0.46, -0.46], limit 0.48."
    ]


def test_two_heads_that_lost_it_are_not_forgiven_by_one_that_took_it_over_once():
    def looking(**values):
        numbers = {head: {"attention": np.full(PROMPTS, values.get(head, 0.7))} for head in HEADS}
        return in_role(reading(), "attractor_tracker", **numbers)

    circuit = {"a": {"heads": ("L1H1", "L1H2"), "role": {"name": "attractor_tracker"}}}
    before, after = looking(L1H1=0.5, L1H2=0.5, L0H0=0.0), looking(L1H1=0.0, L1H2=0.0, L0H0=0.5)
    result = judged(after, reference=before, circuit=circuit, on_move="allow")

    assert {only(result, component=head).verdict for head in ("L1H1", "L1H2")} == {Verdict.DRIFT}
    assert fates(result)[0].startswith(
        "the role attractor_tracker is not shown to have moved: L1H1 0.50 -> 0.00, L1H2 0.50 -> 0.00; risen: L0H0 "
    )


@pytest.mark.parametrize("on_move", MODES)
def test_a_move_does_not_hide_that_every_other_head_lost_a_little(on_move):
    def looking(lost, others):
        numbers = {head: {"attention": np.full(PROMPTS, others)} for head in HEADS}
        numbers |= {head: {"attention": np.full(PROMPTS, value)} for head, value in lost.items()}
        return in_role(reading(), "attractor_tracker", **numbers)

    circuit = {"a": {"heads": ("L1H2",), "role": {"name": "attractor_tracker"}}}
    before, after = looking({"L1H2": 0.5, "L0H0": 0.0}, 0.6), looking({"L1H2": 0.0, "L0H0": 0.5}, 0.51)
    result = judged(after, reference=before, circuit=circuit, on_move=on_move)

    assert only(result).verdict is Verdict.DRIFT
    assert fates(result) == [
        "the role attractor_tracker is not shown to have moved: L1H2 0.50 -> 0.00; risen: L0H0 0.00 -> 0.50; all "
        "heads: 4.10 -> 3.56, drift -0.54 [-0.54, -0.54], limit 0.41."
    ]


@pytest.mark.parametrize("on_move", MODES)
def test_what_is_asked_of_the_head_itself_is_not_forgiven(on_move):
    circuit = {
        "mover": {"heads": ("L1H2",), "role": {"name": "number_mover", "at_least": 0.5, "percentile_at_least": 0.9}}
    }
    result = judged(MOVED, circuit=circuit, on_move=on_move)

    assert {only(result, claim).verdict for claim in ("at_least", "percentile")} == {Verdict.DRIFT}


def test_many_heads_that_have_risen_are_told_by_the_first():
    spread = carrying(spread=0.0, L1H2=0.01, L0H0=0.21, L0H2=0.22, L0H3=0.23, L1H0=0.24)
    (told,) = fates(judged(spread, reference=carrying(spread=0.0)))

    assert "; risen: L1H0 0.01 -> 0.24, L0H3 0.01 -> 0.23, L0H2 0.01 -> 0.22 and 1 more; all heads: " in told
    assert told.startswith("the role number_mover moved: ")


@pytest.mark.parametrize("on_move", MODES)
def test_a_lost_task_is_not_a_move(on_move):
    result = judged(carrying(L1H2=0.01, L1H3=0.8, seed=2), reference=carrying(spread=1.5, seed=3), on_move=on_move)

    assert only(result).verdict is Verdict.NOT_EVALUATED
    assert (fates(result), result.warnings) == ([], ())


def test_without_a_reference_nothing_is_said_of_a_move():
    result = judged(MOVED, reference=None, on_move="warn")

    assert only(result).verdict is Verdict.ERROR
    assert (fates(result), result.warnings) == ([], ())


def test_a_mass_that_the_instrument_cannot_tell_is_an_error_and_no_move():
    """A head's own share is told well enough; the sum of all eight is not."""
    result = judged(carrying(noise=0.04, L1H2=0.01, L1H3=0.80), reference=carrying(noise=0.04, seed=0), on_move="allow")

    assert only(result).verdict is Verdict.ERROR
    assert only(result).message.startswith("instrument: L1H2 number_mover 0.80 -> ")
    kept = judged(carrying(noise=0.04), reference=carrying(noise=0.04, seed=0), on_move="allow")
    assert only(kept).verdict is Verdict.PASS


def test_two_ways_to_hold_share_the_rate():
    """The fall's bound is inside its limit at the rate of 0.01, and not at half of it."""
    attention = np.tile([1.0, -1.0], PROMPTS // 2)
    error = np.sqrt(16 / 15 / PROMPTS)
    circuit = {"a": {"heads": ("L1H2",), "role": {"name": "attractor_tracker"}}}

    def looking(values):
        numbers = {head: {"attention": np.full(PROMPTS, 0.5)} for head in HEADS}
        return in_role(reading(), "attractor_tracker", **numbers | {"L1H2": {"attention": values}})

    falls = 1.0 - 2.5 * error  # t at 0.01 is 2.36, at 0.005 it is 2.62
    verdicts = [
        only(
            judged(
                looking(5.0 - falls + attention),
                reference=looking(np.full(PROMPTS, 5.0)),
                circuit=circuit,
                drift_at_most=1.0,
                on_move=on_move,
            )
        ).verdict
        for on_move in MODES
    ]

    assert verdicts == [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE]


# -- against the role --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_move", MODES)
def test_a_head_that_works_against_its_role_is_not_forgiven_whoever_took_it_over(on_move):
    reversed_ = carrying(spread=0.0, L1H2=-0.42, L1H3=0.85)
    result = judged(reversed_, reference=carrying(spread=0.0), on_move=on_move)
    told = "L1H2 works against the role (-0.42), which no other head makes up for"

    assert only(result).verdict is Verdict.DRIFT
    assert result.warnings == ()
    assert fates(result) == [
        "the role number_mover moved: L1H2 0.80 -> 0.00; risen: L1H3 0.01 -> 0.85; all heads: 1.01 -> 1.05, drift "
        f"+0.04 [+0.04, +0.04], limit 0.101; {told}."
    ]
    assert only(result).message == (
        "L1H2 number_mover 0.80 -> 0.00, drift -0.80 [-0.80, -0.80] (templates as a sample [-0.80, -0.80])"
        f" (share 0.80 -> -0.42, attention 0.95 -> 0.95){'' if on_move == 'fail' else f' ({told})'} is beyond its limit"
        " 0.1"
    )


@pytest.mark.parametrize(("share", "verdict"), [(-0.09, Verdict.PASS), (-0.11, Verdict.DRIFT)])
def test_how_far_below_zero_is_no_fluctuation_is_the_limit_on_the_fall(share, verdict):
    before, after = carrying(spread=0.0), carrying(spread=0.0, L1H2=share, L1H3=0.85)

    assert only(judged(after, reference=before, on_move="allow")).verdict is verdict


def test_a_head_against_the_role_lets_no_move_of_it_be_forgiven():
    before = carrying(spread=0.0, L0H1=0.5)
    result = judged(
        carrying(spread=0.0, L1H2=-0.42, L0H1=0.0, L1H3=0.9, L0H0=0.6), reference=before, circuit=BOTH, on_move="warn"
    )

    assert only(result).verdict is Verdict.DRIFT
    assert only(result, component="L0H1").verdict is Verdict.DRIFT
    assert "L1H2 works against the role (-0.42)" in only(result, component="L0H1").message
    assert result.warnings == ()
    assert any("L1H2 works against" in line for line in fates(result))


@pytest.mark.parametrize("on_move", MODES)
def test_a_head_that_worked_against_its_role_in_the_reference_has_not_fallen(on_move):
    before, after = carrying(spread=0.0, L1H2=-0.42), carrying(spread=0.0, L1H2=-0.6, L1H3=0.85)
    result = judged(after, reference=before, on_move=on_move)

    assert only(result).verdict is Verdict.PASS
    assert (fates(result), result.warnings) == ([], ())
    assert "works against" not in only(result).message


def test_an_undecided_fall_of_a_head_that_was_against_its_role_before_is_not_held_against_it():
    """The two readings are no more like each other than to the limit: whether it has fallen is not proven."""
    swing = np.tile([1.0, -1.0], PROMPTS // 2)

    def writing(**values):
        numbers = {head: np.full(PROMPTS, 10 * values.get(head, 0.0)) for head in HEADS}
        numbers["L1H2"] = numbers["L1H2"] + values["swing"] * swing
        whole = replace(reading(spread=0.0), clean_logit_diff=np.full(PROMPTS, 10.0))
        return in_role(whole, "backup_name_mover", **{head: {"backup": value} for head, value in numbers.items()})

    circuit = {"a": {"heads": ("L1H2",), "role": {"name": "backup_name_mover"}}}

    def message(share):
        now, before = writing(L1H2=-0.5, L1H3=0.8, swing=6), writing(L1H2=share, swing=0)
        return only(judged(now, reference=before, circuit=circuit, on_move="allow")).message

    assert "works against" not in message(-0.42)
    assert "(L1H2 works against the role (-0.50), which no other head makes up for)" in message(-0.05)


def test_a_task_may_be_worked_against_by_its_own_limit():
    """A mean bias may be negative: 'late' by more than a task's limit of 0.3, 'early' by less."""

    def biased(**tasks):
        return {task: np.full(40, value) for task, value in tasks.items()}

    def whole(**heads):
        numbers = dict.fromkeys(HEADS, biased(early=0.0, late=0.0)) | heads
        return in_role(reading(), "greater_than", **numbers)

    circuit = {"a": {"heads": ("L0H1",), "role": {"name": "greater_than"}}}
    before = whole(L0H1=biased(early=0.9, late=0.9))
    after = whole(L0H1=biased(early=-0.25, late=-0.35), L1H0=biased(early=0.95, late=0.95))
    result = judged(after, reference=before, circuit=circuit, on_move="allow")
    verdicts = {record.message.split(" 0.90 ")[0]: record.verdict for record in result.records}

    assert verdicts == {
        "L0H1 greater_than": Verdict.DRIFT,
        "L0H1 greater_than of 'early'": Verdict.PASS,
        "L0H1 greater_than of 'late'": Verdict.DRIFT,
    }
    assert "; L0H1 works against the role (-0.30), which no other head makes up for." in fates(result)[0]


# -- words -------------------------------------------------------------------------------------------------------------

COUNTER = {"counter": {"heads": ("L0H1",), "role": {"name": "successor"}}}
KNOWS = reading()


def knowing(**heads):
    return in_role(KNOWS, "successor", **{head: counted(tasks) for head, tasks in heads.items()})


def test_words_that_moved_are_forgiven_on_the_whole_and_task_by_task():
    moved = knowing(L0H1=OTHER_TASKS, L1H0=TASKS)
    failed, warned, allowed = (judged(moved, reference=KNOWS, circuit=COUNTER, on_move=mode) for mode in MODES)
    told = "L0H1 0.98 -> 0.03; risen: L1H0 0.03 -> 0.98; all heads: 1.21 -> 1.21, drift +0.00, limit 0.121."

    assert {record.verdict for record in failed.records} == {Verdict.DRIFT}
    assert fates(failed) == [f"the role successor moved: {told}"]
    assert warned.verdict is allowed.verdict is Verdict.PASS
    assert warned.warnings == (f"the role successor moved: {told}",)
    assert allowed.warnings == ()


def test_one_task_that_moved_is_told_by_its_name():
    moved = knowing(L0H1=TASKS | {"weekdays": (0, 7)}, L1H0=OTHER_TASKS | {"weekdays": (7, 7)})
    failed, warned = (judged(moved, reference=KNOWS, circuit=COUNTER, on_move=mode) for mode in ("fail", "warn"))
    told = (
        "the role successor of 'weekdays' moved: L0H1 1.00 -> 0.00; risen: L1H0 0.00 -> 1.00; all heads: 1.00 -> 1.00, "
        "drift +0.00, limit 0.3."
    )

    assert fates(failed) == [told]
    assert warned.verdict is Verdict.PASS
    assert warned.warnings == (told,)


@pytest.mark.parametrize("on_move", MODES)
def test_a_task_that_no_head_knows_any_more_cannot_hide_in_a_move(on_move):
    moved = knowing(L0H1=OTHER_TASKS, L1H0=TASKS | {"weekdays": (0, 7)})
    result = judged(moved, reference=KNOWS, circuit=COUNTER, on_move=on_move)
    of_task = [record for record in result.records if "'weekdays'" in record.message]

    assert [record.verdict for record in of_task] == [Verdict.DRIFT]
    assert "the role successor of 'weekdays' was lost: L0H1 1.00 -> 0.00; " in "\n".join(result.details) or (
        on_move == "fail"
    )


def test_other_roles_of_the_spec_are_judged_by_themselves():
    circuit = {**GROUP, **COUNTER}
    moved = in_role(MOVED, "successor", L0H1=counted(OTHER_TASKS))
    result = judged(moved, circuit=circuit, on_move="allow")

    assert only(result, component="L1H2").verdict is Verdict.PASS
    assert only(result, component="L0H1").verdict is Verdict.DRIFT
    assert [line.split(":")[0] for line in fates(result)] == ["the role successor was lost"]


def test_heads_that_fluctuate_take_nothing_over():
    """Three heads rise by less than a score may fall; spread lifts one or the other beyond that, in what is seen."""
    risen = {"L1H2": 0.62, "L0H0": 0.09, "L0H2": 0.09, "L1H0": 0.09}
    results = [
        judged(
            carrying(seed=seed, spread=0.2, **risen),
            reference=carrying(seed=100 + seed, spread=0.2),
            on_move="allow",
        )
        for seed in range(20)
    ]

    assert [result for result in results if result.verdict is Verdict.PASS] == []

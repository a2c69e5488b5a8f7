"""Shares and strengths of all heads, and how what became of them is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from imagined import HEADS, TEMPLATES, compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.records import Verdict

REFERENCE = reading()
FILE = spec_file({"heads": {}})


def judged(observed=None, reference=REFERENCE, *, file=FILE, **parts):
    return judge("heads", compared(observed or reading(seed=1, **parts), reference, file=file))


def verdicts(result, head, claim):
    return {record.verdict for record in result.records if (record.component, record.claim) == (head, claim)}


def words(result):
    """What is told last of each head that left its limits."""
    rows = [line for line in result.details if line.partition(" ")[0] in HEADS and "  limit " in line]
    return {line.split()[0]: line.rpartition("  ")[2] for line in rows}


def test_every_head_has_a_share_and_a_strength_and_named_ones_more():
    records = judged().records
    claims = {head: sorted(record.claim for record in records if record.component == head) for head in HEADS}

    everywhere, named = ["share", "strength"], ["keep", "share", "strength", *["template"] * 8]
    assert claims == {head: named if head in ("L0H1", "L1H2") else everywhere for head in HEADS}


def test_nothing_moved():
    result = judged()

    assert result.verdict is Verdict.PASS
    assert result.headline == "heads: all 8 heads are inside their limits (reference: builtin:imagined, 9.99 logits)"
    assert result.details == ()


MOVED = {"L1H2": 0.0, "L1H3": 0.8}


def test_a_move_is_told_as_a_move():
    exact = reading(spread=0.0)
    result = judged(reading(spread=0.0, shares=MOVED), exact)

    assert result.verdict is Verdict.DRIFT
    assert result.headline == "heads: 2 of 8 heads left their limits (reference: builtin:imagined, 10 logits)"
    assert result.details == (
        "L1H2  mover  share  0.80 -> 0.00  drift -0.80 [-0.80, -0.80]  limit 0.1  lost",
        "L1H3         share  0.01 -> 0.80  drift +0.79 [+0.79, +0.79]  limit 0.1  took over",
        "the role moved: L1H2 -> L1H3.",
        "behaviour is unchanged (accuracy 1.00 -> 1.00): the task is still solved, by other heads.",
    )


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        pytest.param({"shares": MOVED}, {"L1H2": "lost", "L1H3": "took over"}, id="a move"),
        pytest.param({"shares": {"L1H3": 0.4}}, {"L1H3": "joined"}, id="another head joins"),
        pytest.param({"shares": {"L1H2": 0.4}}, {"L1H2": "lost"}, id="a head is lost"),
        pytest.param({"effect": 0.6}, {"L1H2": "weaker"}, id="the same circuit, weaker"),
        pytest.param({"shares": {"L1H2": 0.5}, "effect": 1.6}, {"L1H2": "smaller part"}, id="share alone fallen"),
        pytest.param({"shares": {"L1H2": 1.0}, "effect": 0.8}, {"L1H2": "larger part"}, id="share alone risen"),
        pytest.param({"shares": {"L0H1": 0.06}}, {"L0H1": "lost"}, id="a small head fails by what it keeps"),
        pytest.param({"shares": {"L0H0": -0.3}}, {"L0H0": "turned against the task"}, id="a head turns"),
        pytest.param({"shares": {"L0H1": -0.16}}, {"L0H1": "turned against the task"}, id="a named head turns"),
        pytest.param(
            {"shares": {"L1H2": 0.3, "L0H0": -0.4}},
            {"L1H2": "lost", "L0H0": "turned against the task"},
            id="what turns against the task takes nothing over",
        ),
        pytest.param({"shares": {"L1H2": 0.55}}, {"L1H2": "smaller part"}, id="more than half is left"),
        pytest.param(
            {"shares": {"L1H2": 0.6, "L1H3": 0.4}},
            {"L1H2": "smaller part", "L1H3": "joined"},
            id="a head that kept more than half was not taken over from",
        ),
        pytest.param({"shares": {"L1H2": 0.0, "L0H0": 0.06}}, {"L1H2": "lost"}, id="a little is not taking over"),
        pytest.param(
            {"shares": {"L1H2": 0.4, "L0H1": 0.4}}, {"L1H2": "lost", "L0H1": "took over"}, id="to another named head"
        ),
    ],
)
def test_what_became_of_a_head_is_told_in_a_word(parts, told):
    result = judged(**parts)

    assert (result.verdict, words(result)) == (Verdict.DRIFT, told)


def test_a_negative_head_that_goes_idle_is_lost():
    result = judged(reading(seed=1), reading(shares={"L0H0": -0.5}))

    assert words(result) == {"L0H0": "lost"}


def test_a_head_that_turns_with_a_lost_task_is_told_by_its_strength():
    result = judged(effect=-0.6)

    assert words(result) == {"L1H2": "turned against the task"}
    assert verdicts(result, "L1H2", "share") == {Verdict.NOT_EVALUATED}


def test_a_negative_head_that_grows_has_not_turned():
    result = judged(reading(seed=1, shares={"L0H0": -0.8}), reading(shares={"L0H0": -0.5}))

    assert words(result) == {"L0H0": "joined"}


def test_what_worked_against_the_task_already_takes_nothing_over():
    result = judged(reading(seed=1, shares={"L0H0": -0.8, "L1H2": 0.1}), reading(shares={"L0H0": -0.5}))

    assert words(result) == {"L1H2": "lost", "L0H0": "joined"}


@pytest.mark.parametrize("before", [0.001, -0.001, 0.15, -0.15])
def test_an_effect_within_the_limit_cannot_fall_by_more_whatever_its_sign(before):
    """Towards zero: beyond it a head works the other way, which its share tells."""
    now = reading(seed=1, effect=4.0, shares={"L0H0": 0.06})
    result = judged(now, reading(shares={"L0H0": before}), file=spec_file({"heads": {"share_drift_at_most": 0.5}}))

    assert verdicts(result, "L0H0", "strength") == {Verdict.PASS}


@pytest.mark.parametrize(("share", "verdict"), [(0.5, Verdict.PASS), (0.25, Verdict.DRIFT)])
def test_a_negative_head_becomes_weaker_towards_zero(share, verdict):
    now, before = reading(seed=1, shares={"L0H0": -share}), reading(shares={"L0H0": -0.6})

    assert verdicts(judged(now, before), "L0H0", "strength") == {verdict}


def test_a_head_that_does_more_than_all_may_become_weaker_by_more():
    before, now = (reading(seed=seed, shares={"L1H2": share}) for seed, share in ((0, 2.0), (1, 1.7)))

    assert verdicts(judged(now, before), "L1H2", "strength") == {Verdict.PASS}
    negative, now = (reading(seed=seed, shares={"L1H2": share}) for seed, share in ((0, -2.0), (1, -1.7)))
    assert verdicts(judged(now, negative), "L1H2", "strength") == {Verdict.PASS}


def test_accuracy_that_fell_is_told_even_where_the_mean_effect_is_kept():
    r = reading(seed=1, shares=MOVED)
    half = np.where(np.arange(len(r.templates)) % 2, 1.0, -1.0)
    result = judged(replace(r, clean_logit_diff=half))

    assert result.details[-1].startswith(
        "accuracy has fallen (accuracy 1.00 -> 0.50), although the mean effect is kept"
    )


def test_a_head_whose_share_is_as_it_was_is_kept_whole_however_uncertain_it_is():
    uncertain = reading(spread=0.3, shares={"L0H1": 0.02})
    result = judge("heads", compared(uncertain, uncertain, file=FILE, identical=True))

    assert verdicts(result, "L0H1", "keep") == {Verdict.PASS}


def test_a_template_cannot_be_lost_within_a_wide_limit():
    wide = spec_file({"heads": {"share_drift_at_most": 0.4}})

    assert judged(moved_in("t4", -0.15), file=wide).verdict is Verdict.DRIFT


def test_kept_shares_and_fallen_strength_are_the_same_circuit_weaker():
    result = judged(effect=0.7)

    assert "same circuit, weaker: every share is kept, the effect of L1H2 has fallen." in result.details
    assert result.details[-1].startswith("behaviour has fallen (accuracy 1.00 -> 1.00): B 1.00 -> 0.70, drift -0.30 [")


def test_risen_strength_passes_as_the_same_circuit_stronger():
    result = judged(reading(spread=0.0, effect=1.5), reading(spread=0.0))

    assert result.verdict is Verdict.PASS
    assert result.details == ("same circuit, stronger: L1H2 0.80 -> 1.20.",)


def test_a_head_that_carries_more_than_all_may_move_by_more():
    before, now = (reading(seed=seed, shares={"L1H2": share}) for seed, share in ((0, 2.0), (1, 1.85)))

    assert verdicts(judged(now, before), "L1H2", "share") == {Verdict.PASS}
    assert next(r.limit for r in judged(now, before).records if r.component == "L1H2" and r.claim == "share") == (
        pytest.approx(0.2, abs=0.01)
    )


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.12, Verdict.PASS), (0.075, Verdict.INCONCLUSIVE), (0.04, Verdict.DRIFT)]
)
def test_a_named_head_keeps_half_of_its_share(share, verdict):
    assert verdicts(judged(shares={"L0H1": share}), "L0H1", "keep") == {verdict}


@pytest.mark.parametrize(("share", "verdict"), [(-0.12, Verdict.PASS), (-0.04, Verdict.DRIFT), (0.15, Verdict.DRIFT)])
def test_what_a_negative_head_keeps_is_counted_with_its_sign(share, verdict):
    result = judged(reading(seed=1, shares={"L0H1": share}), reading(shares={"L0H1": -0.15}))

    assert verdicts(result, "L0H1", "keep") == {verdict}


def test_what_is_kept_is_told_as_a_part():
    result = judged(reading(spread=0.0, shares={"L0H1": 0.03}), reading(spread=0.0))
    (record,) = (r for r in result.records if (r.component, r.claim) == ("L0H1", "keep"))

    assert (record.value, record.limit, record.drift, record.unit) == (pytest.approx(0.2), 0.5, None, "fraction")
    assert record.line == 36
    assert record.message.startswith("L0H1 kept part of its share 0.20 [0.20, 0.20] ")
    assert record.message.endswith(" is below its limit 0.5")


def test_a_share_of_nothing_cannot_be_kept():
    nothing = replace(REFERENCE, heads={**REFERENCE.heads, "L0H1": REFERENCE.clean})
    result = judged(REFERENCE, nothing)

    assert verdicts(result, "L0H1", "keep") == {Verdict.NOT_EVALUATED}


@pytest.mark.parametrize(
    ("claims", "limit"),
    [
        ({"heads": {}}, 0.2),
        ({"heads": {}, "behaviour": {"loss_at_most": 0.35}}, 0.35),
        ({"heads": {"weaker_at_most": 0.15}, "behaviour": {"loss_at_most": 0.35}}, 0.15),
    ],
)
def test_a_head_may_become_as_much_weaker_as_the_behaviour(claims, limit):
    records = judged(file=spec_file(claims)).records

    assert {record.limit for record in records if record.claim == "strength"} == {limit}


def moved_in(template, share):
    """The reference, whose head L1H2 carries another share in one template."""
    r = REFERENCE
    here = np.array(r.templates) == template
    without = np.where(here, r.clean - share * (r.clean - r.floor), r.heads["L1H2"])
    return replace(r, heads={**r.heads, "L1H2": without})


def test_a_head_that_is_broken_in_one_template_is_told_of_it():
    result = judged(moved_in("t4", 0.3))

    assert verdicts(result, "L1H2", "share") == {Verdict.PASS}
    assert result.headline.startswith("heads: 1 of 8 heads left their limits (")
    assert result.details[0].startswith("L1H2 share in template 't4' 0.80 -> 0.30, drift -0.50 [-0.5")
    assert result.details[0].endswith(" is beyond its limit 0.3")


def test_within_a_template_three_times_the_limit_is_allowed():
    assert judged(moved_in("t4", 0.6)).verdict is Verdict.PASS


def test_a_lost_task_leaves_strength_to_judge():
    result = judged(effect=0.1)

    assert {record.verdict for record in result.records if record.claim in ("share", "keep", "template")} == {
        Verdict.NOT_EVALUATED
    }
    assert verdicts(result, "L1H2", "strength") == {Verdict.DRIFT}
    assert verdicts(result, "L0H0", "strength") == {Verdict.PASS}
    assert result.details[0].endswith("  weaker")
    assert result.details[1].startswith("task lost: clean - floor is 0.10 [")
    assert result.details[-1].startswith("behaviour has fallen (accuracy 1.00 -> 0.")


def test_a_task_lost_in_one_template_leaves_the_others():
    r = reading(seed=1)
    floor = np.where(np.array(r.templates) == "t2", r.clean - 0.1, r.floor)
    result = judged(replace(r, floor=floor))

    lost = [record for record in result.records if record.verdict is Verdict.NOT_EVALUATED]
    assert {(record.component, record.claim) for record in lost} == {("L0H1", "template"), ("L1H2", "template")}
    assert all("task lost in template 't2'" in record.message for record in lost)
    assert result.heads["L1H2"].templates["t2"] is None
    assert result.heads["L1H2"].templates["t3"] == pytest.approx(0.8, abs=0.03)


def test_only_unevaluated_shares_are_told_so():
    result = judged(
        reading(seed=1, spread=1.5, shares={"L1H2": 0.8}), reading(), file=spec_file({"heads": {"weaker_at_most": 5.0}})
    )

    assert result.headline.startswith("heads: 8 of 8 heads have no share that means anything (")


def test_undecided_heads_say_what_would_decide():
    result = judged(reading(seed=1, spread=0.25), reading(spread=0.25))

    assert result.verdict is Verdict.INCONCLUSIVE
    assert " heads are undecided (" in result.headline
    assert any(line.startswith("L1H2 share") and " is not proven on either side " in line for line in result.details)
    assert result.details[-1].startswith("behaviour is unchanged (accuracy ")


def test_many_undecided_claims_are_cut_short():
    result = judged(reading(seed=1, spread=0.35), reading(spread=0.35))

    assert len(result.details) <= 12 + 4 + 2
    assert any(line.startswith("(+") and line.endswith(" more)") for line in result.details)


def test_a_coarse_instrument_judges_no_head():
    result = judged(replace(REFERENCE, noise=5.0))

    assert result.headline.startswith("heads: 8 of 8 heads could not be judged (")


def test_effects_of_all_heads_are_told_beside_the_references():
    exact = reading(spread=0.0)
    effects = judged(reading(spread=0.0, effect=0.5, shares={"L1H2": 0.9}), exact).heads

    assert tuple(effects) == HEADS
    named = effects["L1H2"]
    numbers = named.strength, named.share, named.reference_strength, named.reference_share
    assert numbers == pytest.approx((0.45, 0.9, 0.8, 0.8))
    assert named.templates == pytest.approx(dict.fromkeys(TEMPLATES, 0.9))


def test_shares_of_a_lost_task_are_none_and_not_zero():
    effects = judged(effect=0.1).heads["L1H2"]

    assert (effects.share, set(effects.templates.values())) == (None, {None})
    assert effects.strength == pytest.approx(0.08, abs=0.01)
    assert effects.reference_share == pytest.approx(0.8, abs=0.01)


def test_without_a_reference_effects_are_told_in_the_checkpoints_own_unit():
    result = judge("heads", compared(reading(spread=0.0, effect=0.5), None, file=FILE, missing="none stored"))
    head = result.heads["L1H2"]

    assert (result.verdict, result.headline) == (Verdict.ERROR, "heads: none stored (no reference)")
    assert (head.strength, head.share) == pytest.approx((0.8, 0.8))
    assert (head.reference_strength, head.reference_share) == (None, None)


def test_a_reference_without_any_effect_has_no_unit():
    nothing = replace(REFERENCE, floor=REFERENCE.clean)
    result = judged(REFERENCE, nothing)

    assert {record.verdict for record in result.records} == {Verdict.NOT_EVALUATED}
    assert result.heads["L1H2"].strength is None


def test_a_group_name_is_told_beside_its_head():
    group = {"agreement-movers": {"heads": ("L1.attn",)}}
    result = judged(shares=MOVED, file=spec_file({"heads": {}}, circuit=group))

    assert [line.split()[:2] for line in result.details[:2]] == [
        ["L1H2", "agreement-movers"],
        ["L1H3", "agreement-movers"],
    ]

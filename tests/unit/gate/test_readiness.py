"""What is refused as a reference, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from imagined import CHECKS, HEADS, counted, every_claim, in_role, reading, spec_file

from pytest_circuits.gate.effects import Effects
from pytest_circuits.gate.readiness import refusals, seen_by, warnings


def test_a_quiet_reference_is_taken():
    assert refusals(spec_file(), reading()) == ()


def claims_refused(texts):
    return [text.partition(" is too noisy")[0] for text in texts if "is too noisy" in text]


NARROW = {
    "behaviour": {"loss_at_most": 0.02},
    "faithfulness": {"drift_at_most": 0.02},
    "necessity": {"drift_at_most": 0.02},
    "heads": {"share_drift_at_most": 0.02, "weaker_at_most": 0.02},
    "roles": {"drift_at_most": 0.02},
}


def test_a_noisy_reference_is_refused_claim_by_claim():
    assert claims_refused(refusals(spec_file(NARROW), reading(spread=0.2))) == [
        "behaviour: loss",
        "faithfulness: drift",
        "necessity: drift",
        "heads: share",
        "heads: strength",
        "roles: drift",
    ]


@pytest.mark.parametrize("check", ["behaviour", "faithfulness", "necessity", "heads", "roles"])
def test_only_claims_of_the_spec_are_asked(check):
    texts = refusals(spec_file({check: NARROW[check]}), reading(spread=0.2))

    assert {claim.partition(":")[0] for claim in claims_refused(texts)} == {check}


def test_half_an_error_and_a_sixth_of_the_limit_are_the_bound():
    noisy = reading(spread=0.05)
    se = Effects(noisy).faithfulness.estimate.se
    bound = 0.5 * se / 0.17

    wide, narrow = ({"faithfulness": {"drift_at_most": bound * factor}} for factor in (1.001, 0.999))
    assert refusals(spec_file(wide), noisy) == ()
    assert len(refusals(spec_file(narrow), noisy)) == 1


def test_a_refusal_names_the_noisiest_part_and_how_many_prompts_would_do():
    noisy, limit = reading(spread=0.4), 0.02
    se = Effects(noisy).faithfulness.estimate.se
    (text,) = refusals(spec_file({"faithfulness": {"drift_at_most": limit}}), noisy)
    needed = math.ceil(128 * (0.5 * se / (0.17 * limit)) ** 2)

    assert text == (
        f"faithfulness: drift is too noisy to decide: F has a standard error of {se:.3g} on the reference, and 0.5 of"
        f" it exceeds 0.17 of the limit 0.02. About {needed} prompts would do, there are 128; or widen the limit."
    )


def test_a_single_noisy_template_is_named():
    r = reading()
    spread = np.where(np.array(r.templates) == "t5", np.random.default_rng(0).normal(0, 16, 128), 0)
    (text,) = refusals(spec_file({"behaviour": {}}), replace(r, corrupt=r.corrupt + spread))

    assert text.startswith("behaviour: loss is too noisy to decide: B in template 't5' has")


def test_a_named_head_whose_effect_is_not_seen_is_refused():
    texts = refusals(spec_file(), reading(shares={"L0H1": 0.0}))

    assert claims_refused(texts) == ["heads: keep"]
    assert [text[:45] for text in texts if "too noisy" not in text] == ["this prompt set cannot see L0H1: its effect -"]


def test_a_head_that_is_barely_seen_is_refused_because_half_of_it_could_not_be_told():
    r = reading(spread=0.1, shares={"L0H1": 0.025})
    share = Effects(r).share("L0H1")
    assert share.estimate.interval(0.01)[0] > 0

    assert claims_refused(refusals(spec_file({"heads": {}}), r)) == ["heads: keep"]


def test_a_head_that_is_not_named_need_not_be_seen():
    assert refusals(spec_file(), reading(shares={"L0H0": 0.0})) == ()


def test_a_reference_that_does_not_do_the_task_is_refused():
    whole, *templates = refusals(spec_file({"behaviour": {}}), reading(effect=-1.0))

    assert whole.startswith("the reference does not do the task: its clean - corrupt is -")
    assert len(templates) == 8


def test_a_template_in_which_the_reference_does_not_do_the_task_is_refused():
    r = reading()
    corrupt = np.where(np.array(r.templates) == "t5", r.clean, r.corrupt)
    (text,) = refusals(spec_file(), replace(r, corrupt=corrupt))

    assert text == "the reference does not do the task in template 't5': its clean - corrupt is 0."


def test_a_template_whose_effect_is_not_solid_enough_for_other_checkpoints_is_refused():
    """Ten standard errors are enough for a ratio; a benign checkpoint's may then be fewer."""
    r = reading(spread=0.0)
    here = np.array(r.templates) == "t5"
    effect = r.clean - r.floor + np.where(here, 10 * 4 / 11 * np.tile([1.0, -1.0], 64) * np.sqrt(15 / 16), 0.0)
    texts = refusals(spec_file({"heads": {"share_drift_at_most": 1.0}}), replace(r, floor=r.clean - effect))

    assert len(texts) == 1
    assert texts[0].startswith("no ratio in template 't5': clean - floor is 10 with standard error 0.91;")
    assert texts[0].endswith(" a ratio needs at least 12 times that")


def test_a_reference_without_effect_over_the_floor_is_refused():
    (text,) = refusals(spec_file({"faithfulness": {}}), reading(spread=1.5))

    assert text.startswith("no ratio: clean - floor is ")


def test_each_head_is_told_with_the_checks_that_see_its_loss():
    assert seen_by(spec_file(), reading()) == {"L0H1": ("heads", "roles"), "L1H2": CHECKS}


def test_a_head_of_middling_share_moves_behaviour_and_necessity_but_not_the_task():
    seen = seen_by(spec_file(), reading(shares={"L1H2": 0.5}, necessity=0.85))

    assert seen["L1H2"] == ("behaviour", "necessity", "heads", "roles")


def test_what_necessity_becomes_is_known_only_over_the_empty_floor():
    seen = seen_by(spec_file(ablation={"floor": "corrupt"}), reading(shares={"L1H2": 0.5}, necessity=0.85))

    assert "necessity" not in seen["L1H2"]


RANKED = reading(shares={head: 0.3 - 0.01 * at for at, head in enumerate(HEADS) if head not in ("L0H1", "L1H2")})
"""L1H2 has the largest effect, L0H1 the smallest, and no two have the same."""


def attributing(top, on_fall="fail", **limits):
    return spec_file({"heads": {}, "attribution": {"top": top, "on_fall": on_fall, **limits}})


def sees(file, r):
    """The heads whose loss the check `attribution` sees."""
    return [head for head, checks in seen_by(file, r).items() if "attribution" in checks]


def test_attribution_sees_a_head_that_is_missed_among_the_largest_where_a_fall_is_a_failure():
    any_order = {"spearman_at_least": 0.1}

    assert sees(attributing(1, **any_order), RANKED) == ["L1H2"]
    assert sees(attributing(2, **any_order), RANKED) == ["L1H2"]  # 1 of 3 are the same
    assert sees(attributing(3, **any_order), RANKED) == []  # 2 of 4
    assert sees(attributing(3, **any_order, jaccard_at_least=0.51), RANKED) == ["L1H2"]
    assert sees(attributing(1, on_fall="warn"), RANKED) == []


def test_attribution_sees_a_head_without_which_the_order_is_another():
    """L1H2 falls from the first rank to the last, and seven heads move up by one: 1 - 6 (49 + 7) / (8 63) = 0.33."""
    assert sees(attributing(4, jaccard_at_least=0.1, spearman_at_least=0.32), RANKED) == []
    assert sees(attributing(4, jaccard_at_least=0.1, spearman_at_least=0.34), RANKED) == ["L1H2"]


def test_attribution_sees_the_one_head_that_it_finds():
    file = attributing(4, jaccard_at_least=0.1, spearman_at_least=0.32)

    assert sees(file, replace(RANKED, noise=4.0)) == ["L1H2"]  # the others' effects are 1.5 to 3
    assert sees(file, replace(RANKED, noise=9.0)) == []


def test_the_digits_see_a_successor_and_no_other_head():
    assert {head: "successor" in checks for head, checks in seen_by(every_claim(), reading()).items()} == {
        "L0H1": True,
        "L1H2": False,
    }


OF_MLP = counted({"probe": (57, 60), "transfer": (36, 40), "coverage": (45, 60)})


@pytest.mark.parametrize(
    ("own", "limits", "is_seen"),
    [
        ({"edit months": (2, 50)}, {}, False),
        ({"edit months": (6, 50)}, {}, True),
        ({"edit months": (6, 50)}, {"drift_at_most": 0.2}, False),
        ({"edit months": (2, 50)}, {"edit_months_at_least": 0.02}, True),
        ({}, {"edit_at_least": 0.02}, True),
        ({}, {"greater_than_at_least": 0.02}, True),
        ({}, {"tasks_at_least": {"letters": 0.02}}, True),
        ({}, {"probe_at_least": 0.9, "transfer_at_least": 0.8, "coverage_at_least": 0.7}, False),
    ],
)
def test_what_the_first_mlp_makes_of_digits_stays_when_a_head_is_lost(own, limits, is_seen):
    r = replace(reading(), successor={"L0H1": {**OF_MLP, **counted(own)}})
    seen = seen_by(spec_file({"heads": {}, "successor": limits}), r)

    assert ("successor" in seen["L0H1"]) is is_seen


def test_attribution_and_digits_that_no_loss_moves_are_warned_of():
    r = replace(RANKED, successor={"L0H1": OF_MLP})
    claims = {"heads": {}, "successor": {}}
    told = "{} cannot fail by the loss of one head of the circuit: none moves it beyond its limits."
    mlp = "what the loss of L0.mlp would move is not measured."

    for on_fall, checks in (("fail", ["attribution", "successor"]), ("warn", ["successor"])):
        attribution = {"top": 4, "on_fall": on_fall, "spearman_at_least": 0.01, "jaccard_at_least": 0.01}
        file = spec_file({**claims, "attribution": attribution})
        assert warnings(file, r) == (*map(told.format, checks), mlp)


def test_claims_that_no_loss_moves_are_warned_of():
    quiet = reading(shares={"L1H2": 0.05, "L0H1": 0.05})
    loose = {"behaviour": {}, "necessity": {"drift_at_most": 0.5}, "heads": {}, "roles": {}}
    quiet = in_role(quiet, "successor", L0H1=counted({"letters": (1, 25)}))

    assert warnings(spec_file(loose), quiet) == (
        "behaviour cannot fail by the loss of one head of the circuit: none moves it beyond its limits.",
        "necessity cannot fail by the loss of one head of the circuit: none moves it beyond its limits.",
        "roles cannot fail by the loss of one head of the circuit: none moves it beyond its limits.",
        "what the loss of L0.mlp would move is not measured.",
    )


def test_without_the_heads_check_nothing_is_known_of_single_heads():
    file = spec_file({"behaviour": {}})

    assert seen_by(file, reading()) == {}
    assert warnings(file, reading()) == (
        "the spec does not claim `heads`, so it is not known which check would see the loss of a member.",
    )


def role_of_l1h2(name):
    """A spec whose only claim is on one role of L1H2."""
    return spec_file({"roles": {}}, circuit={"mover": {"heads": ("L1H2",), "role": {"name": name}}})


def test_a_role_that_is_too_noisy_on_repeated_sequences_says_how_many_of_them_would_do():
    values = np.tile([0.2, 0.8], 8)
    noisy = in_role(reading(), "induction", **{head: {"50 repeated tokens": values} for head in HEADS})
    se = values.std(ddof=1) / 4
    (text,) = refusals(role_of_l1h2("induction"), noisy)

    assert text == (
        f"roles: drift is too noisy to decide: L1H2 induction has a standard error of {se:.3g} on the reference, and"
        f" 0.5 of it exceeds 0.17 of the limit 0.1. About {math.ceil(16 * (0.5 * se / 0.017) ** 2)} repeated sequences"
        " would do, there are 16; or widen the limit."
    )


def test_a_role_that_divides_by_nothing_needs_no_effect():
    """Attention and weights mean the same whatever the task comes to; a share of no effect means nothing."""
    nothing = reading(spread=1.5)
    r = in_role(nothing, "induction", **{head: {"50 repeated tokens": np.ones(16)} for head in HEADS})

    for name in ("induction", "successor"):
        assert refusals(role_of_l1h2(name), r) == ()
    (text,) = refusals(role_of_l1h2("number_mover"), r)
    assert text.startswith("no ratio: clean - floor is ")


def test_attribution_and_digits_divide_by_nothing_either():
    file = spec_file({"attribution": {"top": 3}, "successor": {}})

    assert refusals(file, reading(spread=1.5)) == ()
    assert len(refusals(spec_file({"attribution": {"top": 3}, "necessity": {}}), reading(spread=1.5))) == 1


def test_a_stated_effect_needs_one():
    circuit = {"mover": {"heads": ("L1H2",), "role": {"name": "successor", "effect": "positive"}}}
    (text,) = refusals(spec_file({"roles": {}}, circuit=circuit), reading(spread=1.5))

    assert text.startswith("no ratio: clean - floor is ")


def test_a_role_that_is_a_part_of_the_logit_difference_needs_one():
    r = in_role(reading(), "name_mover", L1H2={"direct": np.ones(128), "attention": np.ones(128)})
    r = replace(r, clean_logit_diff=np.tile([1.0, -1.0], 64))
    (text,) = refusals(role_of_l1h2("name_mover"), r)

    assert text == (
        "the role name_mover has no score: the clean logit difference is 0 with standard error 0.091; a ratio needs at"
        " least 12 times that"
    )

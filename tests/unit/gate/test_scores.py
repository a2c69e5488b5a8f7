"""The scores of roles against loops over their numbers: the smallest factor after its sign, a rank, a sum."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from imagined import HEADS, counted, in_role, reading

from pytest_circuits.errors import MeasurementError
from pytest_circuits.gate.effects import Effects
from pytest_circuits.gate.scores import Scores, refuse_other_samples
from pytest_circuits.spec.roles import ROLES

RNG = np.random.default_rng(5)
READING = reading(spread=0.2, noise=0.01)
PROMPTS = len(READING.templates)


STORED = {"repeats": "50 repeated tokens"}
"""The factors that are stored under a name of another kind."""


def some(centre, spread=0.1, count=PROMPTS):
    return centre + spread * RNG.standard_normal(count)


def with_every_factor(key):
    """A reading in which every head has numbers of its own for what the role is made of."""
    kind = ROLES[key]
    numbers = {
        "repeats": lambda: some(RNG.uniform(0, 1), count=16),
        "attention": lambda: some(RNG.uniform(0, 1)),
        "direct": lambda: some(RNG.uniform(-9, 9)),
        "path": lambda: some(RNG.uniform(-9, 9)),
        "backup": lambda: some(RNG.uniform(-9, 9)),
    }
    if kind.from_weights:
        of_head = {head: {"a": RNG.uniform(-1, 1, 7), "b": RNG.uniform(-1, 1, 30)} for head in HEADS}
    else:
        of_head = {
            head: {STORED.get(name, name): numbers[name]() for name in kind.measured_of_prompts} for head in HEADS
        }
    shares = {head: RNG.uniform(-1, 1) for head in HEADS}
    return in_role(reading(spread=0.2, shares=shares), key, **of_head)


def naive_mean(values, templates):
    strata = {}
    for value, template in zip(values, templates, strict=True):
        strata.setdefault(template, []).append(float(value))
    return statistics.fmean(map(statistics.fmean, strata.values()))


def naive_score(r, key, head):
    return max(0.0, naive_smallest(r, key, head))


def naive_smallest(r, key, head):
    """The score as `spec.roles` tells it, number by number, before it is clipped."""
    kind, named = ROLES[key], r.roles[key][head]
    whole = naive_mean(r.clean - r.floor, r.templates)
    logits = naive_mean(r.clean_logit_diff, r.templates)
    found = []
    for factor in kind.factors:
        if factor == "share":
            found.append(kind.sign * naive_mean(r.clean - r.heads[head], r.templates) / whole)
        elif factor == "attention":
            found.append(naive_mean(named["attention"], r.templates))
        elif factor == "direct":
            found.append(kind.sign * naive_mean(named["direct"], r.templates) / logits)
        elif factor == "backup":
            found.append(naive_mean(named["backup"], r.templates) / logits)
        elif factor == "path":
            found.append(kind.sign * naive_mean(named["path"], r.templates) / whole)
        elif factor == "repeats":
            found.append(statistics.fmean(map(float, named[STORED["repeats"]])))
        else:
            found.append(statistics.fmean(float(value) for task in named.values() for value in task))
    return min(found)


@pytest.mark.parametrize("key", ROLES)
def test_the_score_of_every_role_is_the_smallest_of_what_it_is_made_of(key):
    r = with_every_factor(key)
    scores = Scores(Effects(r), key)

    for head in HEADS:
        assert scores.score(head).value == pytest.approx(naive_score(r, key, head)), head


@pytest.mark.parametrize("key", ROLES)
def test_rank_and_mass_are_over_every_head_of_the_model(key):
    r = with_every_factor(key)
    scores, naive = Scores(Effects(r), key), {head: naive_score(r, key, head) for head in HEADS}

    assert scores.heads == HEADS
    assert scores.mass().value == pytest.approx(sum(naive.values()))
    for head in HEADS:
        lower = sum(naive[other] < naive[head] for other in HEADS)
        assert scores.percentile(head) == pytest.approx(lower / (len(HEADS) - 1))


def test_the_mass_has_the_error_of_the_sum_and_not_the_sum_of_errors():
    """What one head has more of on a prompt another has less of: each is uncertain, both together are not."""
    swing = np.tile([0.2, -0.2], PROMPTS // 2)
    quiet = {head: {"attention": np.full(PROMPTS, 0.1)} for head in HEADS}
    r = in_role(READING, "attractor_tracker", **quiet)
    r = in_role(r, "attractor_tracker", L0H0={"attention": 0.5 + swing}, L0H1={"attention": 0.5 - swing})
    scores = Scores(Effects(r), "attractor_tracker")

    assert scores.score("L0H0").estimate.se > 0.01
    assert scores.mass().estimate.se == 0.0


def test_equal_scores_are_not_lower():
    r = in_role(READING, "induction", **{head: {STORED["repeats"]: np.ones(16)} for head in HEADS})

    assert {Scores(Effects(r), "induction").percentile(head) for head in HEADS} == {0.0}


def test_a_role_against_the_answer_has_its_effect_turned_and_its_attention_not():
    def negative(direct, attention):
        one = {"direct": np.full(PROMPTS, direct), "attention": np.full(PROMPTS, attention)}
        r = replace(reading(spread=0.0), clean_logit_diff=np.full(PROMPTS, 10.0))
        return Scores(Effects(in_role(r, "negative_mover", L0H0=one)), "negative_mover").score("L0H0").value

    assert negative(-4.0, 0.9) == pytest.approx(0.4)
    assert negative(4.0, 0.9) == 0.0
    assert negative(-4.0, 0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("share", "attention", "score"), [(0.8, 0.95, 0.8), (0.8, 0.3, 0.3), (0.01, 0.99, 0.01), (-0.2, 0.9, 0.0)]
)
def test_a_number_mover_scores_the_smaller_of_share_and_attention_and_never_below_zero(share, attention, score):
    r = reading(spread=0.0, shares={"L1H2": share})
    r = in_role(r, "number_mover", L1H2={"attention": np.full(PROMPTS, attention)})

    assert Scores(Effects(r), "number_mover").score("L1H2").value == pytest.approx(score)


@pytest.mark.parametrize("key", ROLES)
def test_before_it_is_clipped_a_score_is_the_smallest_factor_whatever_its_sign(key):
    r = with_every_factor(key)
    scores = Scores(Effects(r), key)
    signed = [scores.signed(head).value for head in HEADS]

    assert signed == pytest.approx([naive_smallest(r, key, head) for head in HEADS])
    assert [scores.score(head).value for head in HEADS] == [max(0.0, value) for value in signed]


def test_a_score_that_was_clipped_keeps_its_uncertainty():
    effects = Effects(reading(spread=0.1, shares={"L1H2": -0.2}))

    assert Scores(effects, "number_mover").score("L1H2").estimate.se == effects.share("L1H2").estimate.se > 0


def test_repeated_sequences_are_one_stratum_of_their_own():
    values = some(0.6, count=16)
    r = in_role(READING, "induction", L0H0={STORED["repeats"]: values})
    estimate = Scores(Effects(r), "induction").score("L0H0").estimate

    assert estimate.se == pytest.approx(values.std(ddof=1) / 4)
    assert estimate.df == pytest.approx(15)


def test_what_is_read_from_weights_is_exact_pooled_and_task_by_task():
    scores = Scores(Effects(READING), "successor")

    assert scores.score("L0H1").value == pytest.approx(89 / 91)
    assert scores.score("L0H1", "letters").value == pytest.approx(24 / 25)
    assert scores.mass("weekdays").value == 1.0
    assert scores.score("L0H1").estimate.se == 0.0
    assert scores.mass().estimate.half_width(0.01) == 0.0


@pytest.mark.parametrize(
    ("key", "noise"),
    [
        ("number_mover", True),
        ("backup_name_mover", True),
        ("induction_causal", True),
        ("attractor_tracker", False),
        ("induction", False),
        ("successor", False),
    ],
)
def test_scores_in_logits_and_parts_of_an_effect_have_the_noise_of_the_instrument(key, noise):
    r = replace(with_every_factor(key), noise=0.5)
    shares = np.array([Scores(Effects(r), key).score(head).noise for head in HEADS])

    assert (shares > 0).any() == noise


def test_a_role_without_parts_of_the_logit_difference_asks_nothing_of_it():
    r = replace(READING, clean_logit_diff=np.zeros(PROMPTS))

    assert Scores(Effects(r), "number_mover").no_ratio() is None
    assert Scores(Effects(r), "name_mover").no_ratio() == (
        "the clean logit difference is 0 with standard error 0; a ratio needs at least 10 times that"
    )


@pytest.mark.parametrize(("logits", "solid"), [(10.0, True), (0.1, False), (-10.0, False)])
def test_parts_of_the_logit_difference_need_one(logits, solid):
    r = replace(READING, clean_logit_diff=some(logits, spread=1.0))

    assert (Scores(Effects(r), "backup_name_mover").no_ratio() is None) == solid


WRONG = {
    "no role": (lambda r: replace(r, roles={}), "expected what the role 'number_mover' is made of, found none"),
    "no head": (
        lambda r: replace(r, roles={"number_mover": {}}),
        "number_mover: expected every head of the model, found none named L1H2",
    ),
    "no attention": (
        lambda r: in_role(r, "number_mover", L1H2={}),
        "L1H2 number_mover: expected numbers of 'attention', found none",
    ),
    "attention of fewer prompts": (
        lambda r: in_role(r, "number_mover", L1H2={"attention": np.ones(5)}),
        r"attention of L1H2: expected 128 values, one a prompt, found shape \(5,\)",
    ),
    "a NaN": (
        lambda r: in_role(r, "number_mover", L1H2={"attention": np.full(PROMPTS, np.nan)}),
        "'attention' of L1H2: expected finite values, found nan at place 0",
    ),
}


@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG.keys())
def test_what_was_not_measured_is_an_error(change, told):
    with pytest.raises(MeasurementError, match=told):
        Scores(Effects(change(READING)), "number_mover").score("L1H2")


@pytest.mark.parametrize("tasks", [{}, {"letters": np.array([])}])
def test_words_that_were_not_measured_are_an_error(tasks):
    with pytest.raises(MeasurementError, match="L0H1 successor: expected "):
        Scores(Effects(in_role(READING, "successor", L0H1=tasks)), "successor").score("L0H1")


def test_other_words_and_other_sequences_do_not_compare():
    one = Scores(Effects(in_role(READING, "successor", L0H1=counted({"letters": (2, 3), "days": (0, 7)}))), "successor")
    other = Scores(Effects(in_role(READING, "successor", L0H1=counted({"letters": (2, 4)}))), "successor")
    refuse_other_samples(one, one, "L0H1")

    with pytest.raises(MeasurementError) as refusal:
        refuse_other_samples(one, other, "L0H1")
    assert str(refusal.value) == (
        "L0H1 successor: expected the reference's 4 of 'letters'; found 7 of 'days', 3 of 'letters'.\n"
        "  Numbers of different words or sequences do not compare. Update the baseline with this tokenizer"
        " and context length."
    )


def test_repeated_sequences_of_another_length_do_not_compare():
    """As many sequences, and of the same score: only their name says that fewer tokens are repeated."""
    one, other = (
        Scores(Effects(in_role(READING, "induction", L0H0={f"{size} repeated tokens": np.ones(16)})), "induction")
        for size in (24, 50)
    )
    refuse_other_samples(other, other, "L0H0")

    with pytest.raises(MeasurementError) as refusal:
        refuse_other_samples(one, other, "L0H0")
    assert str(refusal.value) == (
        "L0H0 induction: expected the reference's 16 of '50 repeated tokens'; found 16 of '24 repeated tokens'.\n"
        "  Numbers of different words or sequences do not compare. Update the baseline with this tokenizer and context"
        " length."
    )
    assert one.score("L0H0").value == other.score("L0H0").value


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({}, "none"),
        ({"attention": np.ones(16)}, "none"),
        ({f"{size} repeated tokens": np.ones(16) for size in (24, 50)}, "'24 repeated tokens', '50 repeated tokens'"),
    ],
)
def test_sequences_of_no_or_of_several_lengths_have_no_score(named, found):
    scores = Scores(Effects(in_role(READING, "induction", L0H0=named)), "induction")

    with pytest.raises(MeasurementError) as refusal:
        scores.score("L0H0")
    assert str(refusal.value).startswith(
        f"L0H0 induction: expected numbers of repeated sequences of one length, found {found}.\n"
    )


def test_numbers_of_prompts_are_compared_by_the_prompts_themselves():
    scores = Scores(Effects(READING), "number_mover")

    assert scores.samples("L1H2") == {}

"""How often the gate errs, by simulation: as often as the spec declares and no more.

Every simulated checkpoint changes each template in its own way, because between templates is where checkpoints differ;
the templates are the suite's own and stay, and the prompts within them are drawn anew. A count of errors is held
against the exact binomial of the declared rate: by chance a test fails with probability 1e-4, and its seed is fixed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from imagined import CHECKS, HEADS, SHARES, compared, reading, spec_file

from pytest_circuits.checks import judge
from pytest_circuits.checks.faithfulness import not_further_from_one
from pytest_circuits.gate.decisions import decide
from pytest_circuits.gate.estimates import mean, ratio, strata_of
from pytest_circuits.gate.statements import AtMost, ShareAtLeast, Within
from pytest_circuits.records import Verdict

CHANCE = 1e-4
LIMIT = 0.1


def most(rate, runs):
    """The most errors that a rate explains."""
    return int(scipy.stats.binom.isf(CHANCE, runs, rate))


def fewest(rate, runs):
    """The fewest errors that a rate explains."""
    return int(scipy.stats.binom.ppf(CHANCE, runs, rate))


def suite(templates, each):
    return strata_of([f"t{number}" for number in range(templates) for _ in range(each)])


def interaction(random, strata, spread=0.3):
    """What a checkpoint changes in each template, beyond the mean over templates: it is the same for every redraw."""
    each = random.normal(0, spread, len(strata.names))
    return (each - each.mean())[strata.codes]


@pytest.mark.parametrize(("templates", "each"), [(2, 4), (8, 8), (16, 16)])
def test_the_interval_of_a_drift_misses_on_each_side_as_often_as_declared(templates, each):
    random, strata, runs, rate = np.random.default_rng(templates), suite(templates, each), 3000, 0.01
    change = 0.2 + interaction(random, strata)
    spread = np.linspace(0.5, 1.0, templates)[strata.codes]
    below = above = 0
    for _ in range(runs):
        low, high = mean(change + spread * random.standard_normal(len(change)), strata).estimate.interval(rate)
        below, above = below + (high < 0.2), above + (low > 0.2)

    assert fewest(rate, runs) <= below <= most(rate, runs)
    assert fewest(rate, runs) <= above <= most(rate, runs)


@pytest.mark.parametrize("each", [8, 32])
def test_the_interval_of_the_drift_of_a_ratio_misses_no_more_than_declared(each):
    random, strata, runs, rate = np.random.default_rng(each), suite(8, each), 2500, 0.01
    change, count, below, above = interaction(random, strata, 0.1), 8 * each, 0, 0
    for _ in range(runs):
        prompt = random.normal(0, 1, count)
        before, after = 10 + prompt + random.normal(0, 0.5, count), 8 + prompt + random.normal(0, 0.5, count)
        numerators = 0.9 * before + random.normal(0, 0.5, count), (0.7 + change) * 8 + 0.7 * (after - 8)
        drift = ratio(numerators[1], after, strata) - ratio(numerators[0], before, strata)
        low, high = drift.estimate.interval(rate)
        below, above = below + (high < -0.2), above + (low > -0.2)

    assert max(below, above) <= most(rate, runs)


def test_the_interval_over_templates_is_right_for_new_templates_and_the_suites_is_not():
    random, strata, runs, rate = np.random.default_rng(5), suite(12, 8), 2000, 0.02
    missed = {"templates": 0, "suite": 0}
    for _ in range(runs):
        drift = mean(random.normal(0, 0.3, 12)[strata.codes] + random.normal(0, 0.3, 96), strata)
        for name, (low, high) in (("templates", drift.over_templates(rate)), ("suite", drift.estimate.interval(rate))):
            missed[name] += not low <= 0 <= high

    assert fewest(2 * rate, runs) <= missed["templates"] <= most(2 * rate, runs)
    assert missed["suite"] > most(2 * rate, runs)


@pytest.mark.parametrize("claims", [1, 20])
def test_false_alarms_of_a_check_stay_at_its_rate_with_every_claim_at_its_limit(claims):
    random, strata, runs, alpha = np.random.default_rng(claims), suite(4, 8), 12_000 // claims, 0.02
    alarms = 0
    for _ in range(runs):
        drifts = LIMIT + random.normal(0, 0.1, (claims, 32))
        verdicts = decide([Within(mean(d, strata).estimate, LIMIT) for d in drifts], missed=0.01, alpha=alpha)
        alarms += Verdict.DRIFT in verdicts

    assert alarms <= most(alpha, runs)
    assert alarms >= fewest(alpha * 0.9, runs)


def test_false_alarms_of_a_whole_spec_stay_at_its_rate_with_its_claims_at_their_limits():
    """Loss, F, N, every share and the role score stand at their limits; all six checks are judged."""
    runs, rate, alarms = 600, 0.01, 0
    shares = {head: SHARES.get(head, 0.01) + (0.1 if index % 2 else -0.1) for index, head in enumerate(HEADS)}
    shares["L1H2"], shares["L0H1"] = 0.7, 0.15
    file = spec_file({name: {} for name in CHECKS} | {"heads": {"weaker_at_most": 0.8 - 0.7 * 0.8}})
    for seed in range(runs):
        before = reading(seed=2 * seed, per_template=8, spread=0.05, faithfulness=0.95, necessity=0.97)
        after = reading(
            seed=2 * seed + 1, per_template=8, spread=0.05, effect=0.8, shares=shares, faithfulness=0.85, necessity=0.87
        )
        verdicts = [judge(check, compared(after, before, file=file)).verdict for check in CHECKS]
        alarms += Verdict.DRIFT in verdicts

    assert alarms <= most(rate, runs)


@pytest.mark.parametrize("check", ["behaviour", "heads"])
def test_a_loss_of_the_same_amount_on_every_prompt_errs_no_more_than_declared(check):
    """Reference and checkpoint differ by a constant, so the unit alone is uncertain: that counts as well."""
    runs, rate, spread = 300, 0.01, 0.5
    claims = {"behaviour": {"behaviour": {"loss_at_most": 0.2}}, "heads": {"heads": {"weaker_at_most": 0.2}}}[check]
    file, name = spec_file(claims), {"behaviour": "loss", "heads": "strength"}[check]
    errors = {0.19: 0, 0.21: 0}
    for seed in range(runs):
        before = reading(seed=seed, spread=spread, shares={"L1H2": 1.0})
        for loss in errors:
            less = {"corrupt": before.corrupt + 11 * loss, "clean": before.clean}
            h = before.heads["L1H2"] + 10 * loss
            after = replace(before, **less, heads={**before.heads, "L1H2": h})
            records = judge(check, compared(after, before, file=file)).records
            (verdict,) = {r.verdict for r in records if r.claim == name and r.component in (None, "L1H2")}
            errors[loss] += verdict is (Verdict.DRIFT if loss < 0.2 else Verdict.PASS)

    assert max(errors.values()) <= most(rate, runs)


@pytest.mark.parametrize("kind", [AtMost, Within])
@pytest.mark.parametrize("error", [0.02, 0.05, 0.2])
def test_a_drift_at_its_limit_is_missed_no_more_than_declared(kind, error):
    random, strata, runs, rate = np.random.default_rng(7), suite(4, 4), 2000, 0.05
    change = LIMIT + interaction(random, strata)
    passed = sum(
        kind(mean(change + random.normal(0, 4 * error, 16), strata).estimate, LIMIT).inside(rate) for _ in range(runs)
    )

    assert passed <= most(rate, runs)
    if kind is AtMost:
        assert passed >= fewest(rate, runs)


@pytest.mark.parametrize(
    ("before", "after"),
    [(0.9, 0.8), (1.0, 0.9), (1.0, 1.1), (0.95, 1.15), (1.3, 0.9), (1.2, 1.3)],
)
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_faithfulness_at_its_limit_on_either_side_of_one_errs_no_more_than_declared(before, after, shared):
    """Both readings are uncertain, so the side of 1 on which an estimate lies is often not the true one."""
    random, strata, runs, rate = np.random.default_rng(11), suite(4, 8), 1200, 0.05
    change, own = interaction(random, strata, 0.05), np.sqrt(1 - shared**2)
    passed = alarms = 0
    for _ in range(runs):
        first, second = random.normal(0, 0.25, (2, 32))
        reference = mean(before + first, strata)
        observed = mean(after + change + shared * first + own * second, strata)
        statement = not_further_from_one(observed, reference, LIMIT)
        passed += statement.inside(rate)
        alarms += statement.p <= rate

    assert passed <= most(rate, runs)
    assert alarms <= most(rate, runs)


@pytest.mark.parametrize("shares", [(0.9,) * 8, (1.0, 0.8) * 4, (1.0,) * 7 + (0.2,)])
def test_an_accuracy_at_its_limit_errs_no_more_than_declared_whatever_its_templates(shares):
    random, runs, rate = np.random.default_rng(13), 4000, 0.05
    hits = sum(random.binomial(16, share, runs) for share in shares)
    statements = [ShareAtLeast(int(count), 128, 0.9) for count in hits]

    assert sum(statement.inside(rate) for statement in statements) <= most(rate, runs)
    assert sum(statement.p <= rate for statement in statements) <= most(rate, runs)


@pytest.mark.parametrize(("drift", "verdict"), [(0.0, Verdict.PASS), (0.03, Verdict.PASS), (0.2, Verdict.DRIFT)])
def test_what_is_far_from_its_limit_is_decided(drift, verdict):
    """With an error of a sixth of the limit and 20 claims: the rates above are not bought by never deciding."""
    random, strata, runs = np.random.default_rng(17), suite(8, 16), 60
    decided = 0
    for _ in range(runs):
        drifts = drift + random.normal(0, LIMIT / 6 * np.sqrt(128), (20, 128))
        verdicts = decide([Within(mean(d, strata).estimate, LIMIT) for d in drifts], missed=0.01, alpha=0.01)
        decided += verdicts.count(verdict)

    assert decided >= fewest(0.94, 20 * runs)

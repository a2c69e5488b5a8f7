"""Verdicts of single statements, Holm over several, and how many prompts would decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_circuits.gate.decisions import decide, holm, prompts_that_decide
from pytest_circuits.gate.estimates import Estimate
from pytest_circuits.gate.statements import AtMost, ShareAtLeast, Within
from pytest_circuits.records import Verdict


def naive_holm(p_values, alpha):
    """Reject the smallest p as long as it is at most alpha over the number of hypotheses that are left."""
    left, rejected = list(range(len(p_values))), set()
    while left:
        smallest = min(left, key=lambda index: p_values[index])
        if p_values[smallest] * len(left) > alpha:
            break
        rejected.add(smallest)
        left.remove(smallest)
    return [index in rejected for index in range(len(p_values))]


@given(st.lists(st.sampled_from([0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.01, 0.02, 0.5, 1.0]), max_size=12))
def test_holm_is_the_step_down_procedure(p_values):
    assert holm(p_values, 0.01) == naive_holm(p_values, 0.01)


def at(value, se=0.01, noise=0.0):
    return Within(Estimate(value, se, 60, noise), 0.1)


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        pytest.param(at(0.0), Verdict.PASS, id="proven inside"),
        pytest.param(at(0.09), Verdict.INCONCLUSIVE, id="near the limit, inside"),
        pytest.param(at(0.1), Verdict.INCONCLUSIVE, id="at the limit"),
        pytest.param(at(0.11), Verdict.INCONCLUSIVE, id="near the limit, beyond"),
        pytest.param(at(0.2), Verdict.DRIFT, id="proven beyond"),
        pytest.param(at(-0.2), Verdict.DRIFT, id="proven beyond, falling"),
        pytest.param(at(0.0, se=0.2), Verdict.INCONCLUSIVE, id="too few prompts"),
        pytest.param(at(0.0, se=0.0), Verdict.PASS, id="identical"),
        pytest.param(at(0.3, se=0.0), Verdict.DRIFT, id="no spread, beyond"),
        pytest.param(at(0.0, noise=0.0101), Verdict.ERROR, id="instrument too coarse"),
        pytest.param(at(5.0, noise=0.0101), Verdict.ERROR, id="instrument too coarse, though beyond"),
        pytest.param(None, Verdict.NOT_EVALUATED, id="nothing to state"),
        pytest.param(ShareAtLeast(128, 128, 0.9), Verdict.PASS, id="all right"),
        pytest.param(ShareAtLeast(90, 128, 0.9), Verdict.DRIFT, id="too many wrong"),
        pytest.param(ShareAtLeast(117, 128, 0.9), Verdict.INCONCLUSIVE, id="near the least share"),
    ],
)
def test_a_statement_alone_has_the_verdict(statement, verdict):
    assert decide([statement], missed=0.01, alpha=0.01) == [verdict]


def test_claims_of_a_check_share_its_rate_whatever_could_be_evaluated():
    borderline = at(0.126)
    assert 0.005 < borderline.p < 0.01

    assert decide([borderline], missed=0.01, alpha=0.01) == [Verdict.DRIFT]
    assert decide([borderline, at(0.0)], missed=0.01, alpha=0.01)[0] == Verdict.INCONCLUSIVE
    assert decide([borderline, None], missed=0.01, alpha=0.01)[0] == Verdict.INCONCLUSIVE


def test_the_rates_are_one_sided_and_not_swapped():
    statement = AtMost(Estimate(0.05, 0.0203, 60), 0.1)  # 2.46 standard errors inside: between the two rates

    assert decide([statement], missed=0.01, alpha=1e-6) == [Verdict.PASS]
    assert decide([statement], missed=0.005, alpha=0.4) == [Verdict.INCONCLUSIVE]


@pytest.mark.parametrize("value", [0.03, 0.17])
def test_the_number_of_prompts_is_the_first_that_decides(value):
    statement = at(value, se=0.03)
    needed = prompts_that_decide(statement, 100, missed=0.01, alpha=0.001)

    assert needed is not None
    undecided = [
        n
        for n in range(100, needed + 1)
        if decide([statement.at(n / 100)], missed=0.01, alpha=0.001)[0] is Verdict.INCONCLUSIVE
    ]
    assert undecided == list(range(100, needed))
    assert needed > 100


def test_near_the_limit_no_practical_number_decides():
    assert prompts_that_decide(at(0.085), 100, missed=0.01, alpha=0.001) is None


def test_where_the_noise_floor_hides_the_limit_no_number_decides():
    assert prompts_that_decide(at(0.094, se=0.001, noise=0.009), 100, missed=0.01, alpha=0.001) is None


def test_a_share_counts_prompts_exactly():
    assert prompts_that_decide(ShareAtLeast(20, 20, 0.9), 20, missed=0.01, alpha=0.01) == 44

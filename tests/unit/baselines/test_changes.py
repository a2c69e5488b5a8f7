"""What the summary of an update says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_circuits.baselines import Baseline, changes, keep
from pytest_circuits.records import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def simple(measured: Measured, baseline: Baseline) -> Measured:
    """Two templates of unequal size, so that a plain mean would differ from the mean of means."""
    ones = np.ones(4)
    return Measured(
        templates=("a", "a", "a", "b"),
        clean=np.array([2.0, 2.0, 2.0, 4.0]),
        corrupt=-ones,
        clean_logit_diff=ones,
        circuit=np.array([2.0, 2.0, 2.0, 3.0]),
        knockout=ones * 0.0,
        floor=ones,
        heads={"L0H0": np.array([2.0, 2.0, 2.0, 4.0]), "L2H0": ones},
        roles={},
        noise=0.0,
    )


def of(baseline: Baseline, measured: Measured) -> Baseline:
    return replace(baseline, measured=keep(measured, circuit="a"))


def test_a_first_baseline_says_what_it_holds(baseline: Baseline, simple: Measured) -> None:
    assert changes(None, of(baseline, simple)) == (
        "reference: tiny (fefefefefefe)",
        "identity: 1d1d1d1d1d1d",
        "prompts: 4 in 2 templates",
        "behaviour mean(c - x): 4",
        "whole effect mean(c - f): 2",
        "faithfulness: 0.75",
        "necessity: 1.50",
    )


def test_nothing_moved_says_nothing(baseline: Baseline, simple: Measured) -> None:
    dust = replace(simple, heads={**simple.heads, "L0H0": simple.clean + 1e-5})

    assert changes(of(baseline, simple), of(baseline, dust)) == ()


def test_what_moved_is_shown_before_and_after(baseline: Baseline, simple: Measured) -> None:
    after = replace(simple, corrupt=simple.corrupt - 1, heads={"L0H0": simple.floor, "L2H0": simple.clean})

    assert changes(of(baseline, simple), of(baseline, after)) == (
        "behaviour mean(c - x): 4 -> 5",
        "L0H0 share: 0.00 -> 1.00",
        "L2H0 share: 1.00 -> 0.00",
    )


def test_another_reference_and_another_spec_are_told(baseline: Baseline, simple: Measured) -> None:
    new = replace(
        of(baseline, simple), identity="2e" * 32, reference=replace(baseline.reference, name="tuned", fingerprint="ab")
    )

    assert changes(of(baseline, simple), new) == (
        "reference: tiny (fefefefefefe) -> tuned (ab)",
        "identity: 1d1d1d1d1d1d -> 2e2e2e2e2e2e",
    )


def test_parts_that_come_or_go_are_told_as_absent(baseline: Baseline, simple: Measured) -> None:
    small = replace(baseline, measured=keep(simple, circuit="a", parts=["corrupt"]))

    assert changes(small, of(baseline, simple)) == (
        "whole effect mean(c - f): absent -> 2",
        "faithfulness: absent -> 0.75",
        "necessity: absent -> 1.50",
        "L2H0 share: absent -> 1.00",
        "L0H0 share: absent -> 0.00",
    )


def test_many_heads_are_cut_to_those_that_moved_most(baseline: Baseline, simple: Measured) -> None:
    def with_heads(heads: Mapping[str, float]) -> Baseline:
        return of(baseline, replace(simple, heads={head: simple.clean - by for head, by in heads.items()}))

    names = [f"L0H{index}" for index in range(12)]

    lines = changes(
        with_heads(dict.fromkeys(names, 0.0)), with_heads({name: index * 0.1 for index, name in enumerate(names)})
    )

    assert lines[0] == "L0H11 share: 0.00 -> 0.55"
    assert lines[7] == "L0H4 share: 0.00 -> 0.20"
    assert lines[8:] == ("and 3 more heads, each by less",)


def test_an_effect_of_zero_gives_no_ratio(baseline: Baseline, simple: Measured) -> None:
    lines = changes(None, of(baseline, replace(simple, floor=simple.clean)))

    assert lines[-1] == "whole effect mean(c - f): 0"

"""Discovery: a known circuit is found edge by edge, halves do not overlap, and of nothing nothing is found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import hand_set
import numpy as np
import pytest
from hand_set import pairs_with_a_copy
from small_models import bound, random_module

from pytest_circuits.attribution.graph import wires_of
from pytest_circuits.attribution.search import smallest
from pytest_circuits.attribution.wiring import wired
from pytest_circuits.checks.discovery import FEWEST, _Edges, _Parts, _stability, halves_of
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import MeasurementError, PromptError
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.edges import parse_edge

if TYPE_CHECKING:
    from collections.abc import Sequence

BY_HAND = ("embed -> L0H0.v", "L0H0 -> L1H0.k", "L1H0 -> logits")
"""What the changed token passes through: the head before writes it down, the induction head looks for it, says it."""


@pytest.fixture(scope="module")
def runs() -> Runs:
    rows = pairs_with_a_copy("key", 12)
    return Runs(hand_set.induction_model(), rows, value="resample", metric="logit_diff")


def kept(half: _Edges | _Parts, circuits: Sequence[Sequence[int]]) -> list[float]:
    return [1 - abs(1 - f) for f in half.faithfulness(circuits)]


# -- a circuit that is known -------------------------------------------------------------------------------------------


def test_edges_that_were_set_by_hand_are_found_and_no_other(runs: Runs) -> None:
    half = _Edges(runs, "empty")
    order = [int(at) for at in np.argsort(-np.abs(half.scores().mean(-1)), kind="stable")]
    found = smallest(order, lambda circuits: kept(half, circuits), least=0.99)

    assert {half.names[at] for at in found.members} == set(BY_HAND)
    assert found.kept == pytest.approx(1, abs=1e-4)
    assert found.without == pytest.approx([0, 0, 0], abs=1e-4)


def test_where_the_order_is_the_worst_they_are_found_all_the_same(runs: Runs) -> None:
    half = _Edges(runs, "empty")
    order = [int(at) for at in np.argsort(np.abs(half.scores().mean(-1)), kind="stable")]
    found = smallest(order, lambda circuits: kept(half, circuits), least=0.99)

    assert {half.names[at] for at in found.members} == set(BY_HAND)


def test_attribution_ranks_them_above_all_others(runs: Runs) -> None:
    """AUROC: the share of pairs of an edge of the circuit and another in which the first has more."""
    half = _Edges(runs, "empty")
    sizes = dict(zip(half.names, np.abs(half.scores().mean(-1)), strict=True))
    mine, others = [sizes.pop(name) for name in BY_HAND], list(sizes.values())
    wins = [(one > other) + (one == other) / 2 for one in mine for other in others]

    assert len(others) == 99
    assert np.mean(wins) >= 0.95


def test_alone_they_are_all_and_without_any_one_of_them_nothing(runs: Runs) -> None:
    wires = wires_of(runs.model)
    edges = [parse_edge(name, 2) for name in BY_HAND]
    whole = wires.mask(edges)
    one_less = [whole & ~wires.mask([edge]) for edge in edges]
    alone, out, *less, nothing = wired(runs, [whole, wires.edges & ~whole, *one_less, np.zeros_like(whole)])

    np.testing.assert_allclose(alone, runs.clean, atol=1e-4)
    for other in (out, *less, nothing):
        np.testing.assert_allclose(other, runs.corrupt, atol=1e-4)


def test_heads_that_were_set_by_hand_are_found_and_no_other(runs: Runs) -> None:
    half = _Parts(runs, "empty")
    order = [int(at) for at in np.argsort(-np.abs(half.scores().mean(-1)), kind="stable")]
    found = smallest(order, lambda circuits: kept(half, circuits), least=0.99)

    assert {half.names[at] for at in found.members} == {"L0H0", "L1H0"}


# -- stability ---------------------------------------------------------------------------------------------------------


def test_a_member_that_half_of_the_prompts_do_not_show_is_told(runs: Runs) -> None:
    half = _Parts(runs, "empty")
    scores = np.zeros((len(half.names), len(runs.encoded)))
    scores[2], scores[5] = 1.0, 0.1
    scores[7] = np.where(
        np.arange(len(runs.encoded)) % 4 < 2, 0.6, -0.4
    )  # its mean is 0.1 as well, on halves it is not

    (always, sometimes), jaccard = _stability(scores, half, [2, 5])

    assert always == 20
    assert 0 < sometimes < 20
    assert 1 / 3 < jaccard < 1


def test_the_same_prompts_give_the_same_halves(runs: Runs) -> None:
    half = _Parts(runs, "empty")
    scores = np.random.default_rng(0).normal(size=(len(half.names), len(runs.encoded)))

    assert _stability(scores, half, [1, 2, 3]) == _stability(scores, half, [1, 2, 3])


# -- halves ------------------------------------------------------------------------------------------------------------


def some_pairs(count: int, templates: Sequence[str]) -> list[Pair]:
    return [Pair(f"clean {n}", f"corrupt {n}", "a", "b", templates[n % len(templates)]) for n in range(count)]


def test_every_other_template_is_kept_for_measuring() -> None:
    found, measured = halves_of(some_pairs(80, ["a", "b", "c", "d", "e"]))

    assert {pair.template for pair in found} == {"a", "c", "e"}
    assert {pair.template for pair in measured} == {"b", "d"}
    assert len(found) + len(measured) == 80


def test_one_template_is_divided_whatever_the_order_of_its_pairs() -> None:
    pairs = some_pairs(64, ["all"])
    found, measured = halves_of(pairs)
    again, _ = halves_of(pairs[::-1])

    assert len(found) == len(measured) == 32
    assert set(map(id, found)).isdisjoint(map(id, measured))
    assert {pair.clean for pair in again} == {pair.clean for pair in found} != {pair.clean for pair in pairs[::2]}


@pytest.mark.parametrize("templates", [["all"], ["a", "b", "c", "d"]])
def test_no_prompt_is_in_both_halves(templates: list[str]) -> None:
    """Clean prompts with two twins, mirrored pairs, and templates that share prompts stay on one side."""
    pairs = some_pairs(80, templates)
    pairs += [replace(pair, corrupt=f"other {at}") for at, pair in enumerate(pairs[:40])]
    pairs += [replace(pair, clean=pair.corrupt or "", corrupt=pair.clean, answer="x") for pair in pairs[:20]]
    shared = [replace(pair, template=templates[-1], foil="z") for pair in pairs[:1]]
    found, measured = halves_of([*pairs, *shared])

    assert len(found) + len(measured) == len(pairs) + 1
    assert {pair.clean for pair in found}.isdisjoint(pair.clean for pair in measured)
    assert {frozenset((pair.clean, pair.corrupt)) for pair in found}.isdisjoint(
        frozenset((pair.clean, pair.corrupt)) for pair in measured
    )
    again, _ = halves_of([*pairs, *shared][::-1]) if len(templates) == 1 else (found, measured)
    assert {pair.clean for pair in again} == {pair.clean for pair in found}


def test_templates_that_all_share_prompts_are_refused() -> None:
    pairs = some_pairs(80, ["a"])
    both = [*pairs, *(replace(pair, template="b", foil="z") for pair in pairs)]

    with pytest.raises(PromptError, match="the smaller half has 0; pairs and templates that share prompts stay"):
        halves_of(both)


def test_too_few_pairs_are_refused() -> None:
    assert halves_of(some_pairs(2 * FEWEST, ["all"]))
    with pytest.raises(
        PromptError, match="each of 16 pairs at least, and the smaller half has 15; (?s:.*)Give more pairs"
    ):
        halves_of(some_pairs(2 * FEWEST - 1, ["all"]))


# -- nothing to find ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [_Edges, _Parts])
def test_where_the_task_is_not_done_nothing_is_searched(kind: type[_Edges | _Parts]) -> None:
    model = bound(random_module("gpt2", layers=2, heads=4), "gpt2", layers=2, heads=4)
    rows = [replace(row, source=tuple(range(8))) for row in pairs_with_a_copy("key", 12)]
    half = kind(Runs(model, rows, value="resample", metric="logit_diff"), "empty")

    with pytest.raises(MeasurementError, match="(?s)keeps 'random''s clean - floor, which is .* Does the model do the"):
        half.refuse_no_task()


def test_a_floor_is_the_specs(runs: Runs) -> None:
    assert np.array_equal(_Edges(runs, "corrupt").floor, runs.corrupt)
    np.testing.assert_allclose(_Edges(runs, "empty").floor, runs.corrupt, atol=1e-4)

"""Random circuits: which are drawn, and that they are the same everywhere."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product
from math import comb

import pytest
import scipy.stats
from imagined import spec_file

from pytest_circuits.gate.controls import draw_circuits, random_circuits
from pytest_circuits.spec.components import Head


def heads(*names):
    return tuple(Head(layer, head) for layer, head in names)


OWN = heads((0, 1), (1, 0), (1, 3))


def test_few_possible_circuits_are_all_taken_layer_by_layer():
    drawn = random_circuits(OWN, layers=2, heads_per_layer=4, match="layer", seed=1)
    expected = {
        heads((0, first), *((1, head) for head in pair)) for first, pair in product(range(4), combinations(range(4), 2))
    } - {OWN}

    assert set(drawn.circuits) == expected
    assert (len(drawn.circuits), drawn.possible, drawn.exhaustive) == (23, 23, True)


def test_few_possible_circuits_are_all_taken_by_size():
    drawn = random_circuits(OWN, layers=2, heads_per_layer=4, match="size", seed=1)
    everything = heads(*product(range(2), range(4)))

    assert set(drawn.circuits) == set(combinations(everything, 3)) - {OWN}
    assert (drawn.possible, drawn.exhaustive) == (comb(8, 3) - 1, True)


@pytest.mark.parametrize(("size", "exhaustive"), [(1, True), (2, False)])
def test_the_bound_between_all_and_drawn_is_two_hundred(size, exhaustive):
    own = heads(*((0, head) for head in range(size)))
    drawn = random_circuits(own, layers=1, heads_per_layer=201, match="layer", seed=1)

    assert (drawn.exhaustive, len(drawn.circuits)) == (exhaustive, 200 if exhaustive else 100)


@pytest.mark.parametrize("match", ["layer", "size"])
def test_drawn_circuits_are_distinct_of_the_right_size_and_never_the_own(match):
    own = heads((0, 1), (2, 5), (2, 7))
    drawn = random_circuits(own, layers=3, heads_per_layer=12, match=match, seed=5)

    assert not drawn.exhaustive
    assert len(set(drawn.circuits)) == len(drawn.circuits) == 100
    assert own not in drawn.circuits
    for circuit in drawn.circuits:
        assert list(circuit) == sorted(set(circuit))
        assert len(circuit) == 3
        if match == "layer":
            assert Counter(head.layer for head in circuit) == {0: 1, 2: 2}


def test_a_circuit_drawn_as_the_own_is_drawn_again():
    """To find all 201 others takes about 1,200 draws, of which 6 are the own."""
    drawn = random_circuits(heads((0, 3)), layers=1, heads_per_layer=202, match="layer", seed=1, draws=201)

    assert set(drawn.circuits) == {(Head(0, head),) for head in range(202) if head != 3}


def test_astronomically_many_are_not_enumerated():
    own = heads(*((layer, 0) for layer in range(32)), *((layer, 1) for layer in range(32)))
    drawn = random_circuits(own, layers=32, heads_per_layer=32, match="layer", seed=1, draws=3)

    assert (drawn.possible, len(drawn.circuits)) == (comb(32, 2) ** 32 - 1, 3)


def test_the_same_seed_draws_the_same_and_another_seed_others():
    first, again, other = (
        random_circuits(OWN, layers=4, heads_per_layer=12, match="layer", seed=seed) for seed in (1, 1, 2)
    )

    assert first == again
    assert first.circuits != other.circuits


def test_the_draw_is_the_one_that_every_version_and_machine_makes():
    drawn = random_circuits(OWN, layers=2, heads_per_layer=30, match="layer", seed=1, draws=2)

    assert [" ".join(map(str, circuit)) for circuit in drawn.circuits] == PINNED


def test_every_head_is_as_likely_as_any_other():
    drawn = random_circuits(OWN, layers=2, heads_per_layer=40, match="layer", seed=3, draws=2000)
    counts = Counter(head for circuit in drawn.circuits for head in circuit if head.layer == 1)

    assert len(counts) == 40
    assert scipy.stats.chisquare([counts[Head(1, head)] for head in range(40)]).pvalue > 0.001


def test_a_circuit_without_heads_has_no_random_ones():
    drawn = random_circuits((), layers=2, heads_per_layer=4, match="layer", seed=1)

    assert (drawn.circuits, drawn.possible, drawn.exhaustive) == ((), 0, True)


def test_a_spec_draws_with_its_own_heads_match_and_seed():
    file = spec_file({"controls": {"match": "size"}})
    drawn = draw_circuits(file.spec, layers=6, heads_per_layer=12)

    assert drawn == random_circuits(file.spec.member_heads, layers=6, heads_per_layer=12, match="size", seed=7)


def test_prompts_from_a_file_draw_with_seed_one():
    file = spec_file({"controls": {}}, prompts={"file": "pairs.csv"})
    drawn = draw_circuits(file.spec, layers=6, heads_per_layer=30)

    assert drawn == random_circuits(file.spec.member_heads, layers=6, heads_per_layer=30, match="layer", seed=1)


def test_what_was_drawn_carries_over_to_what_was_measured():
    drawn = random_circuits(OWN, layers=2, heads_per_layer=4, match="layer", seed=1)
    measured = drawn.measured([0.5] * 23)

    assert (measured.faithfulness, measured.possible, measured.exhaustive) == ((0.5,) * 23, 23, True)


PINNED = ["L0H12 L1H2 L1H10", "L0H28 L1H9 L1H29"]

"""Patches that share a forward: they start in one layer, and a forward has no more rows than it may."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from pytest_circuits.engine.patches import Ablated, Group, plan
from pytest_circuits.spec.components import Head, KeyValue, Mlp

PARTS = st.builds(Head, st.integers(0, 5), st.integers(0, 3)) | st.builds(Mlp, st.integers(0, 5))
PATCHES = st.builds(Ablated, st.frozensets(PARTS, max_size=4), st.booleans())


def test_a_patch_begins_in_its_lowest_layer_and_the_embedding_below_all() -> None:
    assert Ablated(frozenset({Head(3, 1), Mlp(2), KeyValue(4, 0)})).layer == 2
    assert Ablated(frozenset({Head(3, 1)}), embedding=True).layer == 0
    assert Ablated(frozenset()).layer == 0


def test_all_heads_of_a_layer_share_a_forward_as_far_as_there_is_room() -> None:
    heads = [Ablated(frozenset({Head(layer, head)})) for layer in (1, 0) for head in range(3)]

    assert plan(heads, rows=8, limit=16) == [Group(0, (3, 4)), Group(0, (5,)), Group(1, (0, 1)), Group(1, (2,))]
    assert plan(heads, rows=8, limit=256) == [Group(0, (3, 4, 5)), Group(1, (0, 1, 2))]
    assert [len(group.patches) for group in plan(heads, rows=99, limit=16)] == [1] * 6  # a batch is never cut here


@given(st.lists(PATCHES, max_size=12), st.integers(1, 9), st.integers(1, 40))
def test_a_plan_runs_every_patch_once_from_its_own_layer_and_within_its_limit(
    request: list[Ablated], rows: int, limit: int
) -> None:
    groups = plan(request, rows=rows, limit=limit)

    assert sorted(chain.from_iterable(group.patches for group in groups)) == list(range(len(request)))
    assert all(request[number].layer == group.layer for group in groups for number in group.patches)
    assert all(len(group.patches) == 1 or len(group.patches) * rows <= limit for group in groups)

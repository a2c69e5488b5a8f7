"""The names of a model's parts, in all the spellings that are read."""

from __future__ import annotations

import pytest

from pytest_circuits.spec.components import Attention, Embedding, Head, KeyValue, Layer, Mlp, parse_component


@pytest.mark.parametrize(
    "text", ["L9H10", "l9h10", "a9.h10", "A9.10", "a9.10", "blocks.9.attn.hook_z[10]", "9.10", "L09H010"]
)
def test_every_spelling_of_a_head_is_read(text: str) -> None:
    assert parse_component(text) == Head(9, 10)


@pytest.mark.parametrize("text", ["L9.mlp", "m9", "M9", "MLP 9", "mlp9", "MLP9"])
def test_every_spelling_of_an_mlp_is_read(text: str) -> None:
    assert parse_component(text) == Mlp(9)


def test_all_heads_of_a_layer_a_whole_layer_and_the_embeddings_are_read() -> None:
    assert parse_component("L9.attn") == Attention(9)
    assert parse_component("L9") == Layer(9)
    assert parse_component("embed") == Embedding()


@pytest.mark.parametrize("text", ["L9H10", "L0.mlp", "L3.attn", "L7", "embed"])
def test_the_canonical_name_reads_back_as_itself(text: str) -> None:
    assert str(parse_component(text)) == text


@pytest.mark.parametrize(
    "text", ["", "L", "L9H", "9", "9:10", "9_10", "L9H10 ", "L9.head", "H9", "L-1H0", "L9H99999", "٩.10", "L9H1\n"]
)
def test_any_other_text_is_refused_with_the_forms_that_are_read(text: str) -> None:
    with pytest.raises(ValueError, match="names no part of a model; a head is written L9H10") as caught:
        parse_component(text)

    assert repr(text) in str(caught.value)


def test_a_key_value_head_is_no_query_head() -> None:
    assert parse_component("L9KV3") == parse_component("l9kv3") == KeyValue(9, 3)
    assert str(KeyValue(9, 3)) == "L9KV3"


def test_heads_sort_by_layer_and_number_and_not_as_text() -> None:
    assert sorted([Head(10, 0), Head(9, 10), Head(9, 2)]) == [Head(9, 2), Head(9, 10), Head(10, 0)]

"""Finding and filling the slots of a template."""

from __future__ import annotations

import pytest

from pytest_circuits.spec.slots import fill, slots_in


def test_slots_are_found_in_order_and_repeated_ones_repeated() -> None:
    assert slots_in("{b} and {a_1} and {b}") == ("b", "a_1", "b")


@pytest.mark.parametrize("text", ["a {", "a }", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{{a}}", "{1a}", "{a b}"])
def test_a_brace_that_belongs_to_no_slot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a brace here belongs to no slot"):
        slots_in(text)


def test_filling_says_where_every_word_stands() -> None:
    text, spans = fill("the {a} {b} the {a}", {"a": "key", "b": "is"})

    assert text == "the key is the key"
    assert spans == {"a": ((4, 7), (15, 18)), "b": ((8, 10),)}
    assert {slot: {text[start:end] for start, end in ranges} for slot, ranges in spans.items()} == {
        "a": {"key"},
        "b": {"is"},
    }


def test_a_word_with_braces_is_put_in_as_it_is() -> None:
    assert fill("the {a}", {"a": "{b.__class__}", "b": "no"})[0] == "the {b.__class__}"

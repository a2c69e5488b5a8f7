"""Pairs drawn from templates, against the naive listing of all of them."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from typing import TYPE_CHECKING

import pytest

from pytest_circuits.errors import PromptError, SpecError
from pytest_circuits.prompts import templates

if TYPE_CHECKING:
    from .conftest import Project

NOUNS = {"singular": ["dog", "author", "key", "lamp"], "plural": ["dogs", "authors", "keys", "lamps"]}
VERBS = {"singular": ["is", "was"], "plural": ["are", "were"]}
VOCABULARY = """\
  vocabulary:
    subject: {singular: [dog, author, key, lamp], plural: [dogs, authors, keys, lamps]}
    other: {singular: [dog, author, key, lamp], plural: [dogs, authors, keys, lamps]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind]
"""
NEAR = '{id: near, text: "the {subject} {near} the {other}", answer: "{verb}", flip: subject}'
PLAIN = '{id: plain, text: "the {subject}", answer: "{verb}", flip: subject}'


def prompts(*templates: str, rest: str = "") -> str:
    return VOCABULARY + f"  templates: [{', '.join(templates)}]\n{rest}"


def naive(seed: int) -> list[tuple[str, str, str, str]]:
    """Every pair of `NEAR`, ranked, without those that mirror a better one."""
    found = set()
    for clean, index, verb, near, other_class, other_index in product(
        NOUNS, range(4), range(2), range(2), NOUNS, range(4)
    ):
        corrupt = "plural" if clean == "singular" else "singular"
        word, twin = NOUNS[clean][index], NOUNS[corrupt][index]
        other, preposition = NOUNS[other_class][other_index], ["near", "behind"][near]
        if other not in (word, twin):
            texts = [f"the {it} {preposition} the {other}" for it in (word, twin)]
            found.add((*texts, VERBS[clean][verb], VERBS[corrupt][verb]))
    ranked = sorted(
        found,
        key=lambda it: hashlib.sha256(json.dumps([seed, "near", *it[:3]], separators=(",", ":")).encode()).hexdigest(),
    )
    kept: list[tuple[str, str, str, str]] = []
    for clean, corrupt, answer, foil in ranked:
        if (corrupt, clean, foil, answer) not in kept:
            kept.append((clean, corrupt, answer, foil))
    return kept


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("per_template", [8, 16, 96])
def test_pairs_are_the_first_of_the_ranked_listing(seed: int, per_template: int, project: Project) -> None:
    drawn = project.draw(prompts(NEAR, rest=f"  per_template: {per_template}\n  seed: {seed}\n"))

    assert [(it.clean, it.corrupt, it.answer, it.foil) for it in drawn.pairs] == naive(seed)[:per_template]
    assert drawn.notices == ()


def test_another_seed_draws_other_pairs(project: Project) -> None:
    first, second = (project.draw(prompts(NEAR, rest=f"  seed: {seed}\n")).pairs for seed in (1, 2))

    assert set(pair.clean for pair in first) != set(pair.clean for pair in second)


def test_what_is_drawn_does_not_depend_on_the_order_of_the_words_or_the_other_templates(project: Project) -> None:
    first = project.draw(prompts(NEAR)).pairs
    shuffled = prompts(PLAIN, NEAR).replace("[near, behind]", "[behind, near]")
    second = project.draw(
        shuffled.replace(
            "[dog, author, key, lamp], plural: [dogs, authors, keys, lamps]",
            "[key, lamp, dog, author], plural: [keys, lamps, dogs, authors]",
        )
    ).pairs

    assert [pair.clean for pair in first] == [pair.clean for pair in second if pair.template == "near"]


def test_more_pairs_begin_with_the_same_ones(project: Project) -> None:
    few, many = (project.draw(prompts(NEAR, rest=f"  per_template: {n}\n")).pairs for n in (8, 32))

    assert many[:8] == few


def test_templates_come_in_the_order_of_the_spec(project: Project) -> None:
    pairs = project.draw(prompts(PLAIN, NEAR, rest="  per_template: 8\n")).pairs

    assert [pair.template for pair in pairs] == ["plain"] * 8 + ["near"] * 8


def test_a_pair_says_what_stands_where(project: Project) -> None:
    for pair in project.draw(prompts(NEAR)).pairs:
        assert {slot: [pair.clean[start:end] for start, end in ranges] for slot, ranges in pair.spans.items()} == {
            slot: [word] for slot, word in pair.slots.items()
        }
        assert set(pair.slots) == {"subject", "near", "other"}
        assert pair.flip == "subject"


def test_no_other_slot_repeats_the_flipped_word_or_its_twin(project: Project) -> None:
    pairs = project.draw(prompts(NEAR, rest="  per_template: 96\n")).pairs

    assert len(pairs) == 96
    assert all(
        pair.corrupt is not None and len(set(text.split())) == len(text.split()) - 1
        for pair in pairs
        for text in (pair.clean, pair.corrupt)
    )


def test_a_mirrored_pair_counts_once(project: Project) -> None:
    pairs = project.draw(prompts(PLAIN, rest="  per_template: 8\n")).pairs

    assert len(pairs) == len({frozenset([(it.clean, it.answer), (it.corrupt, it.foil)]) for it in pairs}) == 8


def test_three_classes_give_every_pair_of_two(project: Project) -> None:
    text = prompts('{id: t, text: "{a}", answer: "{b}", flip: a}').replace(
        "  vocabulary:\n",
        "  vocabulary:\n    a: {x: [a1, a2, a3], y: [b1, b2, b3], z: [c1, c2, c3]}\n    b: {z: [Z], x: [X], y: [Y]}\n",
    )
    found = {frozenset([(it.clean, it.answer), (it.corrupt, it.foil)]) for it in project.draw(text).pairs}

    names = {"a": "X", "b": "Y", "c": "Z"}
    assert found == {
        frozenset([(f"{one}{n}", names[one]), (f"{two}{n}", names[two])])
        for one, two in ("ab", "ac", "bc")
        for n in (1, 2, 3)
    }


def test_a_slot_that_stands_twice_has_one_word_and_both_are_flipped(project: Project) -> None:
    pairs = project.draw(prompts('{id: t, text: "{subject} or {subject}", answer: "{verb}", flip: subject}')).pairs

    for pair in pairs:
        word = pair.slots["subject"]
        assert pair.clean == f"{word} or {word}"
        assert pair.corrupt is not None
        assert word not in pair.corrupt.split()
        assert pair.spans["subject"] == ((0, len(word)), (len(word) + 4, 2 * len(word) + 4))


def test_where_the_answer_is_the_flipped_slot_it_is_the_flipped_word_itself(project: Project) -> None:
    text = prompts('{id: t, text: "the {subject} {near} the", answer: " {subject}", flip: subject}')
    pairs = project.draw(text).pairs

    assert len(pairs) == 8
    assert all(
        f" {it.slots['subject']}" == it.answer and it.corrupt == f"the{it.foil}{it.clean[len('the' + it.answer) :]}"
        for it in pairs
    )


def test_too_few_pairs_are_an_error_that_names_every_template_and_its_count(project: Project) -> None:
    one = '{id: one, text: "a {few}", answer: "{few}", flip: few}'
    text = prompts(NEAR, one, PLAIN.replace("plain", "two").replace("{verb}", "{subject}"))
    with pytest.raises(PromptError) as caught:
        project.draw(text.replace("  vocabulary:\n", "  vocabulary:\n    few: {a: [x], b: [y]}\n"))

    why = "at least 8 are needed to know how much prompts vary; add words to its slots"
    assert str(caught.value) == (
        f"specs/a.circuit.yaml:11: template 'one' gives 1 distinct pair; {why}\n"
        f"specs/a.circuit.yaml:11: template 'two' gives 4 distinct pairs; {why}"
    )


def test_fewer_pairs_than_asked_for_are_told(project: Project) -> None:
    drawn = project.draw(prompts(PLAIN))

    assert len(drawn.pairs) == 8
    assert drawn.notices == (
        "specs/a.circuit.yaml:10: template 'plain' gives 8 distinct pairs, fewer than per_template: 16",
        "template 'plain': 8 pairs stand on 4 different prompts, so their values are not independent and their "
        "standard errors are too small; use more prompts",
    )


def test_pairs_on_enough_different_prompts_are_not_told_of(project: Project) -> None:
    text = prompts(PLAIN.replace("the {subject}", "the {subject} {near}"))

    assert project.draw(text).notices == ()


def large(words: int) -> str:
    """Prompts of four slots, each with so many words in each of two classes; a word and its twin end alike."""
    lists = [[f"{side}{slot}_{n}" for n in range(words)] for slot in range(4) for side in "ab"]
    slots = "".join(
        f"    s{n}: {{x: [{', '.join(lists[2 * n])}], y: [{', '.join(lists[2 * n + 1])}]}}\n" for n in range(4)
    )
    return (
        f"  vocabulary:\n{slots}"
        "  templates: [{id: t, text: '{s0} {s1} {s2}', answer: '{s3}', flip: s0}]\n  per_template: 64\n"
    )


def test_a_product_too_large_to_list_is_drawn_with_the_same_promises(project: Project) -> None:
    first, second = (project.draw(large(200)) for _ in range(2))

    assert first == second
    assert len({frozenset([(it.clean, it.answer), (it.corrupt, it.foil)]) for it in first.pairs}) == 64
    assert len({it.slots["s1"] for it in first.pairs}) > 40
    assert {it.answer[0] + it.slots["s0"][0] for it in first.pairs} == {"aa", "bb"}
    assert all(it.foil[1:] == it.answer[1:] and it.corrupt[1:] == it.clean[1:] for it in first.pairs if it.corrupt)


def test_a_large_product_calls_the_hash_no_more_often_than_it_draws(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        templates, "_digest", lambda *parts: calls.append(parts) or hashlib.sha256(repr(parts).encode()).digest()
    )
    project.draw(large(1000))

    assert 64 * 5 <= len(calls) <= 128 * 5


def test_the_seed_and_the_template_change_what_is_drawn_of_a_large_product(project: Project) -> None:
    cleans = [
        [pair.clean for pair in project.draw(text).pairs]
        for text in (large(200), large(200) + "  seed: 2\n", large(200).replace("id: t", "id: u"))
    ]

    assert cleans[0] != cleans[1]
    assert cleans[0] != cleans[2]


def test_a_large_product_of_which_little_is_allowed_ends(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "LARGEST_PRODUCT", 0)
    drawn = project.draw(prompts(PLAIN, rest="  per_template: 100\n"))

    assert len(drawn.pairs) == 8
    assert len(drawn.notices) == 2


@pytest.mark.parametrize("largest", [templates.LARGEST_PRODUCT, 0])
def test_the_order_of_a_vocabularys_classes_means_nothing(
    largest: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "LARGEST_PRODUCT", largest)
    text = prompts(NEAR)
    reordered = text
    for words in (NOUNS, VERBS):
        one, other = (f"{name}: [{', '.join(words[name])}]" for name in words)
        assert f"{{{one}, {other}}}" in text
        reordered = reordered.replace(f"{{{one}, {other}}}", f"{{{other}, {one}}}")
    first, second = project.load(text), project.load(reordered)

    assert reordered != text
    assert first.identity == second.identity
    assert project.draw(text).pairs == project.draw(reordered).pairs


@pytest.mark.parametrize("libyaml", [True, False])
def test_no_template_can_hold_half_of_a_surrogate_pair(
    libyaml: bool, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not libyaml:
        monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    template = '{id: t, text: "the {subject} \\ud800", answer: "{verb}", flip: subject}'
    for text in (prompts(template), prompts(PLAIN).replace("dogs, authors", '"\\ud800", authors')):
        with pytest.raises(SpecError):
            project.draw(text)

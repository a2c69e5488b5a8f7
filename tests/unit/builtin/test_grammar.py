from __future__ import annotations

import random

import pytest

from pytest_circuits.builtin import builtin_directory, builtin_names
from pytest_circuits.builtin.grammar import (
    AGREEMENT_TEMPLATES,
    MIX,
    PAIR_TEMPLATES,
    SEQUENCE_FORMATS,
    agreement_line,
    agreement_pairs,
    held_out_lines,
    induction_line,
    later_year_line,
    receiver_line,
    succession_pairs,
    training_lines,
)
from pytest_circuits.builtin.vocabulary import ENGLISH, LANGUAGES, SEQUENCES, SPECIALS, plain_words, vocabulary


def test_the_same_seed_gives_the_same_text() -> None:
    assert training_lines(random.Random(5), 50) == training_lines(random.Random(5), 50)
    assert training_lines(random.Random(5), 50) != training_lines(random.Random(6), 50)
    assert held_out_lines(5, 2) == held_out_lines(5, 2)
    assert agreement_pairs(5, 2) == agreement_pairs(5, 2)


def test_every_word_is_in_the_vocabulary_once() -> None:
    words = vocabulary()
    assert len(words) == len(set(words))
    assert words[:3] == SPECIALS
    known = set(plain_words())
    assert all(set(line.words) <= known for line in training_lines(random.Random(0), 500))


def test_the_languages_share_no_word() -> None:
    vocabularies = [set(language.words()) for language in LANGUAGES]
    assert sum(map(len, vocabularies)) == len(set().union(*vocabularies))


def test_training_text_holds_every_behaviour_and_nothing_held_out() -> None:
    lines = training_lines(random.Random(0), 600)
    assert {line.behaviour if line.behaviour in MIX else line.behaviour.split("-")[0] for line in lines} == set(MIX)
    assert not any(line.held_out for line in lines)


def test_held_out_lines_cover_every_behaviour_in_every_template() -> None:
    lines = held_out_lines(seed=0, per_template=3)
    assert all(line.held_out for line in lines)
    found = {(line.behaviour, line.template) for line in lines}
    assert {(f"agreement-{language.name}", name) for language in LANGUAGES for name in AGREEMENT_TEMPLATES} <= found
    assert {(f"succession-{sequence.kind}", name) for sequence in SEQUENCES for name in SEQUENCE_FORMATS} <= found


@pytest.mark.parametrize("template", AGREEMENT_TEMPLATES)
def test_the_verb_agrees_with_the_subject(template: str) -> None:
    singulars, plurals = ({forms[number] for forms in ENGLISH.nouns} for number in (0, 1))
    verbs = [{forms[number] for forms in ENGLISH.verbs} for number in (0, 1)]
    for seed in range(40):
        line = agreement_line(random.Random(seed), ENGLISH, template)
        subject = next(word for word in line.words if word in singulars | plurals)
        number = subject in plurals
        answer = line.answers[-1]
        assert line.words[answer.position] == answer.right[0]
        assert answer.right[0] in verbs[number]
        assert answer.wrong[0] in verbs[not number]


def test_attractors_take_either_number_whatever_the_subject_has() -> None:
    plurals = {forms[1] for forms in ENGLISH.nouns}
    lines = [agreement_line(random.Random(seed), ENGLISH, "phrase") for seed in range(60)]
    assert {(line.words[1] in plurals, line.words[4] in plurals) for line in lines} == {
        (subject, other) for subject in (False, True) for other in (False, True)
    }


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_agreement_pairs_differ_in_the_subject_alone(language: object) -> None:
    language = next(one for one in LANGUAGES if one is language)
    nouns = dict(language.nouns)
    pairs = agreement_pairs(1, 8, language)
    assert {pair.template for pair in pairs} == set(PAIR_TEMPLATES)
    for pair in pairs:
        clean, corrupt = pair.clean.split(), pair.corrupt.split()
        assert len(clean) == len(corrupt)
        changed = [words for words in zip(clean, corrupt, strict=True) if words[0] != words[1]]
        assert [tuple(sorted(words)) for words in changed] in [[tuple(sorted(forms))] for forms in nouns.items()]
        assert (pair.answer, pair.foil) in {*language.verbs, *((plural, single) for single, plural in language.verbs)}


def test_weekdays_and_months_wrap_and_the_others_end() -> None:
    sequences = {sequence.kind: sequence for sequence in SEQUENCES}
    assert sequences["weekdays"].run(5, 4) == ("saturday", "sunday", "monday", "tuesday")
    assert sequences["months"].successors()["december"] == "january"
    assert "twenty" not in sequences["number-words"].successors()
    with pytest.raises(IndexError):
        sequences["letters"].run(24, 3)


def test_succession_pairs_share_kind_format_and_length_but_not_the_start() -> None:
    successors = {sequence.kind: sequence.successors() for sequence in SEQUENCES}
    for pair in succession_pairs(seed=1, per_format=5):
        clean, corrupt = pair.clean.split(), pair.corrupt.split()
        following = successors[pair.behaviour.removeprefix("succession-")]
        assert len(clean) == len(corrupt)
        for words, end in ((clean, pair.answer), (corrupt, pair.foil)):
            members = [word for word in words if word in following]
            assert [*members[1:], end] == [following[member] for member in members]
        fixed = [word for word in clean if word not in following]
        assert fixed == [word for word in corrupt if word not in following]
        assert pair.answer != pair.foil


def test_a_repeated_block_asks_for_its_own_words() -> None:
    line = induction_line(random.Random(3))
    half = len(line.words) // 2
    assert line.words[:half] == line.words[half:]
    assert all(line.words[answer.position] == answer.right[0] != answer.wrong[0] for answer in line.answers)


def test_the_receiver_is_the_name_told_once() -> None:
    orders = set()
    for seed in range(20):
        line = receiver_line(random.Random(seed), "when-gave")
        answer = line.answers[0]
        prompt = line.prompt.split()
        assert prompt.count(answer.right[0]) == 1
        assert prompt.count(answer.wrong[0]) == 2
        orders.add(prompt.index(answer.right[0]) < prompt.index(answer.wrong[0]))
    assert orders == {False, True}


def test_later_years_are_right_and_all_others_wrong() -> None:
    line = later_year_line(random.Random(4))
    began, answer = line.words[5], line.answers[0]
    assert all(year > began for year in answer.right)
    assert all(year <= began for year in answer.wrong)
    assert line.words[answer.position] in answer.right


def test_builtin_checkpoints_are_found_by_name() -> None:
    for name in builtin_names():
        assert builtin_directory(name).name == name
    with pytest.raises(KeyError):
        builtin_directory("huge")

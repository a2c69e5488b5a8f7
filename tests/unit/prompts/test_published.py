"""Prompt files of other tools: told by their columns, and every choice and refusal said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_circuits.errors import PromptError
from pytest_circuits.prompts.encode import encode
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.schema import Ablation, Tokens

from .conftest import word_tokenizer

if TYPE_CHECKING:
    from .conftest import Project


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def document(rows: list[dict[str, Any]], **more: Any) -> str:
    return json.dumps({**more, "prompts": rows}, indent=2)


# -- EAP-IG ------------------------------------------------------------------------------------------------------------

YEARS = [f"it ran from the year 17{year:02} to the year 17" for year in range(2, 99)]


def greater_than(*labels: str, header: str = "clean,corrupted,label") -> str:
    rows = [f"it ran from the year 17{int(label):02} to 17,it ran from the year 1701 to 17,{label}" for label in labels]
    return "\n".join([header, *rows]) + "\n"


ALL = tuple(map(str, range(2, 99)))


def test_a_label_is_a_year_between_the_answer_and_the_foil(project: Project) -> None:
    found = project.file(greater_than(*ALL))

    assert len(found.pairs) == 97
    assert found.pairs[0] == Pair(
        "it ran from the year 1702 to 17", "it ran from the year 1701 to 17", "03", "01", "all", join=""
    )
    assert [(pair.answer, pair.foil) for pair in found.pairs] == [(f"{n + 1:02}", f"{n - 1:02}") for n in range(2, 99)]
    assert found.notices[0] == (
        "specs/p.csv: read as a file of EAP-IG, greater-than: the answer is the year after its label and the foil the "
        "year before, and nothing stands between them and the prompt; EAP-IG's own metric adds up all later and all "
        "earlier years, so its numbers differ"
    )


@pytest.mark.parametrize(
    ("label", "year", "message"),
    [
        ("99", "99", "no two digits are above 99, so this row has no pair; leave it out"),
        ("0", "00", "no two digits are below 00, so this row has no pair; leave it out"),
        ("52", "53", "'label' must be the last two digits of a year in 'clean', and no year there ends in 52"),
        ("152", "52", "'label' must be the last two digits of a year, found '152'"),
        ("x", "52", "'label' must be the last two digits of a year, found 'x'"),
    ],
)
def test_a_label_without_a_year_on_either_side_is_refused(
    label: str, year: str, message: str, project: Project
) -> None:
    row = f"it ran from the year 17{year} to 17,it ran from the year 1701 to 17,{label}\n"

    assert project.problems(greater_than(*ALL) + row) == [f"specs/p.csv:99: {message}"]


def test_a_column_of_row_numbers_is_passed_over_and_others_are_not(project: Project) -> None:
    text = greater_than(*ALL, header="clean,corrupted,label,").replace("\n", ",7\n").replace(",,7\n", ",\n", 1)
    assert len(project.file(text).pairs) == 97

    text = greater_than(*ALL[:1], header="clean,corrupted,label,kind").rstrip() + ",x\n"
    assert project.problems(text) == [
        "specs/p.csv:2: unknown column 'kind'; known in a file of EAP-IG, greater-than: clean, corrupted, label"
    ]


def test_token_ids_are_refused_with_what_to_write(project: Project) -> None:
    assert project.problems(",clean,corrupted,correct_idx,incorrect_idx\n0,a b,a c,11,12\n") == [
        "specs/p.csv:1: correct_idx and incorrect_idx are token ids of one tokenizer, which the file does not name; "
        "another would read other words out of them, and nobody would see it. Write the columns answer and foil in "
        "their place, with the text of each id: tokenizer.decode([id])"
    ]


# -- feature-circuits --------------------------------------------------------------------------------------------------

AGREEMENT = [
    {
        "clean_prefix": f"the key {n}",
        "patch_prefix": f"the keys {n}",
        "clean_answer": " is",
        "patch_answer": " are",
        "case": "ab"[n % 2],
    }
    for n in range(16)
]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_prefixes_and_answers_are_pairs_and_cases_are_templates(name: str, project: Project) -> None:
    found = project.file(lines(AGREEMENT), name)

    assert found.pairs[1] == Pair("the key 1", "the keys 1", " is", " are", "b", join="")
    assert (len(found.pairs), found.notices) == (16, ())


def test_what_is_wrong_is_told_by_the_names_of_the_file(project: Project) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in AGREEMENT]
    del rows[0]["patch_answer"]
    rows[1]["clean_answer"] = 7
    rows[2]["patch_prefix"] = rows[2]["clean_prefix"]
    rows[3]["note"] = "x"
    rows[4]["clean_prefix"] = " "

    assert project.problems(lines(rows), "p.json") == [
        "specs/p.json:1: the column 'patch_answer' is missing",
        "specs/p.json:2: 'clean_answer' must be a text, found 7; write it in quotes",
        "specs/p.json:3: 'clean_prefix' and 'patch_prefix' are the same, so nothing would differ",
        "specs/p.json:4: unknown column 'note'; known in a file of feature-circuits: clean_prefix, patch_prefix, "
        "clean_answer, patch_answer, case",
        "specs/p.json:5: 'clean_prefix' is empty",
    ]


# -- auto-circuit ------------------------------------------------------------------------------------------------------

MANY = [
    {"clean": f"\na {n}", "corrupt": f"\nb {n}", "answers": [" x"], "wrong_answers": [" y", " z"][: 1 + n % 2]}
    for n in range(64)
]


def test_the_first_answers_are_taken_and_the_others_counted(project: Project) -> None:
    found = project.file(document(MANY, seq_labels=["a"], word_idxs={"IO": 2}), "p.json")

    assert found.pairs[1] == Pair("\na 1", "\nb 1", " x", " y", "all", join="")
    assert found.notices[0] == (
        "specs/p.json: read as a file of auto-circuit: 32 of 64 rows have several answers or wrong answers, of which "
        "the first is taken: one answer is compared with one foil"
    )


def test_one_answer_each_needs_no_notice(project: Project) -> None:
    rows = [{**row, "wrong_answers": [" y"]} for row in MANY]

    assert project.file(document(rows), "p.json").notices == (
        "specs/p.json: no column `template`, so all 64 pairs are one stratum",
    )


def test_each_prompt_is_told_by_its_line_in_the_document(project: Project) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in MANY]
    rows[0]["clean"] = 'a "prompts": [{} \\" text'
    rows[1]["answers"] = []
    rows[2]["clean"] = [1, 2]
    del rows[3]["wrong_answers"]
    text = json.dumps({"more": {"prompts": [{"a": 1}]}, "prompts": rows}, indent=1)
    line = [number for number, written in enumerate(text.split("\n"), start=1) if written == "  {"]

    assert project.problems(text, "p.json") == [
        f"specs/p.json:{line[1]}: 'answers' must be a list of texts, found []",
        f"specs/p.json:{line[2]}: 'clean' must be a text, found [1, 2]; write it in quotes",
        f"specs/p.json:{line[3]}: 'wrong_answers' must be a list of texts, found None",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompts": [1]}', """1: expected {"prompts": [{"clean": ..., "answers": [...]}]}, or an object in each"""),
        ('{"prompts": {}}', """1: expected {"prompts": [{"clean": ..., "answers": [...]}]}, or an object in each"""),
        ("[]", """1: expected {"prompts": [{"clean": ..., "answers": [...]}]}, or an object in each line"""),
        ('{\n"prompts": [\n{"clean": }]}', "3: this is not JSON: Expecting value"),
        ('{"a": 1, "a": 2}', "1: this is not JSON: a key is given twice: a, a"),
        ("[" * 100_000, "1: this is not a file of prompts: it is nested too deep"),
        ('{"clean": "a"}\nx', "2: this is not JSON: Expecting value"),
    ],
)
def test_what_is_no_file_of_prompts_is_refused(text: str, message: str, project: Project) -> None:
    assert project.problems(text, "p.json")[0].startswith(f"specs/p.json:{message}")


# -- MIB ---------------------------------------------------------------------------------------------------------------


def ioi(n: int) -> dict[str, Any]:
    return {
        "prompt": f"when A and B met {n}, A gave it to",
        "choices": ["B", "A"],
        "answerKey": 0,
        "metadata": {"indirect_object": "B", "subject": "A", "random_c": "C"},
        "abc_counterfactual": {"prompt": "x"},
        "s2_io_flip_counterfactual": {"prompt": f"when A and B met {n}, B gave it to", "choices": ["A", "B"]},
    }


def choice(n: int) -> dict[str, Any]:
    return {
        "prompt": f"{n}: which? A. red B. blue",
        "choices": {"label": ["A", "B"], "text": ["red", "blue"]},
        "answerKey": 1,
        "symbol_counterfactual": {
            "prompt": f"{n}: which? C. red D. blue",
            "choices": {"label": ["C", "D"], "text": ["red", "blue"]},
            "answerKey": 1,
        },
    }


def arithmetic(n: int) -> dict[str, Any]:
    return {
        "prompt": f"{n} + 5 =",
        "label": n + 5,
        "operator": "+",
        "random_counterfactual": {"prompt": f"{n} + 7 =", "label": n + 7},
    }


@pytest.mark.parametrize(
    ("row", "expected", "notice"),
    [
        (
            ioi,
            Pair("when A and B met 3, A gave it to", "when A and B met 3, B gave it to", "B", "A", "all"),
            "MIB, ioi: the twin is s2_io_flip_counterfactual, the answer metadata.indirect_object, the foil "
            "metadata.subject",
        ),
        (
            choice,
            Pair("3: which? A. red B. blue", "3: which? C. red D. blue", "B", "D", "all"),
            "MIB, multiple choice: the twin is symbol_counterfactual, the answer the right label, the foil the right "
            "label of the twin",
        ),
        (
            arithmetic,
            Pair("3 + 5 =", "3 + 7 =", "8", "10", "all"),
            "MIB, arithmetic: the twin is random_counterfactual, the answer label, the foil "
            "random_counterfactual.label",
        ),
    ],
)
def test_rows_of_mib_are_pairs(row: Any, expected: Pair, notice: str, project: Project) -> None:
    found = project.file(lines([row(n) for n in range(64)]), "p.jsonl")

    assert found.pairs[3] == expected
    assert found.notices[0] == f"specs/p.jsonl: read as a file of {notice}"


def test_what_a_row_of_mib_lacks_is_told_by_its_path(project: Project) -> None:
    rows = [ioi(0), ioi(1), choice(2)]
    del rows[0]["metadata"]["subject"]
    rows[1]["s2_io_flip_counterfactual"] = None

    assert project.problems(lines(rows[:2]), "p.jsonl") == [
        "specs/p.jsonl:1: 'metadata.subject' is missing",
        "specs/p.jsonl:2: 's2_io_flip_counterfactual' is missing",
    ]
    rows[2]["symbol_counterfactual"]["answerKey"] = 2
    assert project.problems(lines(rows[2:]), "p.jsonl") == [
        "specs/p.jsonl:1: 'symbol_counterfactual.answerKey' must be the place of the right one among choices.label, "
        "found 2"
    ]


# -- tokens ------------------------------------------------------------------------------------------------------------


def pair(answer: str, join: str | None) -> Pair:
    return Pair("the key", "the keys", answer, "are" if join is None else " are", "all", join=join)


def test_an_answer_of_two_tokens_is_refused_as_its_file_has_it() -> None:
    with pytest.raises(PromptError) as caught:
        encode([pair(" is it", "")], word_tokenizer(), Tokens(), Ablation())

    assert str(caught.value) == (
        "1 answers are not a single token right after their prompt, with nothing between the two, as their file has "
        "them: ' is it'; only then one logit tells an answer; leave their rows out, or use others"
    )


def test_what_a_file_joins_is_not_joined_otherwise() -> None:
    (own,) = encode([pair("is", None)], word_tokenizer(), Tokens(), Ablation())
    (other,) = encode([pair(" is", "")], word_tokenizer(), Tokens(join="x"), Ablation())

    assert (own.answer, own.foil) == (other.answer, other.foil)
    with pytest.raises(PromptError, match="as their file has them: 'is'"):  # `keysis` is another word
        encode([pair("is", "")], word_tokenizer(), Tokens(), Ablation())

"""Pairs read from files, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_circuits.errors import PromptError
from pytest_circuits.prompts import files
from pytest_circuits.prompts.files import look_at_pairs
from pytest_circuits.prompts.pair import Pair, PromptSet

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Project

ZERO = "ablation: {value: zero}"
ROWS = [
    {"clean": f"the key {n}", "corrupt": f"the keys {n}", "answer": "is", "foil": "are", "template": "ab"[n % 2]}
    for n in range(64)
]


def as_csv(rows: list[dict[str, str]]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"


def as_jsonl(rows: list[dict[str, str]]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


def without(column: str) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != column} for row in ROWS]


@pytest.mark.parametrize(("name", "text"), [("p.csv", as_csv(ROWS)), ("p.jsonl", as_jsonl(ROWS))])
def test_both_formats_give_the_same_pairs_in_the_order_of_the_file(name: str, text: str, project: Project) -> None:
    drawn = project.file(text, name)

    assert drawn.pairs == tuple(Pair(**row) for row in ROWS)
    assert drawn.notices == ()


def test_a_cell_may_hold_commas_quotes_and_line_breaks(project: Project) -> None:
    cell = 'a, "b"\nc'
    quoted = '"a, ""b""\nc"'
    text = as_csv(ROWS).replace("the key 0,", quoted + ",")

    assert project.file(text).pairs[0].clean == cell
    assert project.problems(text.replace("the key 1,", ",")) == ["specs/p.csv:4: 'clean' is empty"]


def test_a_file_without_templates_is_one_stratum_and_says_so(project: Project) -> None:
    drawn = project.file(as_csv(without("template")))

    assert {pair.template for pair in drawn.pairs} == {"all"}
    assert drawn.notices == ("specs/p.csv: no column `template`, so all 64 pairs are one stratum",)


def test_a_file_without_templates_needs_64_pairs(project: Project) -> None:
    assert project.problems(as_csv(without("template")[:63])) == [
        "specs/p.csv:1: a file without templates has 63 distinct pairs; "
        "at least 64 are needed to know how much prompts vary"
    ]


def test_each_template_of_a_file_needs_8_pairs(project: Project) -> None:
    rows = [{**row, "template": str(index // 7)} for index, row in enumerate(ROWS[:15])]

    assert project.problems(as_csv(rows)) == [
        f"specs/p.csv:1: template '{name}' has {count}; at least 8 are needed to know how much prompts vary"
        for name, count in (("0", "7 distinct pairs"), ("1", "7 distinct pairs"), ("2", "1 distinct pair"))
    ]


def test_rows_that_repeat_or_mirror_another_count_once_and_are_told(project: Project) -> None:
    first = ROWS[0]
    mirrored = {"clean": first["corrupt"], "corrupt": first["clean"], "answer": "are", "foil": "is", "template": "a"}
    drawn = project.file(as_csv([*ROWS, first, mirrored]))

    assert drawn.pairs == tuple(Pair(**row) for row in ROWS)
    assert drawn.notices == ("specs/p.csv: 2 of 66 rows repeat or mirror another and do not count",)


def test_the_same_prompt_with_another_answer_is_another_pair(project: Project) -> None:
    assert len(project.file(as_csv([*ROWS, {**ROWS[0], "answer": "was"}])).pairs) == 65


def test_a_whole_surrogate_pair_is_a_character(project: Project) -> None:
    text = as_jsonl([{**ROWS[0], "clean": "\U0001f600"}, *ROWS[1:]])

    assert "\\ud83d\\ude00" in text
    assert project.file(text, "p.jsonl").pairs[0].clean == "\U0001f600"


def test_pairs_on_too_few_different_prompts_are_told_of_with_their_template(project: Project) -> None:
    same = [{**ROWS[0], "answer": f"is {n}", "template": "c"} for n in range(9)]
    drawn = project.file(as_csv([*ROWS, *same]))

    assert drawn.notices == (
        "template 'c': 9 pairs stand on 1 different prompts, so their values are not independent and their standard "
        "errors are too small; use more prompts",
    )


def test_prompts_without_a_twin_are_read_for_zero_and_mean(project: Project) -> None:
    for value in ("zero", "mean"):
        pairs = project.file(as_csv(without("corrupt")), rest=f"ablation: {{value: {value}}}").pairs
        assert {pair.corrupt for pair in pairs} == {None}


NEEDS = [
    (
        "",
        "1: ablation.value: the prompts of specs/p.csv have no corrupt twin, "
        "but resample takes values from it; write zero or mean",
    ),
    (
        "ablation: {value: zero, floor: corrupt}",
        "6: ablation.floor: the prompts of specs/p.csv have no corrupt twin, but the floor is read on it; write empty",
    ),
    (
        f"measure: {{metric: kl}}\n{ZERO}",
        "6: measure.metric: the prompts of specs/p.csv have no corrupt twin, but kl tells behaviour by the distance of "
        "the corrupt run from the clean one; write logit_diff or prob_diff",
    ),
    (
        f"{ZERO}\ncircuit: {{a: {{heads: [L0H0], role: {{name: number_mover}}}}}}",
        "7: circuit: the prompts of specs/p.csv have no corrupt twin, "
        "but the role number_mover is read off what differs between the two",
    ),
    (
        f"{ZERO}\ncircuit: {{a: {{heads: [L0H0], role: {{name: sequence_mover}}}}}}",
        "7: circuit: the prompts of specs/p.csv have no corrupt twin, "
        "but the role sequence_mover is read off what differs between the two",
    ),
]


@pytest.mark.parametrize(("rest", "expected"), NEEDS)
def test_what_needs_a_twin_is_refused_without_one(rest: str, expected: str, project: Project) -> None:
    assert project.problems(as_csv(without("corrupt")), rest=rest) == [f"specs/a.circuit.yaml:{expected}"]


def test_a_role_that_is_not_read_off_the_twin_needs_none(project: Project) -> None:
    role = f"{ZERO}\ncircuit: {{a: {{heads: [L0H0], role: {{name: name_mover}}}}}}"

    assert {pair.corrupt for pair in project.file(as_csv(without("corrupt")), rest=role).pairs} == {None}


CSV = [
    (
        "clean,corrupt,anser,foil\na,b,c,d\n",
        [
            "2: unknown column 'anser'; known here: clean, corrupt, answer, foil, template",
            "2: the column 'answer' is missing",
        ],
    ),
    (
        ",clean,corrupt,answer,foil\n0,a,b,c,d\n",
        ["2: unknown column ''; known here: clean, corrupt, answer, foil, template"],
    ),
    ("clean,clean,answer,foil\na,b,c,d\n", ["1: a column is given twice: clean, clean, answer, foil"]),
    (
        "clean,corrupt,answer,foil\na,b,c\n",
        ["2: expected 4 cells, as in the header, found 3; a cell with a comma needs quotes"],
    ),
    (
        "clean,corrupt,answer,foil\n\na, b,c,d,e\n",
        ["3: expected 4 cells, as in the header, found 5; a cell with a comma needs quo"],
    ),
    ('clean,corrupt,answer,foil\n"a"b,c,d,e\n', ["2: this is not CSV: ',' expected after '\"'"]),
    ('clean,corrupt,answer,foil\n"a,c,d,e\n', ["2: this is not CSV: unexpected end of data"]),
    ("clean,corrupt,answer,foil\n,b,c,d\na,b,c,\n", ["2: 'clean' is empty", "3: 'foil' is empty"]),
    (
        "clean,corrupt,answer,foil\na ,b,c,d\na, b,c,d\n",
        [
            "2: 'clean' begins or ends with a space; `tokens.join` puts the space before the answer",
            "3: 'corrupt' begins or ends with a space; `tokens.join` puts the space before the answer",
        ],
    ),
    (
        "clean,corrupt,answer,foil\na,a,c,d\na,b,c,c\n",
        [
            "2: 'clean' and 'corrupt' are the same, so nothing would differ",
            "3: 'answer' and 'foil' are the same, so nothing would differ",
        ],
    ),
    ("clean,corrupt,answer,foil\n", ["1: a file without templates has 0 distinct pairs; at least 64 are needed"]),
    ("", ["1: a file without templates has 0 distinct pairs; at least 64 are needed"]),
    (
        b"\xef\xbb\xbfclean,corrupt,answer,foil\na,b,c,d\n",
        ["1: the file begins with a byte order mark, which would join the"],
    ),
    (b"clean,corrupt,answer,foil\na,b,c,\xe9\n", ["2: the file is not UTF-8: byte 0xe9; save it as UTF-8"]),
]


@pytest.mark.parametrize(("text", "expected"), CSV, ids=[rows[0][:50] for _, rows in CSV])
def test_a_csv_file_is_refused_with_its_lines(text: str | bytes, expected: list[str], project: Project) -> None:
    found = project.problems(text)

    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(f"specs/p.csv:{start}")


JSONL = [
    ('{"clean": "a"\n', "1: this is not JSON: Expecting ',' delimiter: line 1 column 14 (char 13)"),
    ("\n[1]\n", '2: expected an object such as {"clean": ..., "answer": ...}'),
    ('{"clean": "a", "clean": "b"}\n', "1: this is not JSON: a key is given twice: clean, clean"),
    ("[" * 100_000, "1: this is not a row: it is nested too deep"),
    (
        '{"clean": "a", "corrupt": "b", "answer": 17, "foil": "d"}',
        "1: 'answer' must be a text, found 17; write it in quotes",
    ),
    (
        '{"clean": "a", "corrupt": "b", "answer": "c", "foil": null}',
        "1: 'foil' must be a text, found None; write it in quotes",
    ),
    (
        '{"clean": "a", "corrupt": "b", "answer": "c", "foil": "d", "x": 1}',
        "1: unknown column 'x'; known here: clean, corr",
    ),
    (
        as_jsonl([*ROWS, *without("corrupt")[:1]]),
        "65: 'corrupt' is missing here and given in other rows; give it in every row or",
    ),
    (
        as_jsonl([*ROWS, *without("template")[:1]]),
        "65: 'template' is missing here and given in other rows; give it in every row",
    ),
    (as_jsonl([*ROWS, *without("answer")[:1]]), "65: the column 'answer' is missing"),
    (
        '{"clean": "a\\ud800", "corrupt": "b", "answer": "c", "foil": "d"}',
        "1: 'clean' holds half of a surrogate pair, which is no character: 'a\\ud800'",
    ),
    (
        '{"clean": "a", "corrupt": "b", "answer": "c", "foil": "\\udfff"}',
        "1: 'foil' holds half of a surrogate pair, which is no character: '\\udfff'",
    ),
]


@pytest.mark.parametrize(("text", "expected"), JSONL, ids=[text[:40] for _, text in JSONL])
def test_a_jsonl_file_is_refused_with_its_line(text: str, expected: str, project: Project) -> None:
    found = project.problems(text, "p.jsonl")

    assert len(found) == 1, found
    assert found[0].startswith(f"specs/p.jsonl:{expected}")


def test_another_format_is_refused(project: Project) -> None:
    assert project.problems("x", "p.txt") == ["specs/p.txt:1: the name must end in .csv, .jsonl or .json, found '.txt'"]


def test_a_file_that_is_too_large_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_FILE", 10)

    assert project.problems("x" * 11) == ["specs/p.csv:1: the file has more than 10 bytes; no more are read"]


def test_a_file_that_vanished_after_loading_is_refused(project: Project) -> None:
    with pytest.raises(PromptError, match="^p.csv:1: the file cannot be read: No such file or directory$"):
        files.read_pairs(project.root / "p.csv", "p.csv")


def test_foreign_text_cannot_reach_the_terminal_raw(project: Project) -> None:
    (found,) = project.problems(
        '{"\\u001b[31m::error": "x", "clean": "a", "answer": "b", "foil": "c"}', "p.jsonl", rest=ZERO
    )

    assert found.startswith("specs/p.jsonl:1: unknown column '\\x1b[31m::error'; known here: ")


# -- to look at --------------------------------------------------------------------------------------------------------


def test_to_look_at_one_pair_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(as_csv(ROWS[:1]))
    bare = [{key: ROWS[0][key] for key in ("clean", "answer", "foil")}]
    (tmp_path / "p.jsonl").write_text(as_jsonl(bare))

    assert look_at_pairs(path, "p.csv") == PromptSet((Pair(**ROWS[0]),))
    looked = look_at_pairs(tmp_path / "p.jsonl", "p.jsonl")
    assert looked.pairs == (Pair(corrupt=None, template="all", **bare[0]),)
    assert looked.notices == ("p.jsonl: no column `template`, so all 1 pairs are one stratum",)


def test_to_look_at_the_pairs_are_those_that_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(as_csv([*ROWS, ROWS[0]]))

    assert look_at_pairs(path, "p.csv") == files.read_pairs(path, "p.csv")


@pytest.mark.parametrize("text", ["", "clean,corrupt,answer,foil\n"])
def test_of_no_pair_there_is_nothing_to_look_at(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)

    with pytest.raises(PromptError) as caught:
        look_at_pairs(tmp_path / "p.csv", "p.csv")
    assert str(caught.value) == (
        "p.csv:1: the file should have pairs of prompts, and has none; add rows below the header"
    )


def test_to_look_at_a_file_that_is_wrong_is_refused_as_ever(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("clean,corrupt,answer,foil\na,b,c,\n")

    with pytest.raises(PromptError, match=r"^p.csv:2: 'foil' is empty$"):
        look_at_pairs(tmp_path / "p.csv", "p.csv")

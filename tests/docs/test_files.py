"""The pages about files of other tools: their tables are the code's, and their code runs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naive_eap import Naive

from pytest_circuits.cli.graph import FORMATS, KNOWN_AS
from pytest_circuits.integrations.files import read_graph
from pytest_circuits.integrations.names import TOOLS
from pytest_circuits.prompts.published import FORMS, OURS, OWN
from pytest_circuits.spec.edges import parse_edge

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def table(page: str, header: str) -> list[list[str]]:
    """The rows below a header, each cell without its code marks."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    body = text.split(header, 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def test_the_formats_are_those_that_are_read_and_written() -> None:
    rows = table("graph-files.md", "| format | file |")

    assert [row[0].strip("`") for row in rows] == list(FORMATS)
    assert {row[0].strip("`") for row in rows if row[2] == "yes"} == set(KNOWN_AS)
    assert {row[3] for row in rows} == {"yes"}


def test_the_names_of_edges_are_those_that_are_written() -> None:
    here, *others = table("graph-files.md", "| tool | head to keys |")
    edges = [parse_edge(cell.strip("`"), 12) for cell in here[1:]]

    assert [str(edge) for edge in edges] == [cell.strip("`") for cell in here[1:]]
    assert {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in others} == {
        tool: [write(edge) for edge in edges] for tool, write in TOOLS.items()
    }


def test_rows_and_columns_of_matrices_are_where_they_are_told() -> None:
    told = {row[0]: row[1:] for row in table("graph-files.md", "| node | row | column |")}
    naive = Naive(3, 2)
    place = {"L": naive.layers, "H": naive.heads, "l": 2, "h": 1, "k": 2}

    def value(cell: str) -> int:
        formula = re.findall(r"`([^`]+)`", cell)[0]
        return int(eval(re.sub(r"(?<=[\w)])\s*(?=\()|(?<=k)(?=H)|(?<=3)(?=H)", "*", formula), {}, place))

    assert value(told["embeddings"][0]) == 0
    row, column = told["head `h` of layer `l`"]
    assert (value(row), value(column)) == (naive.forward("a2.h1"), naive.backward("a2.h1", "v"))
    row, column = told["MLP of layer `l`"]
    assert (value(row), value(column)) == (naive.forward("m2"), naive.backward("m2", ""))
    assert value(told["logits"][1]) == naive.backward("logits", "")


def test_the_code_about_graphs_runs(
    blocks: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Naive(3, 4).data()
    for edge in data["edges"].values():
        edge["score"] = 1 / edge["score"]  # what the embeddings add has the largest then
    Path("ioi.json").write_text(json.dumps(data))
    (code,) = blocks("python", "docs/reference/graph-files.md")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code.text, code.place, "exec"), {})

    assert out.getvalue().startswith("eap-json ['embed -> L0H0.q', ")
    assert read_graph(Path("small.pt"), "small")[0].edges.sum() <= 200


def test_the_columns_of_prompt_files_are_those_that_are_read() -> None:
    rows = {row[0]: row[1:] for row in table("prompt-files.md", "| file of | told by |")}

    assert set(rows) == {"here" if form is OWN else form.tool for form in FORMS}
    for form in FORMS:
        told, *cells = rows["here" if form is OWN else form.tool]
        assert form.told_by <= set(re.findall(r"`([^`]+)`", told))
        expected = [form.called(column) for column in OURS]
        given = [*form.columns, *form.made_of]
        assert [cell.strip("`") for cell in cells] == [
            name if column in given else "" for column, name in zip(OURS, expected, strict=True)
        ]


class Words:
    """A tokenizer with three words."""

    @staticmethod
    def from_pretrained(name: str) -> Words:
        assert name == "a/model"
        return Words()

    def decode(self, ids: list[int]) -> str:
        return ["", " Amber", " Aaron"][ids[0]]


def test_the_code_that_puts_words_in_place_of_token_ids_runs(
    blocks: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.csv").write_text(',clean,corrupted,correct_idx,incorrect_idx\n7,"a, b",c,1,2\n')
    (code,) = blocks("python", "docs/reference/prompt-files.md")
    names: dict[str, Any] = {}
    exec(compile(code.text, code.place, "exec"), names)
    names["AutoTokenizer"] = Words
    names["with_words"]("ids.csv", "words.csv", "a/model")

    with open("words.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"clean": "a, b", "corrupt": "c", "answer": " Amber", "foil": " Aaron"}]

"""`pytest-circuits graph`: what it shows, what it writes, what it refuses, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from naive_eap import Naive

from pytest_circuits.cli import graph as module
from pytest_circuits.cli import main

NAIVE = Naive()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["graph", *map(str, arguments)])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a graph."""
    monkeypatch.chdir(tmp_path)
    Path("g.json").write_text(NAIVE.text())


def test_it_shows_what_a_file_holds() -> None:
    inside = sum(NAIVE.inside(*at) for at in NAIVE.edges().values())
    result = run("g.json", "--top", "3")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "g.json (EAP-IG, JSON): 2 layers of 3 heads, width 5",
        "nodes in the circuit  6 of 10, the logits counted",
        f"edges in the circuit  {inside} of 75",
        "",
        "edge                     score  in the circuit",
        "L1.mlp -> logits       9.01953  no",
        "L1H2 -> logits        -8.01953  yes",
        "L1H2 -> L1.mlp         8.01855  no",
    ]


def test_what_is_missing_or_more_is_told() -> None:
    data = Naive(parallel=True).data()
    del data["edges"]["input->m0"]
    Path("g.json").write_text(json.dumps(data))
    result = run("g.json", "--top", "0")

    assert "2 layers of 3 heads, width 5, MLPs beside the heads\n" in result.stdout
    assert result.stdout.endswith("edges with a score    68 of 69\n")


def test_it_converts_there_and_back_and_says_what_is_lost() -> None:
    result = run("g.json", "--output", "g.pt")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "g.pt written as eap-pt\n")
    assert "g.pt (EAP-IG, torch): 2 layers" in run("g.pt").stdout
    assert run("g.pt", "--output", "again.json").exit_code == 0
    assert Path("again.json").read_text() == NAIVE.text()

    result = run("g.json", "--output", "scores.pt", "--format", "auto-circuit")
    assert result.stderr == (
        "note: auto-circuit does not hold which nodes and edges are in the circuit\n"
        "note: auto-circuit does not hold the model's width\n"
        "scores.pt written as auto-circuit\n"
    )
    assert "no circuit is chosen among 10 nodes and 75 edges; --edges N chooses one\n" in run("scores.pt").stdout
    assert run("scores.pt", "--edges", "70").stdout.splitlines()[2].startswith("edges in the circuit  ")


def test_it_prints_sections_of_a_spec() -> None:
    result = run("g.json", "--edges", "70", "--spec")

    found = yaml.safe_load(result.stdout)
    assert (result.exit_code, result.stderr, list(found)) == (0, "", ["circuit", "edges"])
    assert f"edges in the circuit  {len(found['edges'])} of 75" in run("g.json", "--edges", "70").stdout


def test_neurons_are_told_of_and_left_out_with_a_note() -> None:
    torch.save({**NAIVE.tensors(), "neurons_in_graph": torch.ones(9, 5, dtype=torch.bool)}, "g.pt")

    assert "\nneurons               told as well, and kept in .pt files\n" in run("g.pt").stdout
    result = run("g.pt", "--edges", "70")
    assert result.stderr == "note: --edges chooses no neurons, so those of the file are left out\n"
    assert "neurons" not in result.stdout
    result = run("g.pt", "--output", "n.json")
    assert (result.exit_code, Path("n.json").exists()) == (2, False)
    assert "neurons are not written as JSON" in result.stderr
    assert "does not hold neurons" in run("g.pt", "--output", "v.json", "--format", "neuronpedia").stderr


def test_a_viewer_s_file_is_written() -> None:
    result = run("g.json", "--format", "neuronpedia", "--output", "view.json")

    assert result.exit_code == 0
    assert json.loads(Path("view.json").read_text())["metadata"]["slug"] == "view"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.json",), "'none.json' does not exist"),
        (("g.json", "--format", "eap-pt"), "--format is the format of --output; name that file too"),
        (("g.json", "--output", "g.json"), "--output: 'g.json' exists, and would be overwritten; name another, or"),
        (("g.json", "--output", "x.txt"), "--output: expected a name in .json or .pt, or --format; found 'x.txt'"),
        (("g.json", "--edges", "1"), "no way leads from the embeddings to the logits through the 1 edges of the"),
        (("g.json", "--edges", "99"), "Error: a circuit of 99 edges is asked for, and 75 have a score; ask for fewer"),
        (
            ("garbage",),
            "Error: garbage: expected JSON or a file of torch.save, found one that begins with b'\\x00\\x1b",
        ),
        (("cut.json",), "Error: cut.json:1:101: this is not JSON: "),
        (("g.json", "--output", "no/x.pt"), "Error: no/x.pt: the file cannot be written: No such file"),
    ],
)
def test_what_cannot_be_is_refused_with_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    Path("garbage").write_bytes(b"\0\x1b[31m")
    Path("cut.json").write_text(NAIVE.text()[:100])
    result = run(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "\x1b" not in result.stderr


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_circuits.plugin.session.missing_extra", lambda: ["torch"])
    result = run("g.json")

    assert result.exit_code == 2
    assert "graphs need torch, which is not installed.\n  Install it: pip install" in result.stderr


def test_help_names_every_format() -> None:
    text = run("--help").stdout

    assert all(form in text for form in module.FORMATS)
    assert [line for line in (module.EPILOG + text).splitlines() if len(line) > 120] == []

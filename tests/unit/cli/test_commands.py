"""The `pytest-circuits` command: what it prints and how it exits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import pytest_circuits.spec
from pytest_circuits.cli import COMMANDS, main

GOOD = """\
format: 1
model: {checkpoint: c, architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary: {a: {x: [a, b, c, d, e, f, g, h], y: [A, B, C, D, E, F, G, H]}, v: {x: [is], y: [are]}}
  templates: [{id: t, text: "the {a}", answer: "{v}", flip: a}]
  per_template: 8
claims: {behaviour: }
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(folder: Path, name: str, text: str = GOOD) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "pyproject.toml", "")
    return tmp_path


def test_a_clean_folder_exits_0_and_prints_no_finding(root: Path) -> None:
    write(root, "specs/a.circuit.yaml")
    write(root, "specs/deep/b.circuit.yaml")
    write(root, "specs/vocabulary.yaml", "not: a spec")
    result = run("lint", root / "specs")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 specs checked, 0 findings\n")


def test_each_finding_is_a_line_from_the_root_and_exits_1(root: Path) -> None:
    write(root, "specs/a.circuit.yaml", GOOD.replace("format: 1", "format: 2").replace("layers: 4", "layers: no"))
    write(root, "specs/b.circuit.yaml")
    result = run("lint", root / "specs")

    assert result.exit_code == 1
    assert result.stdout.split("\n") == [
        "specs/a.circuit.yaml:1:9: format: expected 1, found 2",
        "specs/a.circuit.yaml:2:52: model.layers: expected a whole number, found `no`, which YAML reads as false",
        "",
    ]
    assert result.stderr == "2 specs checked, 2 findings\n"


def test_too_few_pairs_are_a_finding(root: Path) -> None:
    path = write(root, "a.circuit.yaml", GOOD.replace(", h]", "]").replace(", H]", "]"))
    result = run("lint", path)

    assert result.exit_code == 1
    assert result.stdout == (
        "a.circuit.yaml:5: template 't' gives 7 distinct pairs; at least 8 are needed to know how much prompts vary; "
        "add words to its slots\n"
    )


def test_a_prompt_file_is_read_too(root: Path) -> None:
    start, end = GOOD.index("  vocabulary"), GOOD.index("claims")
    path = write(root, "s/a.circuit.yaml", f"{GOOD[:start]}  file: p.csv\n{GOOD[end:]}")
    write(root, "s/p.csv", "clean,corrupt,answer,foil\na,b,c,\n")
    result = run("lint", path)

    assert (result.exit_code, result.stdout) == (1, "s/p.csv:2: 'foil' is empty\n")


def test_a_notice_is_printed_and_is_no_finding(root: Path) -> None:
    path = write(root, "a.circuit.yaml", GOOD.replace("per_template: 8", "per_template: 9"))
    result = run("lint", path)

    assert result.exit_code == 0
    assert result.stdout == (
        "a.circuit.yaml:5: template 't' gives 8 distinct pairs, fewer than per_template: 9 (notice)\n"
    )
    assert result.stderr == "1 spec checked, 0 findings\n"


def test_a_spec_that_is_not_verified_is_told_with_its_reason_and_is_no_finding(root: Path) -> None:
    for name, verified in (("a", "false"), ("b", "true")):
        said = f'format: 1\nverification: {{verified: {verified}, reason: "no weights\\n  were \\e[31mread"}}\n'
        write(root, f"specs/{name}.circuit.yaml", GOOD.replace("format: 1\n", said))
    result = run("lint", root / "specs")

    assert result.exit_code == 0
    assert result.stdout == "specs/a: not verified: no weights were \\x1b[31mread\n"
    assert result.stderr == "2 specs checked, 0 findings\n"


def test_a_spec_that_is_named_twice_is_checked_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(root, "a.circuit.yaml", GOOD.replace("format: 1", "format: 2"))
    monkeypatch.chdir(root)

    assert run("lint", path, root, path.name).stderr == "1 spec checked, 1 finding\n"


def test_a_folder_without_a_spec_exits_2_even_beside_one_that_has_some(root: Path) -> None:
    write(root, "specs/a.circuit.yaml")
    write(root, "empty/a.yaml")
    result = run("lint", root / "specs", root / "empty")

    assert result.exit_code == 2
    assert (
        f"no file that ends in .circuit.yaml lies in '{root / 'empty'}', so there is nothing to check" in result.stderr
    )


def test_hidden_folders_are_not_searched(root: Path) -> None:
    write(root, ".cache/a.circuit.yaml")

    assert run("lint", root).exit_code == 2


def test_a_file_that_pytest_would_not_collect_exits_2(root: Path) -> None:
    path = write(root, "specs/a.yaml")
    result = run("lint", path)

    assert result.exit_code == 2
    assert f"'{path}' is no spec: pytest collects only files that end in .circuit.yaml" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("lint",), ("lint", "gone"), ("lint", "--strict", "."), ("linnt",), ("lint", "--root", "gone", ".")]
)
def test_a_wrong_call_exits_2(arguments: tuple[str, ...], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "a.circuit.yaml")
    monkeypatch.chdir(root)

    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("mark", ["pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", ".git"])
def test_the_root_is_the_nearest_folder_that_looks_like_one(mark: str, root: Path) -> None:
    write(root, f"inner/{mark}", "")
    path = write(root, "inner/specs/a.circuit.yaml", GOOD.replace("format: 1", "format: 2"))

    assert run("lint", path).stdout.startswith("specs/a.circuit.yaml:1:9: ")
    assert run("lint", path, root).stdout.startswith("inner/specs/a.circuit.yaml:1:9: ")
    assert run("lint", "--root", root, path).stdout.startswith("inner/specs/a.circuit.yaml:1:9: ")


def test_without_any_mark_the_root_is_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "x/specs/a.circuit.yaml", GOOD.replace("format: 1", "format: 2"))
    monkeypatch.chdir(tmp_path / "x")

    assert run("lint", "specs").stdout.startswith("specs/a.circuit.yaml:1:9: ")


def test_a_spec_may_not_leave_the_root_that_is_named(root: Path) -> None:
    path = write(root, "specs/a.circuit.yaml", GOOD.replace("prompts:\n", "prompts:\n  include: ../w.yaml\n"))
    write(root, "w.yaml", "vocabulary: {}")

    assert run("lint", path).exit_code == 0
    assert "'../w.yaml' lies outside the project" in run("lint", "--root", root / "specs", path).stdout


def test_the_schema_is_printed_and_written_as_it_is_stored(tmp_path: Path) -> None:
    stored = (Path(pytest_circuits.spec.__file__).parent / "schema.json").read_bytes()
    written = tmp_path / "s.json"

    assert run("schema").stdout.encode() == stored
    assert (run("schema", "--output", written).exit_code, written.read_bytes()) == (0, stored)


def test_a_schema_that_cannot_be_written_exits_2(tmp_path: Path) -> None:
    result = run("schema", "--output", tmp_path / "gone" / "s.json")

    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_examples(name: str) -> None:
    text = run(name, "--help").stdout

    assert "Examples:" in text
    assert f"\n    pytest-circuits {name}" in text


def test_the_help_lists_every_command() -> None:
    text = run("--help").stdout

    assert [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)


def test_the_command_itself_and_lint_import_nothing_heavy(root: Path) -> None:
    path = write(root, "a.circuit.yaml")
    code = (
        "import sys\nfrom pytest_circuits.cli import main\n"
        "assert not {'yaml', 'pydantic'} & set(sys.modules)\n"
        f"main(['lint', {str(path)!r}], standalone_mode=False)"
    )
    guard = (
        "import sys\nfor name in ('torch', 'transformers', 'numpy', 'hypothesis', 'pytest'): sys.modules[name] = None\n"
    )
    done = subprocess.run([sys.executable, "-c", guard + code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1 spec checked, 0 findings\n")

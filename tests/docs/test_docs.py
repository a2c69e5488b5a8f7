"""Every page holds: its specs load, its code runs, its commands have those options, and its links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from pytest_circuits.cli import COMMANDS, main
from pytest_circuits.spec.loader import load_spec

ROOT = Path(__file__).parents[2]
Blocks = Callable[..., list[Any]]


# -- specs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, blocks: Blocks) -> Callable[[str], Path]:
    """Write a YAML block as a spec, a part of one laid over the whole spec of the reference, and return its path."""
    whole = next(block.text for block in blocks("yaml", "docs/reference/spec.md") if "format: 1" in block.text)
    base = yaml.safe_load(whole)
    for folder in ("specs", "shared"):
        (tmp_path / folder).mkdir()
    shared = {key: base["prompts"][key] for key in ("vocabulary", "templates")}
    (tmp_path / "shared/words.yaml").write_text(yaml.safe_dump(shared))
    (tmp_path / "specs/weekdays.csv").write_text(blocks("csv", "docs/how-to/write-a-spec.md")[0].text)
    shutil.copytree(ROOT / "specs/tiny", tmp_path / "specs/tiny")

    def write(text: str) -> Path:
        path = tmp_path / "specs/block.circuit.yaml"
        path.write_text(text if "format: 1" in text else yaml.safe_dump({**base, **yaml.safe_load(text)}))
        return path

    return write


def test_every_spec_on_a_page_loads(blocks: Blocks, project: Callable[[str], Path]) -> None:
    loaded = 0
    for block in blocks("yaml"):
        data = yaml.safe_load(block.text)
        if data is not None and "jobs" not in data:
            path = project(block.text)
            load_spec(path, root=path.parents[1])
            loaded += 1

    assert loaded >= 8


def test_a_part_of_a_spec_with_an_unknown_key_would_be_seen(project: Callable[[str], Path]) -> None:
    path = project("claims: {headz: {}}")

    with pytest.raises(Exception, match="did you mean 'heads'"):
        load_spec(path, root=path.parents[1])


def test_every_workflow_has_a_token_that_can_only_read_and_no_secret(blocks: Blocks) -> None:
    workflows = [block for block in blocks("yaml") if "jobs:" in block.text]

    assert len(workflows) == 2
    for block in workflows:
        workflow = yaml.safe_load(block.text)
        assert workflow["permissions"] == {"contents": "read"}, block.place
        assert "secrets" not in block.text, block.place
        steps = workflow["jobs"]["gate"]["steps"]
        assert {"persist-credentials": False} in [step.get("with") for step in steps], block.place


# -- code --------------------------------------------------------------------------------------------------------------


def test_every_python_block_compiles_and_imports_names_that_exist(blocks: Blocks) -> None:
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block.text, block.place)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytest_circuits"):
                for alias in node.names:
                    imported = import_module(str(node.module))
                    assert hasattr(imported, alias.name), f"{block.place}: {node.module}.{alias.name}"


def test_the_code_about_the_embedded_checkpoints_runs(
    blocks: Blocks, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pytester.path)
    (pytester.path / "specs/tiny/__circuits__").mkdir(parents=True)
    for name in ("verb-agreement.circuit.yaml", "__circuits__/verb-agreement.json"):
        shutil.copy(ROOT / "specs/tiny" / name, pytester.path / "specs/tiny" / name)
    printed = {}
    pages = ("docs/how-to/compare-two-checkpoints.md", "docs/reference/result-file.md", "docs/how-to/test-in-python.md")
    for block in blocks("any", *pages):
        for command in block.commands:
            result = pytester.runpytest_inprocess(*shlex.split(command)[1:], "-p", "no:cacheprovider")
            assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), block.place
        if block.title:
            pytester.path.joinpath(block.title).write_text(block.text)
            pytester.runpytest_inprocess(block.title, "-p", "no:cacheprovider").assert_outcomes(passed=1)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, block.place, "exec"), {})
            printed[block.place.rpartition(":")[0]] = printed.get(block.place.rpartition(":")[0], "") + out.getvalue()

    assert "specs/tiny/verb-agreement rewired L2H" in printed[pages[0]]
    assert printed[pages[1]].startswith("drift")
    assert "drift heads: 2 of 16 heads left their limits" in printed[pages[2]]
    assert "refused: './no-such-folder'" in printed[pages[2]]


def test_what_probing_finds_is_printed_as_the_page_says(blocks: Blocks, lacks: Callable[..., list[str]]) -> None:
    code, printed = [
        one for one in blocks("any", "docs/how-to/add-an-architecture.md") if "row." in one.text or "own" in one.text
    ]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code.text, code.place, "exec"), {})

    assert lacks(out.getvalue(), printed.text, tolerance=0.0) == []
    assert "blocks 'model.layers'" in out.getvalue()


def test_looking_at_every_head_shows_what_the_page_shows(
    blocks: Blocks, lacks: Callable[..., list[str]], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pytester.path)
    monkeypatch.setenv("COLUMNS", "110")
    shutil.copytree(ROOT / "specs/tiny", pytester.path / "specs/tiny")
    shown = 0
    for block in blocks("any", "docs/how-to/look-at-every-head.md"):
        if block.title:
            pytester.path.joinpath(block.title).write_text(block.text)
        else:
            (command,) = block.commands
            result = CliRunner().invoke(main, shlex.split(command)[1:])
            expected = block.text.partition("\n")[2]
            assert (result.exit_code, result.stderr) == (0, ""), block.place
            assert lacks(result.stdout, expected, tolerance=0.02) == [], f"{block.place}\n{result.stdout}"
            shown += len(expected.splitlines())

    assert shown > 30


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(pytester: pytest.Pytester) -> str:
    """What `pytest --help` prints, with each option and its metavar on a line."""
    return pytester.runpytest_inprocess("--help").stdout.str()


def commands(blocks: Blocks, pages: list[Path]) -> list[tuple[str, list[str]]]:
    """Every command of ours on the pages, in console and shell blocks and in a workflow's steps, with its place."""
    found = [(block.place, command) for block in blocks("console") for command in block.commands]
    found += [(block.place, line) for block in blocks("sh") for line in block.text.splitlines()]
    for page in pages:
        found += [(page.name, command) for command in re.findall(r"run: (pytest.*)$", page.read_text(), re.M)]
        found += [(page.name, command) for command in re.findall(r"`(pytest(?:-circuits)? [^`]+)`", page.read_text())]
    split = [(place, shlex.split(command, comments=True)) for place, command in found]
    return [(place, words) for place, words in split if words and words[0] in ("pytest", "pytest-circuits")]


def test_every_pytest_command_has_options_that_exist(blocks: Blocks, pages: list[Path], known: str) -> None:
    checked = 0
    for place, (program, *words) in commands(blocks, pages):
        if program != "pytest":
            continue
        for word, following in zip(words, [*words[1:], ""], strict=True):
            option, _, value = word.partition("=")
            if option.startswith("-"):
                assert re.search(rf"(^|[\s,]){re.escape(option)}(?![\w-])", known), f"{place}: {option}"
            choices = re.search(rf"{re.escape(option)}=\{{(.*?)\}}", known)
            if option.startswith("--circuits-") and choices:
                # `new|all` on a page names both
                assert set((value or following).split("|")) <= {*choices[1].split(",")}, f"{place}: {word}"
                checked += 1

    assert checked


def test_every_command_of_ours_exists_with_its_options(blocks: Blocks, pages: list[Path]) -> None:
    for place, (program, *words) in commands(blocks, pages):
        if program == "pytest-circuits" and words[0].isalpha():
            assert words[0] in COMMANDS, f"{place}: {words[0]}"
            command = main.get_command(click.Context(main), words[0])
            command.make_context(words[0], words[1:], resilient_parsing=True)


def test_every_option_and_ini_key_that_a_page_names_exists(pages: list[Path], known: str) -> None:
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"--circuits-[a-z-]+[a-z]|\bcircuits_[a-z_]+[a-z]\b", text):
            assert re.search(rf"{name}(?![\w-])", known), f"{page.name}: {name}"


def test_settings_on_a_page_are_read_by_pytest(blocks: Blocks, known: str) -> None:
    for block in blocks("toml"):
        for key, value in tomllib.loads(block.text)["tool"]["pytest"]["ini_options"].items():
            assert f"  {key} (" in known, f"{block.place}: {key}"
            assert isinstance(value, str), f"{block.place}: {key} is a string key of pytest's"


# -- links and words ---------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading(pages: list[Path]) -> None:
    links = 0
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(path), f"{page.name}: {target}"
            links += 1

    assert links > 30


def test_every_page_can_be_reached_from_the_readme(pages: list[Path]) -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\((?!https?:)([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
            found = [(page.parent / link).resolve() for link in links]
            waiting += [path for path in found if path.suffix == ".md"]
            waiting += [inside for path in found if path.is_dir() for inside in path.glob("*.md")]

    assert sorted(set(pages) - reached) == []


def test_papers_are_named_by_their_arxiv_id(pages: list[Path]) -> None:
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.count("arXiv:") == len(re.findall(r"arXiv:\d{4}\.\d{4,5}\b", text)), page.name


def test_lines_are_short_enough_to_review_outside_tables_and_blocks(pages: list[Path]) -> None:
    for page in pages:
        assert long_lines(page.read_text(encoding="utf-8")) == [], page.name


def test_a_long_line_is_seen_before_a_table_behind_one_and_behind_a_block() -> None:
    table, block = f"| a |\n|---|\n| {WIDE} |", f"```text\n{WIDE}\n```"

    assert long_lines("\n\n".join([table, block, table])) == []
    assert long_lines("\n\n".join([WIDE, table, WIDE, block, WIDE])) == [WIDE] * 3


WIDE = "wide " * 40


def long_lines(page: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$|^\|[^\n]*$", "", page, flags=re.M | re.S)
    return [line for line in prose.splitlines() if len(line) > 140]


# -- decisions and fragments -------------------------------------------------------------------------------------------


def test_decisions_are_numbered_and_have_their_four_parts() -> None:
    found = sorted((ROOT / "docs/decisions").glob("*.md"))

    assert [int(path.name[:4]) for path in found] == list(range(1, len(found) + 1))
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Rejected", "Consequences"], path.name
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        assert text.count("\n") <= 60, f"{path.name} is longer than a page"


def test_fragments_are_named_by_what_they_are() -> None:
    names = [path.name for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    form = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed|security)\.md")

    assert names
    assert [name for name in names if not form.fullmatch(name)] == []


def test_contributing_knows_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = [path for path in (ROOT / "pytest_circuits").rglob("*.py") if path.name != "__init__.py"]
    rooms = {path.relative_to(ROOT / "pytest_circuits").parts[0].removesuffix(".py") for path in modules}
    tests = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}

    assert sorted(room for room in rooms if f"`{room}`" not in text) == []
    assert sorted(folder for folder in tests if f"`tests/{folder}/" not in text) == []

"""The pages that lead to a gate are done: every block in order, and what is printed or written is what they show."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from pytest_circuits.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGES = ("docs/how-to/from-a-csv-to-ci.md", "docs/how-to/a-papers-circuit-as-a-test.md")
TOLERANCE = 0.03


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[[str], str]:
    """Run a command of a page in this process, and return what it printed."""

    def of(command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "pytest":
            result = pytester.runpytest_inprocess(*arguments, "-p", "no:cacheprovider")
            assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), result.stderr.str()
            return result.stdout.str()
        if program == "pytest-circuits":
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, result.output
            return result.output
        assert program in ("cat", "head")
        return Path(arguments[-1]).read_text(encoding="utf-8")

    return of


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_who_does_the_page_sees_what_it_shows(
    page: str,
    blocks: Callable[..., list[Any]],
    lacks: Callable[..., list[str]],
    pytester: pytest.Pytester,
    run: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(pytester.path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.delenv("CI", raising=False)
    shutil.copytree(ROOT / "specs/tiny", pytester.path / "specs/tiny")
    shown = 0
    for block in blocks("any", page):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            (command,) = block.commands
            expected = block.text.partition("\n")[2]
            printed = run(command)
            assert lacks(printed, expected, tolerance=TOLERANCE) == [], f"{block.place}\n{printed}"
            shown += len(expected.splitlines())
        else:
            assert "jobs:" in block.text, f"{block.place}: nobody runs this block"

    assert shown > 40

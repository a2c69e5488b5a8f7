"""The tutorial is done: every block in order, in an empty folder, and what is printed is what the page shows."""

from __future__ import annotations

import runpy
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from pytest_circuits.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = "docs/tutorial.md"
TOLERANCE = 0.25  # two hundred steps of training end elsewhere on another processor


@pytest.fixture
def run(pytester: pytest.Pytester, capfd: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command of the page in this process, and return what it printed."""

    def of(command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "pytest":
            result = pytester.runpytest_inprocess(*arguments, "-p", "no:cacheprovider")
            assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), result.stderr.str()
            return result.stdout.str()
        if program == "pytest-circuits":
            return CliRunner().invoke(main, arguments).output
        assert program == "python"
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            runpy.run_path(arguments[0], run_name="__main__")
        return capfd.readouterr().out

    return of


def test_a_reader_who_types_the_tutorial_sees_what_it_shows(
    blocks: Callable[..., list[Any]],
    lacks: Callable[..., list[str]],
    pytester: pytest.Pytester,
    run: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    done = []
    for block in blocks("any", PAGE):
        if block.title:
            path = Path(pytester.path, block.title)
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            (command,) = block.commands
            shown = block.text.partition("\n")[2]
            printed = run(command)
            assert lacks(printed, shown, tolerance=TOLERANCE) == [], f"{block.place}\n{printed}"
        else:
            assert block.language == "sh", f"{block.place}: nobody runs this block"
        done.append(block.language)

    assert done.count("sh") == 1, "one block sets up, and only that is not run"
    assert done.count("console") >= 6


def test_a_line_that_was_not_printed_is_missed(lacks: Callable[..., list[str]]) -> None:
    printed = "L1H3  mover  share  0.99 -> 0.00  lost\nthe role moved: L1H3 -> L1H1.\n"

    assert lacks(printed, "L1H3 mover share 0.98 -> 0.01 lost\n...\n", tolerance=0.02) == []
    assert lacks(printed, "L1H2 mover share 0.98 -> 0.01 lost\n", tolerance=0.02) != []
    assert lacks(printed, "L1H3 mover share 0.90 -> 0.01 lost\n", tolerance=0.02) != []
    assert lacks(printed, "the role moved: L1H3 -> L1H1.\nL1H3 mover share 0.99 -> 0.00 lost\n", tolerance=0.02) != []

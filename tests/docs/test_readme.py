"""What the README shows is what the tool prints."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ROOT = Path(__file__).parents[2]


def test_the_failure_in_the_readme_is_what_the_tool_prints(
    blocks: Callable[..., list[Any]],
    lacks: Callable[..., list[str]],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (block,) = blocks("console", "README.md")
    (command,) = block.commands
    shutil.copytree(ROOT / "specs/tiny", pytester.path / "specs/tiny")
    monkeypatch.chdir(pytester.path)
    printed = pytester.runpytest_inprocess(*shlex.split(command)[1:], "-p", "no:cacheprovider").stdout.str()

    # Line by line, because two heads that moved equally far may change places.
    shown = block.text.splitlines()[1:]
    first = shown.index("...") + 1
    told = printed[re.search(re.sub(r"\d+", r"\\d+", shown[first].partition("(")[0]), printed).start() :]
    assert [line for line in shown if lacks(told, line, tolerance=0.03)] == []
    assert shown[first + 1 : shown.index("...", first)] != []
    assert sum("  limit " in line for line in shown) == told.partition("reproduce:")[0].count("  limit ")


def test_a_fresh_machine_needs_two_commands(blocks: Callable[..., list[Any]]) -> None:
    (block,) = blocks("sh", "README.md")

    assert block.text.splitlines() == [
        "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox run -e specs",
        ".venv/bin/tox run -e tests",
    ]
    environments = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert "[testenv:specs]" in environments
    assert "{posargs:specs/tiny}" in environments
    assert "tests" in environments.partition("env_list =")[2].splitlines()[0]

"""`pytest-circuits cache`: what it tells, what it removes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pytest_circuits.baselines.cache import CAP, TAG, Cache, Entry, entries
from pytest_circuits.cli import main
from pytest_circuits.cli.cache import command


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["cache", *map(str, arguments)])


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache of two entries, last used at known times."""
    cache = Cache(tmp_path / "filled")
    for number, key in enumerate(("ab" * 32, "cd" * 32)):
        cache.put(key, [0.5] * 50_000)
        os.utime(cache.folder / key[:2] / f"{key}.json", (1000 + number, 1000 + number))
    return cache.folder


def test_info_tells_where_the_cache_is_and_how_large(filled: Path) -> None:
    result = run("info", "--cache-dir", filled)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"folder  {filled}",
        "entries 2",
        "size    0.48 MiB of 256.00 MiB at most",
        "oldest  1970-01-01T00:16:40+00:00",
        "newest  1970-01-01T00:16:41+00:00",
        "Oldest and newest are times of last use; what was used longest ago goes first.",
    ]


def test_info_as_json_has_the_same_in_bytes(filled: Path) -> None:
    assert json.loads(run("info", "--cache-dir", filled, "--json").stdout) == {
        "folder": str(filled),
        "entries": 2,
        "bytes": sum(entry.bytes for entry in entries(filled)),
        "cap": CAP,
        "oldest": "1970-01-01T00:16:40+00:00",
        "newest": "1970-01-01T00:16:41+00:00",
    }


@pytest.mark.parametrize("at", [1e15, -1e15, 1e300])
def test_a_time_that_no_calendar_has_is_told_in_seconds(
    at: float, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Entry(filled / "ab" / f"{'ab' * 32}.json", 1, at)
    monkeypatch.setattr("pytest_circuits.baselines.cache.entries", lambda folder: [one])
    result = run("info", "--cache-dir", filled)

    assert result.exit_code == 0
    assert f"newest  {at:.0f} s from 1970\n" in result.stdout


def test_a_cache_that_is_not_there_is_empty_and_is_not_made(tmp_path: Path) -> None:
    told = run("info", "--cache-dir", tmp_path / "gone")
    found = json.loads(run("info", "--json", "--cache-dir", tmp_path / "gone").stdout)
    cleared = run("clear", "--cache-dir", tmp_path / "gone")

    assert told.exit_code == cleared.exit_code == 0
    assert told.stdout.splitlines()[1:] == [
        "entries 0",
        "size    0.00 MiB of 256.00 MiB at most",
        "oldest  -",
        "newest  -",
    ]
    assert (found["entries"], found["oldest"], found["newest"]) == (0, None, None)
    assert cleared.stdout == f"0 entries removed, 0.00 MiB, from {tmp_path / 'gone'}\n"
    assert not (tmp_path / "gone").exists()


def test_without_a_folder_it_is_the_users_own(own_cache: Path) -> None:
    Cache(own_cache).put("ab" * 32, [1.0])

    assert run("info").stdout.splitlines()[:2] == [f"folder  {own_cache}", "entries 1"]
    assert run("clear").stdout == f"1 entry removed, 0.00 MiB, from {own_cache}\n"
    assert entries(own_cache) == []


def test_clear_removes_entries_and_leaves_the_rest(filled: Path) -> None:
    (filled / "ab" / "note.txt").write_text("mine")
    left = filled / "ab" / f".{'ab' * 32}.json.0123abcd.tmp"
    left.write_text("half")
    result = run("clear", "--cache-dir", filled)

    assert (result.exit_code, result.stdout) == (0, f"2 entries removed, 0.48 MiB, from {filled}\n")
    assert sorted(path.name for path in filled.rglob("*")) == [TAG, "ab", "note.txt"]


@pytest.mark.parametrize("tag", [None, "Signature: 8a477f597d28d172789f06886806bc55\n"])
def test_clear_touches_no_folder_that_is_not_tagged_as_ours(filled: Path, tag: str | None) -> None:
    (filled / TAG).unlink()
    if tag is not None:
        (filled / TAG).write_text(tag)
    result = run("clear", "--cache-dir", filled)

    assert result.exit_code == 2
    assert (
        f"'{filled}' should be a cache of this package, and has no {TAG} of it; nothing was removed." in result.stderr
    )
    assert len(entries(filled)) == 2


@pytest.mark.parametrize("name", ["info", "clear"])
def test_a_folder_that_cannot_be_read_exits_2(name: str, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Any) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    result = run(name, "--cache-dir", filled)

    assert result.exit_code == 2
    assert f"cannot read '{filled}': Permission denied" in result.stderr


def test_an_entry_that_cannot_be_removed_exits_2(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    result = run("clear", "--cache-dir", filled)

    assert result.exit_code == 2
    assert f"cannot remove '{filled / 'ab'}" in result.stderr
    assert "Permission denied" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("show",), ("info", "--clear"), ("info", "--cache-dir", __file__)])
def test_a_wrong_call_exits_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("name", command.commands)
def test_the_help_of_each_has_examples_and_exit_codes(name: str) -> None:
    text = run(name, "--help").stdout

    assert f"\n    pytest-circuits cache {name}" in text.partition("Examples:")[2]
    assert "The exit code is 0" in " ".join(text.split())


def test_a_folder_cannot_command_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "\x1b[31mred"

    assert "\x1b" not in run("info", "--cache-dir", folder).stdout + run("clear", "--cache-dir", folder).stdout


def test_the_command_imports_nothing_heavy(filled: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'numpy', 'hypothesis', 'pytest', 'yaml', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "from pytest_circuits.cli import main\n"
        f"main(['cache', 'info', '--cache-dir', {str(filled)!r}], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "entries 2" in done.stdout

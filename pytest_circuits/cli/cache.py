"""`pytest-circuits cache`: look at the numbers that earlier runs kept, and remove them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..baselines import cache
from ..errors import plain

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
EPILOG = """\b
Examples:
  pytest-circuits cache info
  pytest-circuits cache clear
  pytest-circuits cache info --cache-dir .circuits-cache --json

A run reads from the cache what an earlier one measured: the same weights, prompts, circuit, precision, device and
versions give the same numbers. Nothing in it is needed, and nothing that is out of date is ever read, so it is removed
only to free space. `pytest --circuits-no-cache` does without.
"""
INFO = """\b
Examples:
  pytest-circuits cache info
  pytest-circuits cache info --json

The exit code is 0, also where there is no cache yet, and 2 where the folder cannot be read.
"""
CLEAR = """\b
Examples:
  pytest-circuits cache clear
  pytest-circuits cache clear --cache-dir .circuits-cache

Other files in the folder stay, and no link is followed. The exit code is 0, also where there is nothing to remove, and
2 where the folder is no cache of this package or a file cannot be removed.
"""


def at_folder(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option that names the cache's folder."""
    return click.option(
        "--cache-dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="The cache's folder, where pytest is given one by --circuits-cache-dir or the ini key circuits_cache_dir. "
        "Default: the user's own cache folder.",
    )(command)


@click.group("cache", epilog=EPILOG)
def command() -> None:
    """Look at, or remove, the numbers that earlier runs measured."""


@command.command("info", epilog=INFO)
@at_folder
@click.option("--json", "as_json", is_flag=True, help="Print JSON: folder, entries, bytes, cap, oldest, newest.")
def info(folder: Path | None, as_json: bool) -> None:
    """Print where the cache is, and how large."""
    found = _about(folder or cache.default_folder())
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    size, cap = (_mib(found[name]) for name in ("bytes", "cap"))
    rows = {
        "folder": plain(found["folder"], limit=None),
        "entries": str(found["entries"]),
        "size": f"{size} of {cap} at most",
        "oldest": found["oldest"] or "-",
        "newest": found["newest"] or "-",
    }
    for name, value in rows.items():
        click.echo(f"{name:8}{value}")
    if found["entries"]:
        click.echo("Oldest and newest are times of last use; what was used longest ago goes first.")


@command.command("clear", epilog=CLEAR)
@at_folder
def clear(folder: Path | None) -> None:
    """Remove every entry."""
    folder = folder or cache.default_folder()
    if _entries(folder) and not cache.is_ours(folder):
        raise click.UsageError(
            f"{str(folder)!r} should be a cache of this package, and has no {cache.TAG} of it; nothing was removed. "
            "If it is one, delete the folder itself."
        )
    try:
        removed = cache.clear(folder)
    except OSError as error:
        raise click.UsageError(f"cannot remove {str(error.filename)!r}: {error.strerror}") from error
    entries = sum(entry.whole for entry in removed)
    freed, place = _mib(sum(entry.bytes for entry in removed)), plain(str(folder), limit=None)
    click.echo(f"{entries} entr{'y' if entries == 1 else 'ies'} removed, {freed}, from {place}")


def _mib(count: int) -> str:
    return f"{count / MIB:.2f} MiB"


def _about(folder: Path) -> dict[str, Any]:
    """Return what `info` tells, as plain builtins; times in UTC, None where there is no entry."""
    found = _entries(folder)
    used = [_when(entry.used) for entry in found if entry.whole]
    return {
        "folder": str(folder.absolute()),
        "entries": len(used),
        "bytes": sum(entry.bytes for entry in found),
        "cap": cache.CAP,
        "oldest": used[0] if used else None,
        "newest": used[-1] if used else None,
    }


def _when(seconds: float) -> str:
    """Return a time in UTC; a clock that was wrong can have given a file one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:.0f} s from 1970"


def _entries(folder: Path) -> list[cache.Entry]:
    try:
        return cache.entries(folder)
    except OSError as error:
        raise click.UsageError(f"cannot read {str(folder)!r}: {error.strerror}") from error

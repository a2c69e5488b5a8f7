"""`pytest-circuits lint`: find what is wrong with spec files, without a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import PromptError, SpecError, plain
from ..prompts.pairs import pairs_of
from ..spec.loader import SUFFIX, load_spec

ROOT_MARKS = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", ".git")
EPILOG = """\b
Examples:
  pytest-circuits lint specs
  pytest-circuits lint specs/tiny/verb-agreement.circuit.yaml
  pytest-circuits lint --root . specs/gpt2 specs/tiny

Each finding is a line of its own, `file:line:col: key: what is wrong`. The exit code is 0 where there is none, 1 where
there are some, and 2 where the command cannot be run, such as for a folder without a spec.
"""


@click.command("lint", epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The project's root: names count from it, and no spec may name a file outside. "
    f"Default: the nearest folder above PATHS with {', '.join(ROOT_MARKS)}, else the current one.",
)
def command(paths: tuple[Path, ...], root: Path | None) -> None:
    """Check the spec files among PATHS, and all of them in the folders among PATHS.

    Reads every key, draws the prompts from templates or a file, and tells all that is wrong. Whether a tokenizer knows
    the words is told only by pytest, which has a checkpoint. A spec that says that its circuit was not verified is told
    with the reason.
    """
    specs = dict.fromkeys(spec.absolute() for path in paths for spec in _specs(path))
    found = 0
    for spec in specs:
        findings, notices = _lint(spec, root or root_of(paths))
        for line in (*findings, *notices):
            click.echo(plain(line, limit=None))
        found += len(findings)
    click.echo(_summary(len(specs), found), err=True)
    raise SystemExit(1 if found else 0)


def _lint(spec: Path, root: Path) -> tuple[list[str], list[str]]:
    """Return the findings and the notices of one spec."""
    try:
        file = load_spec(spec, root=root)
        drawn = pairs_of(file)
    except (SpecError, PromptError) as error:
        return str(error).split("\n"), []
    told = [] if file.unverified is None else [f"{file.circuit}: not verified: {file.unverified}"]
    return [], [*told, *(f"{notice} (notice)" for notice in drawn.notices)]


def _specs(path: Path) -> list[Path]:
    """Return the spec files that a path stands for, hidden folders left out."""
    if not path.is_dir():
        if not path.name.endswith(SUFFIX):
            raise click.UsageError(f"{str(path)!r} is no spec: pytest collects only files that end in {SUFFIX}")
        return [path]
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if name.endswith(SUFFIX)]
    if not found:
        raise click.UsageError(f"no file that ends in {SUFFIX} lies in {str(path)!r}, so there is nothing to check")
    return found


def root_of(paths: tuple[Path, ...]) -> Path:
    """Return the nearest folder above all the paths that looks like a project's root, else the current folder."""
    common = Path(os.path.commonpath([path.absolute() for path in paths]))
    for folder in (common, *common.parents):
        if any((folder / mark).exists() for mark in ROOT_MARKS):
            return folder
    return Path.cwd()


def _summary(specs: int, found: int) -> str:
    return f"{specs} spec{'s' * (specs != 1)} checked, {found} finding{'s' * (found != 1)}"

"""What a user types for a checkpoint, and the name that it gets in node ids, tables and baselines."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BUILTIN = "builtin:"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EXAMPLE = "tuned=./out/step-1000"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as asked for: nothing has been opened yet.

    `source` is an absolute path when an existing directory was named, else what was typed: `builtin:tiny`, or a Hub
    id with its `@revision`.
    """

    name: str
    source: str


def parse_checkpoint(text: str, *, folder: Path) -> Checkpoint:
    """Read `NAME=SOURCE`, or a SOURCE that takes its name from the last part of its path.

    A relative path counts from `folder`; an existing directory wins over a Hub id of the same spelling.

    Raises:
        UsageProblem: there is no source, the name fits no pattern, or the source is an adapter on its base.
    """
    typed, equals, rest = text.partition("=")
    named = bool(equals) and "/" not in typed  # the `=` of `./runs/lr=0.1` belongs to the path
    source = rest if named else text
    if not source:
        raise UsageProblem(f"{text!r} names no checkpoint; write a directory, a Hub id or both parts: {EXAMPLE}.")
    path = os.path.abspath(folder / source)
    is_directory = not source.startswith(BUILTIN) and os.path.isdir(path)
    if "+" in source and not is_directory:
        raise UsageProblem(
            f"{source!r} reads as an adapter on its base, which is not supported yet; merge the adapter into its base "
            "(`merge_and_unload`, then `save_pretrained`) and name the merged directory."
        )
    source = path if is_directory else source
    name = typed if named else _last_part(source) if is_directory else _last_part(source.partition("@")[0])
    if not NAME.fullmatch(name):
        raise UsageProblem(
            f"{name!r} (in {text!r}) cannot name a checkpoint: it stands in node ids and in file names, so it is "
            f"letters, digits, '.', '_' and '-', and begins with a letter or a digit. Name it: {EXAMPLE}."
        )
    return Checkpoint(name, source)


def refuse_clashes(checkpoints: Iterable[Checkpoint]) -> None:
    """Raise UsageProblem when two checkpoints share a name, letter case aside: some file systems keep only one."""
    seen: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        other = seen.setdefault(checkpoint.name.lower(), checkpoint)
        if other is not checkpoint:
            raise UsageProblem(
                f"two checkpoints share one name: {other.name} ({other.source!r}) and {checkpoint.name} "
                f"({checkpoint.source!r}); their results could not be told apart. Name one of them: {EXAMPLE}."
            )


def _last_part(source: str) -> str:
    return source.removeprefix(BUILTIN).rstrip("/").rpartition("/")[2]

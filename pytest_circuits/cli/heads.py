"""`pytest-circuits heads`: see what every head of a checkpoint does on a set of prompts; nothing is judged."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING

import click

from ..errors import CircuitsError, MissingExtra, PromptError
from ..report.heads import METHODS, heads_text
from ..report.json import builtins
from ..report.progress import LIVE, Progress
from .lint import root_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..records import Overview, Watch

FORMAT = 1
PAIRS = (".csv", ".jsonl", ".json")
SUFFIXES = (".circuit.yaml", *PAIRS)
ERASE = "\r\x1b[K"
EPILOG = """\b
Examples:
  pytest-circuits heads --checkpoint ./out/step-1000 --prompts pairs.csv
  pytest-circuits heads --checkpoint gpt2 --prompts pairs.csv --method atp --top 0
  pytest-circuits heads --checkpoint builtin:tiny --prompts specs/tiny/verb-agreement.circuit.yaml --json heads.json

A CSV file has the columns clean, corrupt, answer, foil, and template if there are several kinds of prompts:

\b
  clean,corrupt,answer,foil
  the dog near the tables,the dogs near the tables,is,are

After the clean prompt the answer is right and the foil wrong; after the corrupt one it is the other way round. Each is
one token. Without the column corrupt, a head is ablated by its mean over the prompts. A JSONL file has an object with
these keys in each line. Files of EAP-IG, auto-circuit, feature-circuits and MIB are read as well. A spec says in
addition how prompts become tokens, what is read of a run, what ablation is, and which roles are asked.

The floor is what is left when all heads and MLPs are ablated, and clean - floor the whole of which a head has a share.

\b
Methods, from the surest to the fastest:
  exact    every head is ablated, and the model runs again: the numbers that the checks judge
  eap-ig   gradients at five points between ablated and clean: all heads at once, estimated
  atp      the gradient at the clean run: all heads at once; it misses what saturates
  dla      what a head adds to the logits itself, past all that is behind it: nothing is ablated

The exit code is 0, and 2 for a call that is wrong and for prompts or a checkpoint that are refused, with the reason on
stderr. What is seen is no verdict: the checks run under pytest.
"""


class Refused(click.ClickException):
    """What was asked for cannot be measured; the message says why."""

    exit_code = 2


@click.command("heads", epilog=EPILOG)
@click.option(
    "--checkpoint",
    required=True,
    metavar="[NAME=]SOURCE",
    help="builtin:tiny, a directory, or a Hub id with @revision.",
)
@click.option(
    "--prompts",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A .csv, .jsonl or .json file of pairs, however few, or a spec (.circuit.yaml).",
)
@click.option(
    "--method", type=click.Choice(tuple(METHODS)), default="exact", show_default=True, help="How effects are found."
)
@click.option(
    "--top", type=click.IntRange(min=0), default=12, show_default=True, metavar="N", help="Heads in the table; 0: all."
)
@click.option(
    "--json",
    "output",
    metavar="FILE",
    help="Write all numbers of all heads as JSON to FILE as well; with - to stdout, and nothing else.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto (cuda, else cpu), cpu, cuda, cuda:N, mps, or split."
)
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    default="float32",
    show_default=True,
    help="Of the weights.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="Prompts in one forward at most. It bounds memory.",
)
@click.option("--roles/--no-roles", default=True, show_default=True, help="Whether heads are scored on roles.")
def command(
    checkpoint: str,
    prompts: Path,
    method: str,
    top: int,
    output: str | None,
    device: str,
    dtype: str,
    batch_size: int,
    roles: bool,
) -> None:
    """Show what every head of a checkpoint does on a set of prompts.

    For each head: its effect, which is what the answer loses without it; its share of the whole effect; its attention
    to the word in which clean and corrupt prompts differ; and the roles that it plays. A map shows all heads, a table
    those of the largest effects. Nothing is judged.
    """
    if not prompts.name.endswith(SUFFIXES):
        raise click.UsageError(f"--prompts should end in {', '.join(SUFFIXES)}; found {str(prompts)!r}")
    if output not in (None, "-"):
        _refuse_other_file(Path(str(output)))
    try:
        with live(str(prompts)) as watch:
            found = _look(checkpoint, prompts, device, dtype, method=method, roles=roles, batch=batch_size, watch=watch)
        content = json.dumps(builtins({"format": FORMAT, **found.as_json()}), indent=1, allow_nan=False)
    except CircuitsError as error:
        raise Refused(refusal(error, prompts)) from error
    if output == "-":
        click.echo(content)
        return
    width, encoding = shutil.get_terminal_size().columns, getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo("\n".join(heads_text(found, top=top, width=width, encoding=encoding)))
    if output is not None:
        _write(Path(output), content)


def _look(
    checkpoint: str, prompts: Path, device: str, dtype: str, *, method: str, roles: bool, batch: int, watch: Watch
) -> Overview:
    """Measure; what is heavy is imported here."""
    from ..checkpoints.handle import open_checkpoint
    from ..plugin.session import INSTALL, missing_extra

    if missing := missing_extra():
        raise MissingExtra(f"measuring needs {', '.join(missing)}, which is not installed.\n  Install it: {INSTALL}")
    from ..checks.overview import look, question_in

    question = question_in(prompts, root=root_of((prompts,)))
    model = open_checkpoint(checkpoint, device=device, dtype=dtype)
    return look(question, model, method=method, roles=roles, batch_size=batch, watch=watch)


def refusal(error: CircuitsError, prompts: Path) -> str:
    """Return what a refusal says, with the options as this command has them."""
    told = str(error).replace("--circuits-", "--")
    if isinstance(error, PromptError) and prompts.suffix in PAIRS:
        told += (
            "\nA prompt file alone is read with tokens, measure and ablation as they are by default: to set them, name "
            "it in a spec as `prompts: {file: ...}`."
        )
    return told


# -- JSON --------------------------------------------------------------------------------------------------------------


def _refuse_other_file(path: Path) -> None:
    """Refuse, before anything is measured, a path that cannot be written or holds something else."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.UsageError(f"--json: {str(path)!r} cannot be written: no such folder, or no permission.")
    if path.is_file() and not _is_overview(path):  # a pipe is written to: reading it would wait for ever
        raise click.UsageError(
            f"--json: expected no file or what this command wrote earlier, found {str(path)!r}, which is neither. "
            "It would be overwritten. Name another file, or delete this one."
        )


def _is_overview(path: Path) -> bool:
    """Say whether a file is what this command wrote, or empty."""
    try:
        content = path.read_bytes()
        found = json.loads(content) if content else {"format": FORMAT, "method": "", "heads": {}}
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= {"format", "method", "heads"}


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise Refused(f"--json: cannot write {str(path)!r}: {error.strerror}") from error


# -- progress ----------------------------------------------------------------------------------------------------------


@contextmanager
def live(name: str) -> Iterator[Watch]:
    """Give what hears of the work and shows it in a line on stderr, where that is a terminal; at the end it is gone."""
    progress, stream, drawn = Progress(name, LIVE, monotonic), sys.stderr, False

    def watch(what: str, done: int, total: int) -> None:
        nonlocal drawn
        if progress.heard(what, done, total) and _obeys(stream):
            drawn = True
            room = shutil.get_terminal_size().columns - 1
            known = progress.line(room).encode(stream.encoding, "backslashreplace").decode(stream.encoding)
            _draw(stream, ERASE + known[-room:])

    try:
        yield watch
    finally:
        if drawn:
            _draw(stream, ERASE)


def _obeys(stream: IO[str] | None) -> bool:
    """Say whether a stream is a terminal that obeys codes which move its cursor; a closed one is none."""
    return (
        stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and sys.platform != "win32"
    )


def _draw(stream: IO[str], text: str) -> None:
    stream.write(text)
    stream.flush()

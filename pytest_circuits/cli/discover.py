"""`pytest-circuits discover`: find the circuit of a behaviour, and write it as a spec with its baseline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import CircuitsError, MissingExtra
from .graph import BY_SUFFIX
from .heads import Refused, live, refusal
from .lint import root_of

if TYPE_CHECKING:
    from ..checks.discovery import Discovered
    from ..checks.proposal import Proposal
    from ..records import Watch

EPILOG = """\b
Examples:
  pytest-circuits discover --checkpoint ./base --prompts pairs.csv --output specs/agreement.circuit.yaml
  pytest-circuits discover --checkpoint builtin:tiny --prompts specs/tiny/successor.csv --output found.circuit.yaml
  pytest-circuits discover --checkpoint gpt2 --prompts pairs.csv --edges --output found.circuit.yaml

A CSV file has the columns clean, corrupt, answer, foil, and template if there are several kinds of prompts; at least 64
pairs, or 8 of each template. `pytest-circuits heads --help` says what they mean. A spec may stand in its place: its
prompts, tokens, measure and ablation are taken over.

\b
What is done:
  1. Gradients rank all heads and MLPs, or all edges, on one half of the prompts (every other template).
  2. Exact runs find the first so many that carry enough, and take out again what can be spared.
  3. The circuit is measured on the other half.
  4. Roles are proposed by scores, limits by what was measured; what is not green on this checkpoint is left out.

The file is a spec to read and to change, and `__circuits__` beside it holds the baseline. From then on:

\b
  pytest found.circuit.yaml                                    the checkpoint itself: it passes
  pytest found.circuit.yaml --circuits-checkpoint ./finetuned  drift is red

The exit code is 0, and 2 for a call that is wrong and for what is refused, with the reason on stderr.
"""


@click.command("discover", epilog=EPILOG)
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
    help="A .csv, .jsonl or .json file of pairs, or a spec (.circuit.yaml).",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The spec to write, which ends in .circuit.yaml; an existing file is not touched.",
)
@click.option("--edges", is_flag=True, help="Find edges in the place of heads and MLPs.")
@click.option(
    "--graph",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --edges: write all edges with their scores as EAP-IG does, .json or .pt.",
)
@click.option(
    "--faithfulness",
    type=click.FloatRange(0.05, 0.99),
    default=0.9,
    show_default=True,
    metavar="F",
    help="How near the circuit alone comes to the model's own effect: 1 - |1 - F| at least.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto (cuda, else cpu), cpu, cuda, cuda:N, mps, or split."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="Prompts in one forward at most. It bounds memory.",
)
def command(
    checkpoint: str,
    prompts: Path,
    output: Path,
    edges: bool,
    graph: Path | None,
    faithfulness: float,
    device: str,
    batch_size: int,
) -> None:
    """Find the circuit of a behaviour, and write it as a spec with its baseline.

    The smallest set of heads and MLPs, or of edges, that carries the behaviour alone: found on one half of the prompts
    and measured on the other.
    """
    _refuse_other_files(output, graph, edges=edges)
    done = False
    try:
        with live(str(prompts)) as watch:
            found, proposal = _discover(
                checkpoint, prompts, output, edges, faithfulness, device, batch=batch_size, watch=watch
            )
        drawn = [] if graph is None else [_drawn(found, proposal, graph)]
        told = _stored(proposal)
        done = True
    except CircuitsError as error:
        raise Refused(refusal(error, prompts)) from error
    except OSError as error:
        raise Refused(f"{error.filename}: it cannot be written: {error.strerror}") from error
    finally:
        if not done:
            output.unlink(missing_ok=True)  # a draft that came to nothing would be in the way of the next
    click.echo("\n".join([*_told(found, output), *drawn, *proposal.left_out, *told]))


def _refuse_other_files(output: Path, graph: Path | None, *, edges: bool) -> None:
    """Refuse, before anything is measured, what cannot be written or would be overwritten."""
    from ..baselines import baseline_path
    from ..spec.loader import SUFFIX

    if not output.name.endswith(SUFFIX):
        raise click.UsageError(f"--output should end in {SUFFIX}, or no run would collect it; found {str(output)!r}")
    if graph is not None and (not edges or graph.suffix not in BY_SUFFIX):
        raise click.UsageError(
            f"--graph goes with --edges, and names a file in {' or '.join(BY_SUFFIX)}; found {str(graph)!r}"
            f"{'' if edges else ' without --edges'}"
        )
    for option, path in (("--output", output), ("--output", baseline_path(output)), ("--graph", graph)):
        if path is not None and path.exists():
            raise click.UsageError(
                f"{option}: {str(path)!r} is there already, and would be overwritten. Name another file, or delete it."
            )
    for option, path in (("--output", output), ("--graph", graph)):
        if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise click.UsageError(f"{option}: {str(path)!r} cannot be written: no such folder, or no permission.")


def _discover(
    checkpoint: str,
    prompts: Path,
    output: Path,
    edges: bool,
    faithfulness: float,
    device: str,
    *,
    batch: int,
    watch: Watch,
) -> tuple[Discovered, Proposal]:
    """Search and propose; what is heavy is imported here."""
    from ..checkpoints.handle import open_checkpoint
    from ..plugin.run import environment
    from ..plugin.session import INSTALL, missing_extra

    if missing := missing_extra():
        raise MissingExtra(f"measuring needs {', '.join(missing)}, which is not installed.\n  Install it: {INSTALL}")
    from ..checkpoints.devices import describe_device
    from ..checks.discovery import discover
    from ..checks.overview import look, question_in
    from ..checks.proposal import propose
    from ..prompts.files import read_pairs
    from ..spec.loader import SUFFIX

    root = root_of((prompts, output))
    if not prompts.name.endswith(SUFFIX):
        read_pairs(prompts, str(prompts))  # a spec asks for more pairs than a look does
    question = question_in(prompts, root=root)
    model = open_checkpoint(checkpoint, device=device)
    found = discover(question, model.bound, edges=edges, least=faithfulness, batch_size=batch, watch=watch)
    overview = None if edges else look(question, model, method="eap-ig", batch_size=batch, watch=watch)
    proposal = propose(
        found,
        question,
        model,
        overview,
        prompts=prompts,
        output=output,
        root=root,
        environment=environment(describe_device(model.device), model.dtype),
        batch_size=batch,
    )
    return found, proposal


def _stored(proposal: Proposal) -> tuple[str, ...]:
    from ..checks.updating import store

    return store(proposal.prepared)


def _curves(found: Discovered) -> list[str]:
    """Return how much the first edges of the ranking carry, whatever circuit was chosen."""
    if found.cpr is None or found.cmd is None:
        return []
    return [
        f"all edges by rank, on the other half: CPR {found.cpr:.2f} (more is better), CMD {found.cmd:.2f} (0 is best)"
    ]


def _drawn(found: Discovered, proposal: Proposal, path: Path) -> str:
    """Write all edges as a graph, and return what is told of it."""
    from ..integrations.attributed import graph_of
    from ..integrations.files import write_graph

    assert found.attributed is not None
    write_graph(graph_of(found.attributed, found.members, width=proposal.width), path, BY_SUFFIX[path.suffix])
    return f"graph: {path}"


def _told(found: Discovered, output: Path) -> list[str]:
    """Return what was found, in the fewest lines."""
    what = "edges" if found.edges else "heads and MLPs"
    held = found.held_out
    return [
        f"{len(found.members)} of {found.parts} {what}: {', '.join(found.members)}",
        f"alone they carry {found.faithfulness:.2f} of the effect; on prompts on which they were not sought"
        f" {held.value:.2f} (standard error {held.estimate.se:.2g})",
        f"in halves of where it was found, as many of the largest are like it by {found.jaccard:.2f} (Jaccard)",
        *_curves(found),
        f"{found.runs} forwards of each prompt; greedy exact search takes {found.greedy}",
        f"written: {output}",
    ]

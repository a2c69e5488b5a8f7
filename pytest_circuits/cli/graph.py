"""`pytest-circuits graph`: see what a graph file of another tool holds, convert it, or make it part of a spec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import GraphError, MissingExtra, plain

if TYPE_CHECKING:
    from ..integrations.graph import Graph

FORMATS = ("eap-json", "eap-pt", "auto-circuit", "neuronpedia")
BY_SUFFIX = {".json": "eap-json", ".pt": "eap-pt"}
KNOWN_AS = {"eap-json": "EAP-IG, JSON", "eap-pt": "EAP-IG, torch", "auto-circuit": "auto-circuit, scores alone"}
EPILOG = """\b
Examples:
  pytest-circuits graph ioi.json
  pytest-circuits graph ioi.json --edges 200 --spec
  pytest-circuits graph ioi.pt --output ioi.json
  pytest-circuits graph ioi.json --format neuronpedia --output viewer.json

\b
Files that are read, told by what is in them:
  EAP-IG, MIB    JSON (to_json) or .pt (to_pt), with all nodes and edges
  auto-circuit   PruneScores in a file of torch.save; a bare pickle is refused, for it can run code

\b
Formats that are written:
  eap-json       as EAP-IG and MIB read it; no neurons
  eap-pt         as EAP-IG reads it
  auto-circuit   PruneScores: the scores of edges, and nothing else
  neuronpedia    the circuit, for the viewers of Neuronpedia and circuit-tracer

A graph has an edge from everything that adds to the residual stream (embeddings, heads, MLPs) to everything that reads
from it later (a head's queries, keys and values, MLPs, the logits). Scores are shown as they stand in the file: most
tools score a loss, so that an edge that helps has a negative score, and the file does not say.

A circuit is what the file says. Where it says nothing, or to take another, --edges N takes the N edges of the largest
absolute scores, and of these all that are on a way from the embeddings to the logits.

The exit code is 0, and 2 for a call that is wrong and for a file that is refused, with the reason on stderr.
"""


class Refused(click.ClickException):
    """The file cannot be read or written; the message says why."""

    exit_code = 2


@click.command("graph", epilog=EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--edges", type=click.IntRange(min=1), metavar="N", help="Take the N edges of the largest scores as the circuit."
)
@click.option("--spec", is_flag=True, help="Print the circuit as the sections circuit and edges of a spec.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the graph to FILE, which must not exist yet.",
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Of --output. Default: by its name, .json or .pt as EAP-IG."
)
@click.option(
    "--top", type=click.IntRange(min=0), default=10, show_default=True, metavar="N", help="Edges in the table; 0: none."
)
def command(file: Path, edges: int | None, spec: bool, output: Path | None, form: str | None, top: int) -> None:
    """Show what a graph file of another tool holds, write it in another format, or as sections of a spec.

    Shown are the model's shape, how many nodes and edges are in the circuit, and the edges of the largest absolute
    scores, under the names that a spec has for them.
    """
    form = _form(output, form)
    try:
        graph, known = _read(file, edges)
        if spec:
            from ..integrations.spec_text import spec_sections

            click.echo(spec_sections(graph), nl=False)
        elif output is None:
            click.echo("\n".join(_shown(graph, f"{plain(str(file), limit=None)} ({KNOWN_AS[known]})", top)))
        if output is not None and form is not None:
            _write(graph, output, form)
    except (GraphError, MissingExtra) as error:
        raise Refused(str(error)) from error


def _read(file: Path, edges: int | None) -> tuple[Graph, str]:
    """Return the graph and its format; what is heavy is imported here."""
    from ..plugin.session import INSTALL, missing_extra

    if missing := missing_extra():
        raise MissingExtra(f"graphs need {', '.join(missing)}, which is not installed.\n  Install it: {INSTALL}")
    from ..integrations.files import read_graph
    from ..integrations.graph import with_largest

    graph, known = read_graph(file, str(file))
    if edges is None:
        return graph, known
    if graph.neurons is not None or graph.neuron_scores is not None:
        click.echo("note: --edges chooses no neurons, so those of the file are left out", err=True)
    return with_largest(graph, edges), known


def _write(graph: Graph, output: Path, form: str) -> None:
    """Write a graph, and say what is lost."""
    from ..integrations.files import lost, write_graph

    write_graph(graph, output, form)
    for what in lost(graph, form):
        click.echo(f"note: {form} does not hold {what}", err=True)
    click.echo(f"{plain(str(output), limit=None)} written as {form}", err=True)


def _form(output: Path | None, form: str | None) -> str | None:
    """Return the format of what is written, refusing options that do not go together."""
    if output is None:
        if form is not None:
            raise click.UsageError("--format is the format of --output; name that file too")
        return None
    if output.exists():
        raise click.UsageError(
            f"--output: {str(output)!r} exists, and would be overwritten; name another, or delete it"
        )
    if form is None and output.suffix not in BY_SUFFIX:
        raise click.UsageError(f"--output: expected a name in .json or .pt, or --format; found {str(output)!r}")
    return form or BY_SUFFIX[output.suffix]


def _shown(graph: Graph, name: str, top: int) -> list[str]:
    """Return the lines that show a graph."""
    shape = graph.shape
    size = f"{shape.layers} layers of {shape.heads} heads"
    size += f", width {shape.width}" if shape.width else ""
    size += ", MLPs beside the heads" if shape.parallel else ""
    real = int(shape.real.sum())
    scored = int((shape.real & (graph.scores == graph.scores)).sum())
    nodes = len(shape.senders) + 1
    lines = [
        f"{name}: {size}",
        f"nodes in the circuit  {int(graph.nodes.sum()) + 1:,} of {nodes:,}, the logits counted",
        f"edges in the circuit  {int(graph.edges.sum()):,} of {real:,}",
    ]
    if not graph.nodes.any() and not graph.edges.any():
        lines[1:] = [f"no circuit is chosen among {nodes:,} nodes and {real:,} edges; --edges N chooses one"]
    lines += [f"edges with a score    {scored:,} of {real:,}"] if scored < real else []
    lines += ["neurons               told as well, and kept in .pt files"] if graph.neurons is not None else []
    rows = [(str(edge), f"{score:.6g}", "yes" if inside else "no") for edge, score, inside in graph.largest(top)]
    if rows:
        width = max(len(edge) for edge, _, _ in rows)
        lines += ["", f"{'edge':{width}}  {'score':>12}  in the circuit"]
        lines += [f"{edge:{width}}  {score:>12}  {inside}" for edge, score, inside in rows]
    return lines

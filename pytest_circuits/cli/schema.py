"""`pytest-circuits schema`: print the JSON Schema of spec files."""

from __future__ import annotations

from pathlib import Path

import click

from ..spec.json_schema import schema_text

EPILOG = """\b
Examples:
  pytest-circuits schema
  pytest-circuits schema --output circuit.schema.json

Name the file in the first line of a spec, and an editor completes and checks its keys:

\b
  # yaml-language-server: $schema=circuit.schema.json
"""


@click.command("schema", epilog=EPILOG)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE, not to the terminal.",
)
def command(output: Path | None) -> None:
    """Print the JSON Schema of spec files."""
    if output is None:
        click.echo(schema_text(), nl=False)
        return
    try:
        output.write_text(schema_text(), encoding="utf-8", newline="\n")
    except OSError as error:
        raise click.UsageError(f"cannot write {str(output)!r}: {error.strerror}") from error

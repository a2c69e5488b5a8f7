"""Results as text for people: what a failure says, and a table for each checkpoint at the end of the run."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import plain
from ..records import Result, Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

ALWAYS = ("behaviour", "faithfulness", "necessity", "controls", "heads", "roles")
CHECKS = (*ALWAYS, "edges", "attribution", "successor")
"""All columns in their order; those that are not of `ALWAYS` stand where a circuit of the table has them."""
WIDTH = 120
SHORTEST_NAME = 20
SENTENCE = 1000  # characters: our own sentences and commands must not be cut where a foreign name is
WORDS = {
    Verdict.PASS: "pass",
    Verdict.INCONCLUSIVE: "UNSURE",
    Verdict.NOT_EVALUATED: "N/A",
    Verdict.DRIFT: "DRIFT",
    Verdict.ERROR: "ERROR",
}
BELOW = "BELOW"
MEANINGS = {
    "ERROR": "could not be measured",
    "DRIFT": "proven to be further from the reference than the limit allows",
    BELOW: "proven to miss an absolute limit",
    "N/A": "not evaluated: the task is lost, so its ratios mean nothing",
    "UNSURE": "inconclusive: proven neither inside the limit nor beyond it",
}
NUMBERS = "with a sign: the change from the reference that decided; without: the value itself"


@dataclass(frozen=True)
class Line:
    """A line of the summary, with the verdict that colours it."""

    text: str
    verdict: Verdict | None = None


@dataclass(frozen=True)
class _Cell:
    """What a check came to, in a word and the number that decided."""

    word: str = "-"
    number: str = ""


def failure_text(result: Result, *, path: str, node_id: str, arguments: Sequence[str]) -> str:
    """Return what a person reads about a check that did not pass.

    The first line is `path:line: headline`, the details are indented below it, and the last line is the command.

    Args:
        result: the check.
        path: the spec's path as it is shown.
        node_id: the pytest item.
        arguments: the options that a reproduction needs, such as `--circuits-checkpoint` and its value.
    """
    headline, *details = (line for text in (result.headline, *result.details) for line in text.split("\n"))
    first = f"{path}:{result.line}: {headline}"
    command = " ".join(["reproduce: pytest", _quoted(node_id), *map(shlex.quote, arguments)])
    return "\n".join(_sentence(line) for line in (first, *(f"  {detail}" for detail in details), command))


def summary_table(
    results: Sequence[Result], *, checkpoint: str, source: str, reference: str | None, identical: Collection[str] = ()
) -> list[Line]:
    """Return the table of one checkpoint: a row for each circuit, a column for each check, the worst verdict last.

    Args:
        results: of any checkpoints; those of `checkpoint` are shown.
        checkpoint: its name.
        source: what the name stands for, as it was given.
        reference: the name of what drift is measured against; None where there is none.
        identical: the circuits whose reference has the checkpoint's own weights.
    """
    rows: dict[str, dict[str, Result]] = {}
    for result in results:
        if result.checkpoint == checkpoint:
            rows.setdefault(result.circuit, {})[result.check] = result
    lines = [_title(checkpoint, source, reference), Line("")]
    lines += _table(rows)
    lines += [Line(""), *_legend(rows), Line("")]
    for checks in rows.values():
        for result in checks.values():
            lines += _notes(f"warning: {plain(result.circuit)}: {result.check}", result.warnings)
    if identical:
        where = "" if set(identical) >= rows.keys() else f" on {', '.join(sorted(identical))}"
        text = f"the same weights as {reference or 'the reference'}{where}, so only rounding can differ"
        lines += _notes(f"identical: {plain(checkpoint)}", [text])
    return lines


def budget_line(rates: Mapping[str, float], *, checkpoints: int) -> Line:
    """Return how many false alarms the whole run may expect.

    Args:
        rates: circuit -> its spec's false-alarm rate.
        checkpoints: how many checkpoints each was judged on.
    """
    distinct = sorted(set(rates.values()))
    rate = f"{distinct[0]:g}" if len(distinct) == 1 else "their rates"
    specs = f"{len(rates)} spec{'s' * (len(rates) != 1)}"
    runs = f"{checkpoints} checkpoint{'s' * (checkpoints != 1)}"
    expected = sum(rates.values()) * checkpoints
    return Line(f"false alarms: at most {expected:.2g} expected where nothing drifted ({specs} x {runs} x {rate})")


def _title(checkpoint: str, source: str, reference: str | None) -> Line:
    given = "" if source == checkpoint else f" ({plain(source)})"
    nothing = "with no reference: absolute limits are judged, drift is not"
    against = f"compared with {plain(reference)}" if reference else nothing
    return Line(f"checkpoint {plain(checkpoint)}{given}, {against}")


def _table(rows: Mapping[str, Mapping[str, Result]]) -> list[Line]:
    if not rows:
        return [Line("no check of this checkpoint came to an end", Verdict.ERROR)]
    checks = _columns(rows)
    columns = [_column(check, [_cell(row.get(check)) for row in rows.values()]) for check in checks]
    verdicts = [worst([result.verdict for result in row.values()]) for row in rows.values()]
    taken = sum(2 + len(column[0]) for column in columns) + 2 + max(map(len, ["verdict", *verdicts]))
    names = _names(["circuit", *rows], max(WIDTH - taken, SHORTEST_NAME))
    texts = ["  ".join(row).rstrip() for row in zip(names, *columns, ["verdict", *verdicts], strict=True)]
    return [Line(text, verdict) for text, verdict in zip(texts, [None, *verdicts], strict=True)]


def _columns(rows: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Return the checks that have a column: most always, others where some circuit has them."""
    seen = dict.fromkeys(check for row in rows.values() for check in row)
    return list(dict.fromkeys((*(check for check in CHECKS if check in ALWAYS or check in seen), *seen)))


def _names(circuits: Sequence[str], width: int) -> list[str]:
    """Return the names in one width; a longer one loses its beginning, because circuits differ at the end."""
    names = [plain(circuit) for circuit in circuits]
    names = [name if len(name) <= width else "..." + name[3 - width :] for name in names]
    return [name.ljust(max(map(len, names))) for name in names]


def _column(check: str, cells: Sequence[_Cell]) -> list[str]:
    """Return a heading and its cells in one width: words to the left, numbers to the right."""
    word = max(len(cell.word) for cell in cells)
    number = max(len(cell.number) for cell in cells)
    texts = [check, *(f"{cell.word:<{word}} {cell.number:>{number}}".rstrip() for cell in cells)]
    return [text.ljust(max(map(len, texts))) for text in texts]


def _cell(result: Result | None) -> _Cell:
    if result is None:
        return _Cell()
    if not result.records or result.verdict in (Verdict.ERROR, Verdict.NOT_EVALUATED):
        return _Cell(WORDS[result.verdict])
    deciding, word = result.records[0], WORDS[result.verdict]
    drift = deciding.drift
    if result.verdict is Verdict.PASS:
        # Nothing decided against it: a check of many components shows the one that moved most, another its value.
        moves = [record.drift for record in result.records if record.component and record.drift is not None]
        drift = max(moves, key=abs, default=None)
    elif result.verdict is Verdict.DRIFT and drift is None:
        word = BELOW
    return _Cell(word, _number(deciding.value, "") if drift is None else _number(drift, "+"))


def _number(value: float | None, sign: str) -> str:
    if value is None:
        return ""
    return f"{value:{sign}z.2f}" if abs(value) < 1000 else f"{value:{sign}.1e}"


def _legend(rows: Mapping[str, Mapping[str, Result]]) -> list[Line]:
    """Return what the words in the table mean, those that occur in it."""
    cells = [_cell(result) for row in rows.values() for result in row.values()]
    seen = {cell.word for cell in cells}
    lines = [Line(f"{word:<6}  {meaning}") for word, meaning in MEANINGS.items() if word in seen]
    if any(cell.number for cell in cells):
        lines.append(Line(f"number  {NUMBERS}"))
    if any(len(row) < len(_columns(rows)) for row in rows.values()):
        lines.append(Line("-       not declared by the spec, or not in this run"))
    return lines


def _notes(label: str, texts: Sequence[str]) -> list[Line]:
    """Return each text after the label, wrapped; a word is never cut, because a cut could begin a line with `::`."""
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    notes = [f"{label}: {_sentence(' '.join(text.split()))}" for text in texts]
    return [Line(line) for note in notes for line in wrapper.wrap(note)]


def _sentence(text: str) -> str:
    return plain(text, limit=SENTENCE)


def _quoted(node_id: str) -> str:
    """Return a node id in double quotes as people write it, or in the shell's own where those would not hold."""
    return shlex.quote(node_id) if set(node_id) & set('"$`\\!') else f'"{node_id}"'

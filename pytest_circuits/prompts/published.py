"""Prompt files of other tools, told by their columns, become rows with our columns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .rows import Row, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OURS = ("clean", "corrupt", "answer", "foil", "template")
INDEX = ""
"""What pandas calls the column of row numbers."""
IDS = {"correct_idx", "incorrect_idx"}


@dataclass(frozen=True)
class Form:
    """The columns of a tool's file.

    Attributes:
        tool: whose file it is.
        told_by: columns that only this form has.
        columns: ours -> theirs, of those that are the same under another name.
        made_of: ours -> what it is made of in the file, of those that `make` gives.
        make: gives the others of our columns for a row; a ValueError says what is wrong with it.
        more: columns of theirs that are used or skipped as well; None where there may be any.
        join: the text between prompt and answer, where the file has both as they are; None: as the spec says.
        notice: what was chosen to read the file; empty where there was no choice.
    """

    tool: str
    told_by: frozenset[str]
    columns: Mapping[str, str]
    made_of: Mapping[str, str] = field(default_factory=dict)
    make: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {}
    more: tuple[str, ...] | None = ()
    join: str | None = None
    notice: Callable[[Sequence[Row]], str] = lambda _: ""

    def called(self, column: str) -> str:
        """Return what one of our columns is in the file."""
        return self.columns.get(column) or self.made_of.get(column, column)


class Translated(NamedTuple):
    """A file's rows under our columns, the form that it has, a notice or nothing, and problems with their lines."""

    rows: list[Row]
    form: Form
    notice: str
    problems: list[tuple[int, str]]


def translated(rows: Sequence[Row]) -> Translated:
    """Return rows under our columns; those of our own files are as they were.

    Raises:
        Unreadable: the file has token ids in place of answers.
    """
    columns = {column for row in rows for column in row.cells}
    if columns & IDS:
        raise Unreadable(
            1,
            "correct_idx and incorrect_idx are token ids of one tokenizer, which the file does not name; another "
            "would read other words out of them, and nobody would see it. Write the columns answer and foil in their "
            "place, with the text of each id: tokenizer.decode([id])",
        )
    form = next(form for form in FORMS if form.told_by <= columns)
    found: list[Row] = []
    problems: list[tuple[int, str]] = []
    for row in rows:
        problems += [(row.line, problem) for problem in _unknown(row, form)]
        cells = {ours: row.cells[theirs] for ours, theirs in form.columns.items() if theirs in row.cells}
        try:
            found.append(Row(row.line, cells | form.make(row.cells)))
        except ValueError as error:
            problems.append((row.line, str(error)))
    notice = form.notice(rows)
    return Translated(found, form, notice and f"read as a file of {form.tool}: {notice}", problems)


def _unknown(row: Row, form: Form) -> list[str]:
    if form.more is None:
        return []
    known = (*form.columns.values(), *form.more)
    shown = ", ".join(column for column in known if column != INDEX)
    of = "here" if form is OWN else f"in a file of {form.tool}"
    return [f"unknown column {column!r}; known {of}: {shown}" for column in row.cells if column not in known]


# -- what answer and foil are made of ----------------------------------------------------------------------------------


def _years(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return the years on either side of a label: after the prompt the later one is right, the earlier one wrong."""
    label, clean = cells.get("label"), cells.get("clean")
    if not re.fullmatch(r"[0-9]{1,2}", str(label)):
        raise ValueError(f"'label' must be the last two digits of a year, found {label!r:.80}")
    year = int(str(label))
    if isinstance(clean, str) and not re.search(rf"\b[0-9]{{2}}{year:02}\b", clean):
        raise ValueError(
            f"'label' must be the last two digits of a year in 'clean', and no year there ends in {year:02}"
        )
    if not 1 <= year <= 98:
        raise ValueError(
            f"no two digits are {'above 99' if year else 'below 00'}, so this row has no pair; leave it out"
        )
    return {"answer": f"{year + 1:02}", "foil": f"{year - 1:02}"}


def _first_answers(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first answer and the first wrong one."""
    made = {}
    for ours, theirs in (("answer", "answers"), ("foil", "wrong_answers")):
        given = cells.get(theirs)
        if not isinstance(given, list) or not given:
            raise ValueError(f"{theirs!r} must be a list of texts, found {given!r:.80}")
        made[ours] = given[0]
    return made


def _always(text: str) -> Callable[[Sequence[Row]], str]:
    return lambda _: text


def _several(rows: Sequence[Row]) -> str:
    lists = [[row.cells.get(key) for key in ("answers", "wrong_answers")] for row in rows]
    many = sum(any(isinstance(given, list) and len(given) > 1 for given in both) for both in lists)
    return (
        f"{many} of {len(rows)} rows have several answers or wrong answers, of which the first is taken: one answer "
        "is compared with one foil"
        if many
        else ""
    )


def _inside(cells: Mapping[str, Any], *keys: str) -> Any:
    """Return what stands at a path of keys."""
    found: Any = cells
    for at, key in enumerate(keys):
        if not isinstance(found, dict) or found.get(key) is None:
            raise ValueError(f"{'.'.join(keys[: at + 1])!r} is missing")
        found = found[key]
    return found


def _names(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "corrupt": _inside(cells, "s2_io_flip_counterfactual", "prompt"),
        "answer": _inside(cells, "metadata", "indirect_object"),
        "foil": _inside(cells, "metadata", "subject"),
    }


def _symbols(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "corrupt": _inside(cells, "symbol_counterfactual", "prompt"),
        "answer": _symbol(cells),
        "foil": _symbol(cells, "symbol_counterfactual"),
    }


def _symbol(cells: Mapping[str, Any], *where: str) -> Any:
    """Return the symbol of the right choice."""
    labels, right = _inside(cells, *where, "choices", "label"), _inside(cells, *where, "answerKey")
    if not isinstance(labels, list) or not isinstance(right, int) or not 0 <= right < len(labels):
        place = ".".join((*where, "answerKey"))
        raise ValueError(f"{place!r} must be the place of the right one among choices.label, found {right!r:.80}")
    return labels[right]


def _sums(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "corrupt": _inside(cells, "random_counterfactual", "prompt"),
        "answer": str(_inside(cells, "label")),
        "foil": str(_inside(cells, "random_counterfactual", "label")),
    }


# -- the forms ---------------------------------------------------------------------------------------------------------

OWN = Form("pytest-circuits", frozenset(), {column: column for column in OURS})
FORMS = (
    Form(
        "EAP-IG, greater-than",
        frozenset({"corrupted", "label"}),
        {"clean": "clean", "corrupt": "corrupted"},
        {"answer": "label + 1", "foil": "label - 1"},
        _years,
        more=("label", INDEX),
        join="",
        notice=_always(
            "the answer is the year after its label and the foil the year before, and nothing stands between them and "
            "the prompt; EAP-IG's own metric adds up all later and all earlier years, so its numbers differ"
        ),
    ),
    Form(
        "feature-circuits",
        frozenset({"clean_prefix", "patch_prefix"}),
        dict(zip(OURS, ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case"), strict=True)),
        join="",
    ),
    *(
        Form(
            "auto-circuit",
            frozenset({key}),
            {"clean": "clean", "corrupt": "corrupt"},
            {"answer": "answers[0]", "foil": "wrong_answers[0]"},
            _first_answers,
            more=("answers", "wrong_answers"),
            join="",
            notice=_several,
        )
        for key in ("answers", "wrong_answers")
    ),
    *(
        Form(
            f"MIB, {task}",
            frozenset({"prompt", twin} | ({"label"} if make is _sums else set())),
            {"clean": "prompt"},
            {"corrupt": f"{twin}.prompt", "answer": answer, "foil": foil},
            make,
            more=None,
            notice=_always(f"the twin is {twin}, the answer {answer}, the foil {foil}"),
        )
        for task, twin, answer, foil, make in (
            ("ioi", "s2_io_flip_counterfactual", "metadata.indirect_object", "metadata.subject", _names),
            ("multiple choice", "symbol_counterfactual", "the right label", "the right label of the twin", _symbols),
            ("arithmetic", "random_counterfactual", "label", "random_counterfactual.label", _sums),
        )
    ),
    OWN,
)
"""The forms that are known; ours has the columns that are left."""

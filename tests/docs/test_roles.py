"""Every role has a page, whose figures are what the script measures, and a row in the index that says what it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import role_pages

from pytest_circuits.spec.claims import Roles
from pytest_circuits.spec.roles import ROLES
from pytest_circuits.spec.schema import Role

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/reference/roles"
INDEX = FOLDER.with_suffix(".md")
HEADINGS = ["How it is measured", "In the papers", "In builtin:tiny", "What the score cannot tell"]
OF_ITS_OWN = {"successor": ["Digits"]}
TOLERANCE = 0.02


def table(heading: str) -> dict[str, list[str]]:
    """The rows of a table of the index, by the code in their first cell."""
    text = re.split(rf"^#+ {heading}$", INDEX.read_text(encoding="utf-8"), maxsplit=1, flags=re.M)[1]
    rows = [line.strip("|").split("|") for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return {re.findall(r"`(\w+)`", cells[0])[0]: [cell.strip() for cell in cells] for cells in rows[1:]}


def test_every_role_has_a_page_and_no_page_is_of_another() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(ROLES)


def test_the_index_tells_of_every_role_what_it_is_made_of() -> None:
    rows = table("The roles")

    assert list(rows) == list(ROLES)
    for name, (link, about, factors, typical) in rows.items():
        assert link == f"[`{name}`](roles/{name}.md)"
        assert about == ROLES[name].about
        assert re.findall(r"`(\w+)`", factors) == list(ROLES[name].factors), name
        assert typical, name


def test_the_index_tells_every_key_and_every_fate() -> None:
    assert set(table("Roles")) == set(Role.model_fields)
    assert list(table("When a role moves")) == list(get_args(Roles.model_fields["on_move"].annotation))


@pytest.mark.parametrize("role", ROLES)
def test_a_page_has_its_parts(role: str) -> None:
    text = (FOLDER / f"{role}.md").read_text(encoding="utf-8")
    headings = [name for name in re.findall(r"^## (.+)$", text, re.M) if name not in OF_ITS_OWN.get(role, ())]

    assert text.startswith(f"# {role}\n\n")
    assert headings == HEADINGS
    assert ROLES[role].source in text, "the paper that named it"
    assert text.count("\n") < 110, "a page is short"


@pytest.mark.parametrize("role", ROLES)
def test_the_figures_of_a_page_are_what_is_measured(
    role: str, blocks: Callable[..., list[Any]], lacks: Callable[..., list[str]]
) -> None:
    shown = "\n".join(block.text for block in blocks("text", f"docs/reference/roles/{role}.md"))
    printed = "\n".join(role_pages.BLOCKS[role]())

    assert lacks(printed, shown, tolerance=TOLERANCE) == [], "the page shows what is not measured"
    assert lacks(shown, printed, tolerance=TOLERANCE) == [], "the page leaves out what is measured"


def test_digits_of_the_successor_page_are_told_beside_the_papers() -> None:
    shown, beside = (
        part for part in (FOLDER / "successor.md").read_text(encoding="utf-8").split("## Digits")[1].split("| number")
    )
    measured = dict(re.findall(r"^(\w[\w -]*?)  +(-?[\d.]+)  of", shown, re.M))
    told = dict(re.findall(r"^\| `([^`]+)` \|[^|]+\| ([\d.]+) \|", beside, re.M))

    assert told == measured


def test_a_page_that_shows_another_figure_is_seen(lacks: Callable[..., list[str]]) -> None:
    printed = "\n".join(role_pages.BLOCKS["number_mover"]())

    assert lacks(printed, printed.replace("0.53", "0.63"), tolerance=TOLERANCE) != []
    assert lacks(printed, printed.replace("singer", "horse"), tolerance=TOLERANCE) != []

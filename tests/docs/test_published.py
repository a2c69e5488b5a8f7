"""The page of published circuits has every spec that comes with the project, with the heads that the file names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_circuits import load_spec
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from pytest_circuits.spec.schema import Spec

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/published-circuits.md"


@cache
def specs() -> dict[str, Spec]:
    return {
        path.relative_to(ROOT / "specs").as_posix().removesuffix(".circuit.yaml"): load_spec(path, root=ROOT).spec
        for path in (ROOT / "specs").rglob("*.circuit.yaml")
        if path.parent.name != "tiny"
    }


def rows() -> dict[str, list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): rest for name, *rest in cells}


def test_every_published_spec_has_a_row_and_no_other() -> None:
    assert sorted(rows()) == sorted(specs())


def test_the_sources_and_the_heads_are_those_of_the_files() -> None:
    for name, (source, heads, *_) in rows().items():
        spec = specs()[name]
        senders = {edge.sender for edge in spec.wires if isinstance(edge.sender, Head)}
        assert source in spec.source, name
        assert re.findall(r"L\d+H\d+", heads) == [str(head) for head in sorted({*spec.member_heads, *senders})], name


def test_every_row_says_what_is_in_the_literature_and_what_is_wrong() -> None:
    assert [name for name, (_, _, known, wrong) in rows().items() if not known or not wrong] == []


def test_none_is_said_to_be_verified() -> None:
    assert all(spec.verification is not None and not spec.verification.verified for spec in specs().values())
    assert "None of them is [verified]" in PAGE.read_text(encoding="utf-8")

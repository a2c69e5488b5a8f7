"""The page on attribution prints what its code prints, and its tables are what the methods measure on `tiny`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attribution

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGE = "docs/reference/attribution.md"
TOLERANCE = 0.03
"""Numbers are told at two decimals; the order of idle heads, and so their rank, is another machine's rounding."""


def test_the_code_prints_what_stands_below_it(
    blocks: Callable[..., list[Any]], lacks: Callable[..., list[str]]
) -> None:
    code, printed = blocks("any", PAGE)[:2]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.chdir(os.fspath(ROOT)):
        exec(compile(code.text, code.place, "exec"), {})

    assert lacks(out.getvalue(), printed.text, tolerance=TOLERANCE) == []


def test_the_tables_are_what_the_methods_measure(lacks: Callable[..., list[str]]) -> None:
    work = attribution.workload("specs/tiny/verb-agreement.circuit.yaml", "builtin:tiny", str(ROOT))
    heads, edges = (ROOT / PAGE).read_text(encoding="utf-8").split("Agreement in")[1].split("\n\n")[1:3]
    cheap = [line for line in edges.splitlines() if "eap-ig-activations" not in line]

    assert lacks("\n".join(attribution.heads_table(work)), heads, tolerance=TOLERANCE) == []
    assert (
        lacks("\n".join(attribution.edges_table(work, ["eap", "eap-ig"])), "\n".join(cheap), tolerance=TOLERANCE) == []
    )

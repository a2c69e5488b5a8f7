"""The page on attribution prints what its code prints, and its tables are what the methods measure on `tiny`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attribution
import pytest

from pytest_circuits import load_spec, measure, open_checkpoint
from pytest_circuits.attribution.methods import attribute
from pytest_circuits.checks.attribution import Both
from pytest_circuits.gate.effects import Effects
from pytest_circuits.gate.limits import model_heads

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


PROMPTS = {"agreement": "specs/tiny/verb-agreement.circuit.yaml", "succession": "specs/tiny/successor.circuit.yaml"}


def test_the_agreement_of_two_checkpoints_is_what_the_claim_measures() -> None:
    table = (ROOT / PAGE).read_text(encoding="utf-8").split("| `builtin:tiny` and |")[1].split("\n\n")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    runs: dict[tuple[str, str], Any] = {}
    checkpoint = prompts = ""

    def effects(name: str, method: str) -> Effects:
        file = load_spec(ROOT / PROMPTS[prompts], root=ROOT)
        if (name, prompts) not in runs:
            runs[name, prompts] = measure(file, open_checkpoint(f"builtin:{name}", device="cpu"))
        found, heads = runs[name, prompts], model_heads(file.spec)
        rows = attribute(found.runs, method, heads)
        attributed = {str(head): rows.of(head) for head in heads}
        reading: Any = SimpleNamespace(templates=found.templates, noise=found.noise, attribution=attributed)
        return Effects(reading)

    for first, second, method, *told in rows:
        checkpoint, prompts = first or checkpoint, second or prompts
        now, before = effects(checkpoint, method), effects("tiny", method)
        heads = tuple(now.reading.attribution)
        both = [Both(now, before, heads, count) for count in (3, 5)]
        found = [both[0].spearman, *(one.jaccard for one in both)]
        assert [float(cell) for cell in told] == pytest.approx(found, abs=TOLERANCE), (checkpoint, prompts, method)
    assert len(rows) == 9

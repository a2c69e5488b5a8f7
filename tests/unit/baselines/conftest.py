"""A small baseline of two templates with three prompts each, every number with more digits than are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_circuits.baselines import Baseline, Reference, baseline_path, keep
from pytest_circuits.records import Measured

if TYPE_CHECKING:
    from pathlib import Path

CIRCUIT = "specs/tiny/verb-agreement"


@pytest.fixture
def measured() -> Measured:
    clean = np.array([3.14159265, 2.0, 4.123456789, 1.0e-7, 5.0, 123456.789])
    return Measured(
        templates=("near", "near", "near", "that", "that", "that"),
        clean=clean,
        corrupt=-clean,
        clean_logit_diff=clean,
        circuit=clean * 0.9,
        knockout=clean * -0.8,
        floor=clean * -1.0,
        heads={"L0H1": clean * 0.999999999, "L2H0": clean / 3},
        roles={
            "number_mover": {head: {"attention": clean / clean * 0.98765432} for head in ("L0H1", "L2H0")},
            "letter_mover:two": {"L2H0": {"attention": clean / 7}},
            "induction": {"L2H0": {"50 repeated tokens": np.arange(16) / 7}},
            "successor": {"L2H0": {"numbers": np.array([1, 0, 1]), "weekdays": np.array([0.123456789])}},
        },
        noise=1.23456789e-6,
        attribution={"L0H1": clean * 0.123456789, "L2H0": -clean},
        successor={"L2H0": {"probe": np.array([1, 0, 1, 1]), "greater than": np.array([0.123456789, -1.0])}},
    )


@pytest.fixture
def baseline(measured: Measured) -> Baseline:
    return Baseline(
        circuit=CIRCUIT,
        identity="1d" * 32,
        reference=Reference("tiny", "builtin:tiny", "fe" * 32, None),
        measured=keep(measured, circuit=CIRCUIT),
        environment={"torch": "2.10.0", "dtype": "float32"},
        created="2031-05-06",
        reason="first",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "specs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "verb-agreement.circuit.yaml").write_text("format: 1\n")
    return baseline_path(folder / "verb-agreement.circuit.yaml")


@pytest.fixture
def moved(baseline: Baseline, measured: Measured) -> Baseline:
    """The same spec measured on another checkpoint."""
    other = replace(measured, heads={**measured.heads, "L2H0": measured.clean})
    return replace(
        baseline, measured=keep(other, circuit=CIRCUIT), reference=Reference("tuned", "./out", "ab" * 32, "main")
    )

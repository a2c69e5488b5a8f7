"""CPR and CMD: areas by the trapezoid, of circuits that are the first edges of a ranking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pairs import random_pairs
from small_models import bound, random_module

from pytest_circuits.attribution import curves
from pytest_circuits.attribution.curves import PARTS, Curve, curve
from pytest_circuits.attribution.edges import eap_ig
from pytest_circuits.attribution.graph import wires_of
from pytest_circuits.attribution.wiring import wired
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import MeasurementError


@pytest.fixture(scope="module")
def runs() -> Runs:
    model = bound(random_module("gpt2", layers=2, heads=4), "gpt2", layers=2, heads=4)
    pairs = random_pairs((7, 5, 7))
    plain = Runs(model, pairs, value="resample", metric="logit_diff")
    helped = [row if c > x else replace(row, answer=row.foil, foil=row.answer) for row, c, x in _each(pairs, plain)]
    return Runs(model, helped, value="resample", metric="logit_diff")


def _each(pairs: list[Any], plain: Runs) -> list[tuple[Any, float, float]]:
    return list(zip(pairs, plain.clean, plain.corrupt, strict=True))


def naive_area(values: list[float]) -> float:
    return sum(
        (high - low) * (one + other) / 2
        for low, high, one, other in zip(PARTS[:-1], PARTS[1:], values[:-1], values[1:], strict=True)
    )


@pytest.mark.parametrize("by", ["effect", "size"])
def test_a_curve_is_that_of_a_plain_loop(by: Any, runs: Runs) -> None:
    edges, wires = eap_ig(runs), wires_of(runs.model)
    found = curve(runs, edges, by=by)
    mean = {place: float(edges.effects[place].mean()) for place in zip(*np.nonzero(wires.edges), strict=True)}
    ranked = sorted(mean, key=lambda place: -(mean[place] if by == "effect" else abs(mean[place])))

    expected = []
    for part in PARTS:
        live = np.zeros_like(wires.edges)
        for place in ranked[: max(1, round(part * len(ranked)))]:
            live[place] = True
        k, f = wired(runs, [live, np.zeros_like(live)]).mean(-1)
        expected.append((k - f) / (runs.clean.mean() - f))

    np.testing.assert_allclose(found.faithfulness, expected, atol=1e-4)
    assert found.sizes[-1] == len(ranked)
    assert found.faithfulness[-1] == pytest.approx(1, abs=1e-4)
    assert found.cpr == pytest.approx(naive_area(expected), abs=1e-4)
    assert found.cmd == pytest.approx(naive_area([abs(1 - f) for f in expected]), abs=1e-4)


def test_what_carries_all_at_once_has_an_area_of_one_and_misses_nothing() -> None:
    whole = Curve("size", (1,) * len(PARTS), np.ones(len(PARTS)))

    assert (whole.cpr, whole.cmd) == (pytest.approx(0.999), 0.0)
    assert Curve("size", (1,) * len(PARTS), np.zeros(len(PARTS))).cmd == pytest.approx(0.999)
    assert Curve("size", (1,) * len(PARTS), np.full(len(PARTS), 1.5)).cmd == pytest.approx(0.4995)


def test_a_signed_ranking_leaves_what_hurts_for_last(runs: Runs) -> None:
    """So few edges may carry more than the model does, which CPR rewards and CMD does not."""
    edges = eap_ig(runs)
    signed, sized = (curve(runs, edges, by=by) for by in ("effect", "size"))

    assert signed.cpr > sized.cpr
    assert sized.cmd < signed.cmd


def test_where_there_is_nothing_to_carry_no_part_is_told(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "wired", lambda runs, masks, what: np.full((len(masks), 3), 1e9))

    with pytest.raises(MeasurementError, match="should be above 0 and is -1e"):
        curve(runs, eap_ig(runs), by="size")

"""On every architecture the engine's runs equal the naive loop: sweeps, circuits, padding and known prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from naive import Naive
from pairs import ANSWER, FOIL, random_pairs
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.spec.components import Component, Head, Mlp

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

MIXTURES = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3"}
TOGETHER = {"by length": None, "padded": [[0, 1, 2, 3, 4, 5]]}


@pytest.fixture(scope="module", params=VARIANT_NAMES)
def any_model(request: pytest.FixtureRequest) -> BoundModel:
    """A small random model of every architecture, in each of its layouts."""
    return bound(random_module(request.param), request.param)


def requests(model: BoundModel) -> list[frozenset[Component]]:
    """Every head out, every MLP out, a circuit alone, and the same circuit out."""
    heads = [Head(layer, head) for layer in range(model.layers) for head in range(model.heads)]
    mlps = [Mlp(layer) for layer in range(model.layers)]
    circuit = frozenset({heads[1], heads[-2], mlps[0], mlps[-1]})
    return [*(frozenset({part}) for part in (*heads, *mlps)), frozenset({*heads, *mlps}) - circuit, circuit]


def expected(model: BoundModel, pairs: list[Encoded], request: list[frozenset[Component]]) -> np.ndarray:
    naive = Naive(model)
    logits = [[naive.ablated(row, pairs, parts, "resample") for row in pairs] for parts in request]
    return np.array([[float(one[ANSWER] - one[FOIL]) for one in rows] for rows in logits])


def test_every_run_equals_the_naive_loop(any_model: BoundModel) -> None:
    pairs, request = random_pairs(prefix=2), requests(any_model)
    wanted = expected(any_model, pairs, request)
    plain = np.array([float(one[ANSWER] - one[FOIL]) for one in (Naive(any_model).run(row.clean) for row in pairs)])
    allowed = 1e-4 if any_model.architecture.model_type in MIXTURES else 1e-5

    for together in TOGETHER.values():
        runs = Runs(any_model, pairs, value="resample", metric="logit_diff", together=together)
        found = runs.sweep("all", [Ablated(parts) for parts in request])
        assert np.abs(found - wanted).max() < allowed * max(1.0, np.abs(wanted).max())
        assert np.abs(runs.clean - plain).max() < allowed * max(1.0, np.abs(plain).max())
    assert (np.abs(wanted - plain).max(axis=1) > 1e-3).all()  # every part matters, so equality says something

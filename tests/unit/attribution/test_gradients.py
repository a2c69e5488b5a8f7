"""Gradients are per prompt, and the points between ablated and clean integrate what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from derivatives import Derivatives
from pairs import random_pairs
from small_models import bound, random_module

from pytest_circuits.attribution.gradients import CLEAN, Points, differentiable, gauss_legendre
from pytest_circuits.attribution.nodes import atp, integrated
from pytest_circuits.attribution.twins import twins_of
from pytest_circuits.checkpoints.model import EMBED, Site
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import MeasurementError
from pytest_circuits.spec.components import Embedding, Head

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

PADDED = [[0, 1, 2, 3, 4, 5]]


def small(architecture: str) -> BoundModel:
    return bound(random_module(architecture), architecture)


def runs_on(model: BoundModel, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, random_pairs(), **settings)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_points_integrate_every_polynomial_below_twice_their_number(steps: int) -> None:
    points = gauss_legendre(steps)
    at, weights = np.array(points.at), np.array(points.weights)

    assert len(points) == steps
    assert (at > 0).all()
    assert (at < 1).all()
    for degree in range(2 * steps):
        assert abs((weights * at**degree).sum() - 1 / (degree + 1)) < 1e-12
    assert abs((weights * at ** (2 * steps)).sum() - 1 / (2 * steps + 1)) > 1e-30 / steps


def test_a_gradient_by_what_stands_in_front_of_the_graph_is_0() -> None:
    model = small("gpt2")
    (twins,) = list(twins_of(runs_on(model, together=PADDED), (EMBED, Site("z", 0), Site("z", 1))))
    graph = differentiable(twins, [EMBED, Site("z", 0), Site("z", 1)], between=[Site("z", 1)])
    embed, below, here = graph.by([graph.own[site] for site in (EMBED, Site("z", 0), Site("z", 1))])

    assert not embed.any()
    assert not below.any()
    assert here.any()
    assert embed.shape == graph.own[EMBED].shape


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_a_dropped_layer_adds_a_constant(architecture: str) -> None:
    """The same graph serves every layer: the one that is named when it is differentiated."""
    model = small(architecture)
    places = [("embed", 0), ("z", 0), ("z", 1), ("mlp", 1), ("mlp", 2)]
    sites = [EMBED, Site("z", 0), Site("z", 1), Site("mlp", 1), Site("mlp", 2)]
    every = [EMBED, *(Site(kind, layer) for layer in range(3) for kind in ("z", "mlp"))]  # type: ignore[arg-type]
    runs, oracle = runs_on(model, together=[[at] for at in range(6)]), Derivatives(model)
    for twins in list(twins_of(runs, tuple(sites)))[1:3]:
        graph = differentiable(twins, every)
        row = runs.encoded[twins.batch.indices[0]]
        for layer in (1, None, 2):
            graph.dropped[0] = layer
            found = graph.by([graph.own[site] for site in sites], again=True)
            expected = oracle.gradients(row.clean, places, dropped=layer)
            for place, one in zip(places, found, strict=True):
                own = expected[place][twins.first :]
                assert (one[0] - own.reshape(one[0].shape)).abs().max() < 1e-4 * max(1, float(own.abs().max()))


def test_a_divergence_is_flat_at_its_own_clean_run_and_says_so() -> None:
    model = small("gpt2")
    said = r"(?s)a gradient at the clean run .* kl is the distance from that very run.*Measure logit_diff or prob_diff"
    with pytest.raises(MeasurementError, match=said):
        atp(runs_on(model, metric="kl"), [Head(0, 0)])


def test_along_the_way_a_divergence_is_not_flat_and_its_integral_is_exact() -> None:
    runs = runs_on(small("gpt2"), metric="kl")
    few, many = (integrated(runs, [Embedding()], steps=steps)[0] for steps in (3, 60))
    exact = -runs.corrupt  # the embedding alone makes the corrupt run

    assert (exact > 1e-3).all()
    assert np.abs(many - exact).max() < 0.03 * exact.max()
    assert np.abs(many - exact).max() < np.abs(few - exact).max()


class Squared(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
@pytest.mark.parametrize("behind", [torch.nn.Identity(), Squared()], ids=["linear", "quadratic"])
def test_one_point_integrates_a_linear_thing_and_a_quadratic_one_exactly(behind: torch.nn.Module, value: str) -> None:
    """Only the embedding is left, read by a map of known degree; a left Riemann sum would miss the quadratic one."""
    model = small("gpt2")
    for block in model.blocks:
        for adds in (block.attn.c_proj, block.mlp.c_proj):
            adds.weight.data.zero_()
            adds.bias.data.zero_()
    model.module.transformer.ln_f = behind
    runs, oracle = runs_on(model, value=value), Derivatives(model)
    exact = np.array(
        [
            oracle.patched(row.clean, Embedding(), change, 0) - oracle.patched(row.clean, Embedding(), change)
            for row in runs.encoded
            for change in [oracle.ablation(row, runs.encoded, value)["embed", 0]]
        ]
    )
    one, first = integrated(runs, [Embedding()], steps=1)[0], atp(runs, [Embedding()])[0]

    assert np.abs(exact).max() > 0.1
    assert np.abs(one - exact).max() < 1e-4
    assert bool(np.abs(first - exact).max() < 1e-4) == isinstance(behind, torch.nn.Identity)


def test_logits_that_are_not_finite_are_an_error_that_names_a_prompt() -> None:
    model = small("gpt2")
    model.module.get_output_embeddings().weight.data[3] = float("nan")  # the answer

    with pytest.raises(MeasurementError, match="logits that are not finite"):
        atp(runs_on(model), [Head(0, 0)])


def test_a_gradient_leaves_nothing_behind_in_the_model() -> None:
    model = small("gpt2")
    before = runs_on(model).clean
    requires = [parameter.requires_grad for parameter in model.module.parameters()]
    atp(runs_on(model), [Head(0, 0)])

    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert [parameter.requires_grad for parameter in model.module.parameters()] == requires
    assert np.array_equal(runs_on(model).clean, before)


@pytest.mark.parametrize("value", ["resample", "zero", "mean"])
def test_points_count_from_the_ablated_value_to_the_clean_one(value: str) -> None:
    """Points that lie evenly around the middle would not tell which end is which."""
    (twins,) = list(twins_of(runs_on(small("gpt2"), value=value, together=PADDED), (EMBED,)))
    graph = differentiable(twins, [EMBED], points=Points((0.25, 1.0), (1.0, 0.0)))
    quarter, clean = graph.own[EMBED].detach().chunk(2)
    ablated = twins.ablated(EMBED, clean)

    assert torch.equal(clean, twins.clean.values[EMBED])
    assert (quarter - (0.75 * ablated + 0.25 * clean)).abs().max() < 1e-5
    assert (ablated - clean).abs().max() > 0.1


def test_the_clean_point_is_the_clean_run() -> None:
    model = small("gpt2")
    runs = runs_on(model, together=PADDED)
    (twins,) = list(twins_of(runs, (EMBED,)))
    graph = differentiable(twins, [EMBED], points=CLEAN)

    assert abs(float(graph.total.detach()) - runs.clean.sum()) < 1e-4

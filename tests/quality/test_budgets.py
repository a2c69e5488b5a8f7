"""What measuring costs on the shape of GPT-2 small: by FLOP count, which no machine changes, and exact all the same."""

from __future__ import annotations

import gc
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from edges import counted as edges_counted
from edges import number_of_edges
from gate import PARTS, cached_flops
from gate import counted as spec_counted
from naive_loop import NaiveLoop
from small_models import bound, random_module
from sweep import all_heads, swept
from sweep import counted as sweep_counted
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from workload import flops, made_pairs, plain_forward, token_ids
from workload import random_module as published

from pytest_circuits.attribution import edges, layouts
from pytest_circuits.attribution.edges import eap
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

PAGE = Path(__file__).parents[2] / "docs/performance.md"
PAIRS, TOKENS, SHARED = 8, 16, 10
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


class NotComputed(TorchDispatchMode):
    """Leaves products out, a product being its first factor repeated: what they cost depends on shapes alone.

    It is entered before the counter, which then counts what would have been computed.
    """

    def __init__(self, *also: Any) -> None:
        super().__init__()
        self.products = (*PRODUCTS, *also)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self.products:
            return func(*args, **(kwargs or {}))
        one, other = args[-2:]
        return one[..., torch.arange(other.shape[-1]) % one.shape[-1]].contiguous()


@pytest.fixture(scope="module")
def model() -> BoundModel:
    """GPT-2 small with random weights; the self-checks ran on a smaller one of its kind."""
    module = published("gpt2-small")
    small = bound(random_module("gpt2"), "gpt2")
    return replace(small, module=module, blocks=module.transformer.h, layers=12, heads=12, groups=12)


@pytest.fixture
def not_computed() -> Iterator[None]:
    with NotComputed():
        yield


def pairs(model: BoundModel, *, last: bool = False) -> list[Encoded]:
    return made_pairs(PAIRS, TOKENS, SHARED, vocabulary=model.vocabulary, last=last)


def test_products_that_are_not_computed_are_counted(model: BoundModel) -> None:
    ids = token_ids(pairs(model)[:2], model.device)[:, :3]
    computed = flops(lambda: plain_forward(model.module, ids))
    with NotComputed():
        counted = flops(lambda: plain_forward(model.module, ids))

    assert counted == computed > 2 * 6 * 12 * 12 * 768**2  # each of 6 tokens passes 12 layers of 12 x 768 x 768 weights


@pytest.mark.usefixtures("not_computed")
@pytest.mark.parametrize(("last", "budget"), [(False, 22), (True, 6)], ids=["all positions", "the last"])
def test_a_sweep_over_all_heads_costs_what_it_may(model: BoundModel, last: bool, budget: float) -> None:
    found = sweep_counted(model, pairs(model, last=last))

    assert found["naive_forward_equivalents"] == 146
    assert 0.1 * budget < found["forward_equivalents_flops"] <= budget


@pytest.fixture(scope="module")
def spec(model: BoundModel) -> Mapping[str, float]:
    """What each part of a whole spec costs, in F."""
    with NotComputed():
        return spec_counted(model, pairs=PAIRS, tokens=TOKENS, shared=SHARED)


def test_a_whole_spec_costs_what_it_may(spec: Mapping[str, float]) -> None:
    assert all(spec[part] > 0 for part in PARTS)
    assert spec["without_heads_and_controls"] <= 6
    assert 0 < spec["heads"] <= 24
    assert 0 < spec["random_circuit"] <= 0.6


TOLD = {
    "clean": "clean",
    "corrupt": "corrupt",
    "floor": "floor",
    "circuit": "circuit only",
    "knockout": "circuit out",
    "roles": "attention of number movers",
    "noise": "noise floor",
    "heads": "every head out",
    "random_circuit": "random circuits",
}
"""By part, what the page calls it."""


def test_the_page_tells_what_was_counted(spec: Mapping[str, float]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \|[^|]*\| [^|\d]*([\d.]+)[^|]*\|", text, re.M)
    table = {name: float(work) for name, work in rows}
    told = {what: table[name] for what, name in TOLD.items()}

    assert told == {what: pytest.approx(spec[what], abs=0.005) for what in TOLD}
    assert f"the whole spec {spec['without_heads_and_controls']:.1f} F without heads and controls" in text


def test_the_page_tells_what_a_sweep_costs(model: BoundModel) -> None:
    found = []
    for last in (False, True):
        with NotComputed():
            found.append(sweep_counted(model, pairs(model, last=last))["forward_equivalents_flops"])

    assert "{:.1f} F, {:.1f} F where".format(*found) in PAGE.read_text(encoding="utf-8")


def test_an_unchanged_checkpoint_costs_nothing(tmp_path: Path) -> None:
    first, again = cached_flops(tmp_path)

    assert first > 0
    assert again == 0


def tensors() -> int:
    return sum(issubclass(type(it), torch.Tensor) for it in gc.get_objects())


def test_a_forward_holds_nothing_when_it_is_over() -> None:
    small = bound(random_module("gpt2"), "gpt2")
    runs = Runs(small, made_pairs(4, 8, 5, vocabulary=small.vocabulary), value="resample", metric="logit_diff")
    _ = runs.corrupt
    gc.collect()
    gc.disable()  # Python looks for what hangs together in a circle only now and then, whatever memory that takes
    try:
        before = tensors()
        runs.sweep("heads", [Ablated(frozenset({head})) for head in (Head(0, 0), Head(1, 1), Head(2, 2))])
        after = tensors()
    finally:
        gc.enable()

    assert after == before


def test_a_sweep_equals_the_naive_loop_at_full_width(model: BoundModel) -> None:
    heads = all_heads(model)[5::25]
    rows = pairs(model)[:4]
    runs, found = swept(model, rows, heads)
    loop = NaiveLoop(model.module, rows)
    loop.corrupt()

    assert len(heads) == 6
    for head, ours in zip(heads, found, strict=True):
        assert np.abs(ours - loop.without(head).numpy()).max() < 1e-5
        assert np.abs(ours - runs.clean).max() > 1e-3  # the head matters, so equality says something


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gradients(model: BoundModel) -> Mapping[str, float]:
    """What attribution costs in F on pairs that differ from the first token on; self-checks find nothing there."""
    rows = made_pairs(PAIRS, TOKENS, 0, vocabulary=model.vocabulary)
    with pytest.MonkeyPatch.context() as patch, NotComputed(torch.ops.aten.bmm.default):
        for checks in (edges, layouts):
            patch.setattr(checks, "gap", lambda *_: (0.0, 0.0))
        return edges_counted(model, rows, ("atp", "eap", "eap_ig"))


def test_every_part_and_every_edge_costs_what_it_may_to_first_order(
    model: BoundModel, gradients: Mapping[str, float]
) -> None:
    products = gradients["edges"]

    assert number_of_edges(model) == 32491  # as in the literature
    assert 0.1 < products < 0.3
    assert 1 < gradients["atp"] <= 3
    assert 1 + products < gradients["eap"] <= 3 + products
    assert 5 + products < gradients["eap_ig"] <= 11 + products


def test_the_page_tells_what_gradients_cost(gradients: Mapping[str, float]) -> None:
    told = "AtP of every part takes {atp:.1f} F, EAP of all 32,491 edges {eap:.1f} F, EAP-IG of 5 steps {eap_ig:.1f} F"

    assert told.format(**gradients) in " ".join(PAGE.read_text(encoding="utf-8").split())


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the most bytes that torch held at once on the CPU while `run` ran."""
    run()  # what is made once and kept is no part of it
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = np.cumsum([one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())])
    assert held[-1] == 0
    return int(held.max())


def differentiated(model: BoundModel, rows: list[Encoded]) -> None:
    """Run a plain forward and the backward pass to the embeddings."""
    seen: list[torch.Tensor] = []

    def start(_: Any, args: Any, kwargs: Any) -> Any:
        value = args[0] if args else kwargs["hidden_states"]
        seen.append(value.detach().requires_grad_())
        return ((seen[0], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": seen[0]})

    with model.blocks[0].register_forward_pre_hook(start, with_kwargs=True):
        logits = model.module(token_ids(rows, model.device), use_cache=False).logits
    torch.autograd.grad(logits[:, -1, 3].sum(), seen)


ONE_BILLION = {  # the shape of such a model, each width a sixteenth of its own
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_key_value_heads": 8,
    "head_dim": 4,
}


def beside_a_gradient(layers: int) -> int:
    """Return the bytes that all edges take at most, beyond a forward and a backward pass."""
    module = random_module("llama", layers=layers, heads=32, **ONE_BILLION).requires_grad_(False)
    small = bound(module, "llama", layers=layers, heads=32)
    rows = made_pairs(PAIRS, TOKENS, 0, vocabulary=small.vocabulary)
    every = peak_bytes(lambda: eap(Runs(small, rows, value="resample", metric="logit_diff")))
    return every - peak_bytes(lambda: differentiated(small, rows))


def test_edges_take_the_memory_of_one_layer_beside_that_of_a_gradient() -> None:
    one, twice = beside_a_gradient(4), beside_a_gradient(8)

    assert one > PAIRS * TOKENS * 128 * 4 * (32 + 8 + 8)  # what the heads of a layer read
    assert twice < 1.1 * one

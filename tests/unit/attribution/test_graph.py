"""What writes, what reads and the edges between are those of each architecture."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.attribution.graph import is_parallel, reaches, receivers_of, senders_of
from pytest_circuits.spec.components import Embedding, Head, Mlp
from pytest_circuits.spec.edges import Receiver

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

PARALLEL = {
    "codegen",
    "cohere",
    "cohere2",
    "falcon",
    "falcon-grouped",
    "gpt_neox",
    "gptj",
    "phi",
    "stablelm-parallel",
}


def test_what_writes_stands_in_the_order_of_the_layers(model: BoundModel) -> None:
    first, *found = senders_of(model)

    assert first == Embedding()
    assert found[:5] == [Head(0, 0), Head(0, 1), Head(0, 2), Head(0, 3), Mlp(0)]
    assert len(found) == 15
    assert found[-1] == Mlp(2)


def test_keys_and_values_are_counted_as_often_as_there_are_heads_of_them() -> None:
    model = bound(random_module("llama", layers=2), "llama", layers=2)
    names = [str(receiver) for receiver in receivers_of(model)]
    of_a_layer = ["H0.q", "H1.q", "H2.q", "H3.q", "KV0.k", "KV1.k", "KV0.v", "KV1.v", ".mlp"]

    assert names == [*(f"L0{name}" for name in of_a_layer), *(f"L1{name}" for name in of_a_layer), "logits"]
    assert receivers_of(model)[-1] == Receiver(2, "logits")


@pytest.mark.parametrize(
    ("sender", "receiver", "sequential", "parallel"),
    [
        (Embedding(), Receiver(0, "q", 1), True, True),
        (Embedding(), Receiver(2, "logits"), True, True),
        (Head(0, 1), Receiver(0, "q"), False, False),
        (Head(0, 1), Receiver(0, "v", 1), False, False),
        (Head(0, 1), Receiver(0, "mlp"), True, False),
        (Head(0, 1), Receiver(1, "k"), True, True),
        (Mlp(0), Receiver(0, "mlp"), False, False),
        (Mlp(0), Receiver(1, "mlp"), True, True),
        (Mlp(1), Receiver(0, "q"), False, False),
        (Head(1, 0), Receiver(0, "mlp"), False, False),
        (Mlp(1), Receiver(2, "logits"), True, True),
    ],
)
def test_a_sender_reaches_what_is_read_behind_it(
    sender: Head | Mlp, receiver: Receiver, sequential: bool, parallel: bool
) -> None:
    assert reaches(sender, receiver, parallel=False) is sequential
    assert reaches(sender, receiver, parallel=True) is parallel


@pytest.mark.parametrize(("architecture", "edges"), [("gpt2", 262), ("llama", 190), ("gpt_neox", 250)])
def test_edges_are_as_many_as_the_formula_says(architecture: str, edges: int) -> None:
    """Layer i has 1 + i (h + 1) senders in front of each q, k and v; its MLP has h more where it reads its heads."""
    model = bound(random_module(architecture), architecture)
    parallel = is_parallel(model)
    every = product(senders_of(model), receivers_of(model))
    found = sum(reaches(sender, receiver, parallel=parallel) for sender, receiver in every)
    before = [1 + layer * 5 for layer in range(4)]
    reading = sum(it * (4 + 2 * model.groups) + it + (0 if parallel else 4) for it in before[:3]) + before[3]

    assert found == reading == edges


@pytest.mark.parametrize("architecture", VARIANT_NAMES)
def test_whether_the_mlp_stands_beside_the_heads_is_tried_out(architecture: str) -> None:
    model = bound(random_module(architecture, layers=2), architecture, layers=2)

    assert is_parallel(model) is (architecture in PARALLEL)

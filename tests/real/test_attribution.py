"""Attribution on trained models: every method is its naive form on `tiny` and on a language model nobody here made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from derivatives import APART, READINGS, Derivatives

from pytest_circuits import load_spec, open_checkpoint
from pytest_circuits.attribution.direct import direct_effects, logit_lens
from pytest_circuits.attribution.edges import eap, eap_ig
from pytest_circuits.attribution.exact import noising
from pytest_circuits.attribution.graph import senders_of
from pytest_circuits.attribution.nodes import atp, integrated
from pytest_circuits.attribution.paths import path_effects
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.engine.patches import Ablated
from pytest_circuits.engine.runs import Runs
from pytest_circuits.spec.components import Embedding, Head
from pytest_circuits.spec.edges import Receiver

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

ROOT = Path(__file__).parents[2]
MODEL = ROOT.parent / "shared/models/stories260K"
FEW = 2
SUBJECTS = {
    "tiny": (ROOT / "specs/tiny/verb-agreement.circuit.yaml", "builtin:tiny"),
    "stories260K": (ROOT / "tests/real/pronoun-gender.circuit.yaml", str(MODEL)),
}
TINY = replace(READINGS["gpt2"], made={kind: ("attn.c_attn", at * 128, 32) for at, kind in enumerate("qkv")})
LLAMA = replace(READINGS["llama"], made=APART)


class OnPrompts(Derivatives):
    """The oracle, for a prompt with its own answer and foil."""

    def __init__(self, model: BoundModel, row: Encoded) -> None:
        super().__init__(model)
        self.reading = TINY if self.kind == "gpt2" else LLAMA
        self.row = row

    def measured(self, logits: Any) -> Any:
        return logits[self.row.answer] - logits[self.row.foil]


@pytest.fixture(scope="module", params=SUBJECTS)
def runs(request: pytest.FixtureRequest) -> Runs:
    """A few prompts of a spec on its model, replaced at every position."""
    path, checkpoint = SUBJECTS[request.param]
    if checkpoint != "builtin:tiny" and not MODEL.is_dir():
        pytest.skip(f"no language model at {MODEL}")
    every = Measurements(load_spec(path, root=path.parent), open_checkpoint(checkpoint).bound).runs
    equal = [row for row in every.encoded if row.corrupt and len(row.clean) == len(row.corrupt)]
    few = [replace(row, source=tuple(range(len(row.clean)))) for row in equal[:: len(equal) // FEW][:FEW]]
    return Runs(every.model, few, value="resample", metric="logit_diff")


def test_atp_is_the_slope_of_exact_patching(runs: Runs) -> None:
    nodes = [node for node in senders_of(runs.model) if not isinstance(node, Head) or node.head % 3 == 0]
    found = atp(runs, nodes)

    for index, row in enumerate(runs.encoded):
        oracle = OnPrompts(runs.model, row)
        changes = oracle.ablation(row, runs.encoded, "resample")
        slopes = [oracle.slope(row.clean, node, oracle.of_node(changes, node)) for node in nodes]
        assert np.abs(found[:, index] - slopes).max() < 1e-4 * max(1.0, np.abs(slopes).max())


def test_edges_are_naive_derivatives(runs: Runs) -> None:
    found, last = eap(runs), runs.model.layers - 1
    for receiver in (Receiver(1, "q", 1), Receiver(2, "k", 0), Receiver(last, "v", 1), Receiver(last, "mlp")):
        for index, row in enumerate(runs.encoded):
            oracle = OnPrompts(runs.model, row)
            naive = oracle.edges(row.clean, receiver, oracle.ablation(row, runs.encoded, "resample"))
            ours = [found.of(sender, receiver)[index] for sender in naive]
            assert np.abs(np.array(ours) - [*naive.values()]).max() < 1e-4 * max(1.0, *map(abs, naive.values()))


def test_integrated_gradients_of_the_embedding_end_at_exact_patching(runs: Runs) -> None:
    (exact,) = noising(runs, [Ablated(frozenset(), embedding=True)])
    missed = [np.abs(integrated(runs, [Embedding()], steps=steps)[0] - exact).max() for steps in (2, 8, 64)]

    assert missed[2] < 0.01 * np.abs(exact).max()
    assert missed[2] < missed[1] < missed[0]


def test_along_activations_the_edges_of_a_layers_heads_end_at_exact_patching(runs: Runs) -> None:
    layer = 2 if runs.model.architecture.model_type == "gpt2" else runs.model.layers - 1
    heads = [Head(layer, head) for head in range(runs.model.heads)]
    (exact,) = noising(runs, [Ablated(frozenset(heads))])
    edges = eap_ig(runs, steps=24, along="activations")
    rows = [edges.senders.index(head) for head in heads]

    assert np.abs(np.nansum(edges.effects[rows], axis=(0, 1)) - exact).max() < 0.01 * np.abs(exact).max()


def test_direct_effects_and_the_lens_end_at_the_logit_difference(runs: Runs) -> None:
    found = direct_effects(runs)

    assert np.abs(found.effects.sum(0) + found.bias - runs.clean_logit_diff).max() < 1e-4
    assert np.abs(logit_lens(runs)[-1] - runs.clean_logit_diff).max() < 1e-4


def test_all_paths_of_a_last_head_are_its_effect(runs: Runs) -> None:
    """A head of the last layer reaches the logits straight, and through its layer's MLP."""
    head = Head(runs.model.layers - 1, 0)
    logits = [Receiver(runs.model.layers, "logits")]

    free = path_effects(runs, [head], logits, mlps="free")
    assert np.abs(free - noising(runs, [head])).max() < 1e-4

"""Path patching equals two runs with plain hooks, one prompt and one sender at a time, written by module names."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from naive import Naive
from pairs import ANSWER, FOIL, random_pairs
from small_models import bound, random_module

from pytest_circuits.attribution.paths import path_effects
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.errors import InstrumentError, MeasurementError
from pytest_circuits.spec.components import Head, Mlp
from pytest_circuits.spec.edges import Receiver

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

PADDED = [[0, 1, 2, 3, 4, 5]]
LOGITS = Receiver(3, "logits")
SENDERS = (Head(0, 0), Head(0, 3), Mlp(0), Head(1, 2), Mlp(1))
RECEIVERS = {
    "the logits": [LOGITS],
    "a query": [Receiver(2, "q", 1)],
    "a key": [Receiver(2, "k", 1)],
    "a value": [Receiver(2, "v", 0)],
    "several in two layers": [Receiver(1, "q", 3), Receiver(2, "q", 0), Receiver(2, "k", 0), Receiver(2, "v", 1)],
}
WIDTH = 8


def runs_on(model: BoundModel, pairs: list[Encoded] | None = None, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, pairs or random_pairs(), **settings)


class Oracle:
    """Both runs of one sender, whole, with everything that is frozen put there by hand."""

    def __init__(self, model: BoundModel) -> None:
        self.naive = Naive(model)
        self.packed = model.architecture.model_type == "gpt2"
        self.offsets = {"q": 0, "k": model.heads * WIDTH, "v": 2 * model.heads * WIDTH}

    def place(self, receiver: Receiver) -> tuple[Any, slice]:
        """Return what makes a receiver's queries, keys or values, and where they are in its output."""
        block, start = self.naive.blocks[receiver.layer], receiver.unit * WIDTH
        if self.packed:
            start += self.offsets[receiver.kind]
            return block.attn.c_attn, slice(start, start + WIDTH)
        return getattr(block.self_attn, f"{receiver.kind}_proj"), slice(start, start + WIDTH)

    def metric(self, row: Encoded, sender: Head | Mlp, receivers: list[Receiver], mlps: str) -> float:
        """Return the metric of the second run, of the first where the receiver is the logits."""
        assert row.corrupt is not None
        clean, corrupt = self.naive.values(row.clean), self.naive.values(row.corrupt)
        where = [at for at, source in enumerate(row.source) if source >= 0]
        source = [row.source[at] for at in where]
        put: dict[tuple[str, int], torch.Tensor] = {
            key: value.clone() for key, value in clean.items() if key[0] == "z" or mlps == "frozen"
        }
        if isinstance(sender, Head):
            piece = slice(sender.head * WIDTH, (sender.head + 1) * WIDTH)
            put["z", sender.layer][where, piece] = corrupt["z", sender.layer][source, piece]
        else:
            put["mlp", sender.layer] = clean["mlp", sender.layer].clone()
            put["mlp", sender.layer][where] = corrupt["mlp", sender.layer][source]
        noted: dict[Receiver, torch.Tensor] = {}
        with ExitStack() as stack:
            for (kind, layer), value in put.items():
                if kind == "z":
                    module = self.naive.projections[layer]
                    stack.enter_context(module.register_forward_pre_hook(lambda _, args, v=value: (v[None],)))
                else:
                    module = self.naive.mlps[layer]
                    stack.enter_context(module.register_forward_hook(lambda _, args, out, v=value: v[None]))
            for receiver in receivers if receivers != [LOGITS] else []:
                module, piece = self.place(receiver)
                stack.enter_context(
                    module.register_forward_hook(
                        lambda _, args, out, r=receiver, p=piece: noted.__setitem__(r, out[..., p].clone())
                    )
                )
            logits = self.naive.run(row.clean)
        if receivers != [LOGITS]:
            logits = self.second(row, noted)
        return float(logits[ANSWER] - logits[FOIL])

    def second(self, row: Encoded, noted: dict[Receiver, torch.Tensor]) -> torch.Tensor:
        """Return the logits of the clean run in which receivers have what was noted."""

        def replaced(out: torch.Tensor, piece: slice, value: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[..., piece] = value
            return out

        with ExitStack() as stack:
            for receiver, value in noted.items():
                module, piece = self.place(receiver)
                stack.enter_context(
                    module.register_forward_hook(lambda _, args, out, p=piece, v=value: replaced(out, p, v))
                )
            return self.naive.run(row.clean)

    def effects(self, pairs: list[Encoded], receivers: list[Receiver], mlps: str) -> np.ndarray:
        """Return c - p of every sender on every prompt."""
        plain = [self.naive.run(row.clean) for row in pairs]
        clean = np.array([float(one[ANSWER] - one[FOIL]) for one in plain])
        return clean - [[self.metric(row, sender, receivers, mlps) for row in pairs] for sender in SENDERS]


@pytest.fixture(params=["gpt2", "llama"])
def either(request: pytest.FixtureRequest) -> BoundModel:
    """GPT-2, which makes queries, keys and values at once, and a Llama whose heads share them."""
    return bound(random_module(request.param), request.param)


@pytest.mark.parametrize("mlps", ["free", "frozen"])
@pytest.mark.parametrize("receivers", RECEIVERS)
def test_effects_are_those_of_two_runs_with_plain_hooks(either: BoundModel, receivers: str, mlps: Any) -> None:
    pairs, into = random_pairs(kept=(4,)), RECEIVERS[receivers]
    expected = Oracle(either).effects(pairs, into, mlps)

    for options in ({}, {"together": PADDED}, {"batch_size": 1}, {"batch_size": 5, "together": PADDED}):
        found = path_effects(runs_on(either, pairs, **options), SENDERS, into, mlps=mlps)
        assert np.abs(found - expected).max() < 1e-5
    assert (np.abs(expected).max(axis=1) > 1e-4).all()  # every path matters, so equality says something


def test_free_and_frozen_mlps_are_two_measures(either: BoundModel) -> None:
    for into in ([LOGITS], [Receiver(2, "q", 1)]):
        free, frozen = (path_effects(runs_on(either), SENDERS, into, mlps=mlps) for mlps in ("free", "frozen"))
        assert np.abs(free - frozen)[0].max() > 1e-3


def test_with_everything_frozen_the_path_to_the_logits_is_what_the_last_stream_gets(either: BoundModel) -> None:
    """By hand: the sender's change is added to the last residual stream, behind which only norm and logits lie."""
    pairs, naive, layer, head = random_pairs(), Naive(either), 1, 2
    piece, module = slice(head * WIDTH, (head + 1) * WIDTH), either.module
    final = module.transformer.ln_f if hasattr(module, "transformer") else module.model.norm
    found = path_effects(runs_on(either, pairs), [Head(layer, head)], [LOGITS], mlps="frozen")
    for index, row in enumerate(pairs):
        streams: list[torch.Tensor] = []
        with final.register_forward_pre_hook(lambda _, args, into=streams: into.append(args[0][0, -1].clone())):
            clean = naive.run(row.clean)
        z, other = (naive.values(ids or ())["z", layer][-1, piece] for ids in (row.clean, row.corrupt))
        weight = naive.projections[layer].weight
        written = (other - z) @ (weight[piece] if hasattr(module, "transformer") else weight[:, piece].T)
        with torch.no_grad():
            patched = module.lm_head(final(streams[0] + written))
        by_hand = (clean[ANSWER] - clean[FOIL]) - (patched[ANSWER] - patched[FOIL])

        assert abs(found[0, index] - float(by_hand)) < 1e-5


def test_in_one_layer_the_free_path_to_the_logits_is_the_whole_effect() -> None:
    model = bound(random_module("llama", layers=1), "llama", layers=1)
    heads, runs = [Head(0, head) for head in range(4)], runs_on(model)
    found = path_effects(runs, heads, [Receiver(1, "logits")], mlps="free")

    whole = runs.clean - runs.sweep("heads", [Ablated(frozenset({head})) for head in heads])
    assert np.abs(found - whole).max() < 1e-5


def test_a_shared_key_is_replaced_for_every_head_that_reads_it() -> None:
    """Replacing the queries of other heads changes nothing that the two readers of the key do."""
    model = bound(random_module("llama"), "llama")
    key = path_effects(runs_on(model), SENDERS, [Receiver(2, "k", 0)], mlps="free")
    expected = Oracle(model).effects(random_pairs(), [Receiver(2, "k", 0)], "free")
    other = path_effects(runs_on(model), SENDERS, [Receiver(2, "k", 1)], mlps="free")

    assert model.groups == 2
    assert np.abs(key - expected).max() < 1e-5
    assert np.abs(key - other).max() > 1e-3


@pytest.mark.parametrize("metric", ["prob_diff", "kl"])
def test_any_metric_can_be_read_of_the_last_run(either: BoundModel, metric: Any) -> None:
    """In the last layer all that a head does passes to the logits, so its path is the ablation of it."""
    runs = runs_on(either, metric=metric)
    found = path_effects(runs, [Head(2, 1)], [LOGITS], mlps="free")

    assert np.abs(found - (runs.clean - runs.ablated(Ablated(frozenset({Head(2, 1)}))))).max() < 1e-5


def test_senders_of_a_layer_share_forwards_which_who_watches_is_told_of(either: BoundModel) -> None:
    told: list[tuple[str, int, int]] = []
    runs = runs_on(either, random_pairs((6,) * 3), watch=lambda *it: told.append(it))
    _ = runs.clean, runs.corrupt
    told.clear()
    ran: list[int] = []
    with either.blocks[2].register_forward_pre_hook(lambda _, args: ran.append(len(args[0]))):
        path_effects(runs, SENDERS, [Receiver(2, "q", 0)], mlps="free")

    assert told == [("paths", 1, 2), ("paths", 2, 2)]
    assert ran == [3, 9, 9, 6, 6]  # what is frozen, then two runs for the senders of each layer


def test_where_memory_is_out_the_batch_is_halved(either: BoundModel) -> None:
    def full(_: Any, args: Any) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    expected, runs = path_effects(runs_on(either), SENDERS, [LOGITS], mlps="free"), runs_on(either)
    with either.blocks[2].register_forward_pre_hook(full):
        found = path_effects(runs, SENDERS, [LOGITS], mlps="free")

    assert runs.batch_size == 2
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_only_a_resampled_value_makes_a_path(either: BoundModel, value: str) -> None:
    with pytest.raises(MeasurementError, match=f"this ablation is '{value}'.*\n.*ablation.value: resample"):
        path_effects(runs_on(either, value=value), SENDERS, [LOGITS], mlps="free")


@pytest.mark.parametrize(
    ("senders", "receivers", "message"),
    [
        (SENDERS, [Receiver(2, "mlp")], "paths into an MLP cannot be patched.*\n.*as a sender"),
        (SENDERS, [LOGITS, Receiver(2, "q", 0)], "the logits, or queries, keys and values, found L2H0.q, logits"),
        (SENDERS, [], "should be the logits, or queries, keys and values, found none"),
        (
            SENDERS,
            [Receiver(2, "k", 2)],
            "'L2KV2.k' should be a receiver of 'random', .* 4 heads and 2 key/value heads",
        ),
        ([Head(2, 0)], [Receiver(2, "q", 0)], "'L2H0' should come before one of the receivers L2H0.q, .*\n.*earlier"),
        ([Head(0, 0), Mlp(2)], [Receiver(1, "v", 0), Receiver(2, "q", 0)], "'L2.mlp' should come before one of"),
    ],
)
def test_paths_that_cannot_be_are_refused(senders: Any, receivers: list[Receiver], message: str) -> None:
    model = bound(random_module("llama"), "llama")
    with pytest.raises(MeasurementError, match=message):
        path_effects(runs_on(model), senders, receivers, mlps="free")


def test_queries_of_attention_code_of_its_own_cannot_be_reached_and_keys_can() -> None:
    runs = runs_on(bound(random_module("bloom"), "bloom"))

    assert path_effects(runs, [Head(0, 0)], [Receiver(1, "k", 0)], mlps="free").any()
    with pytest.raises(InstrumentError, match="queries can be reached only where attention is called by name"):
        path_effects(runs, [Head(0, 0)], [Receiver(1, "q", 0)], mlps="free")

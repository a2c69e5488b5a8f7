"""Direct effects and the logit lens equal what plain hooks and the formulas give, and sum to the logit difference."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from naive import LAYOUTS, LLAMA, Naive
from pairs import ANSWER, FOIL, random_pairs
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.attribution import direct
from pytest_circuits.attribution.direct import direct_effects, logit_lens
from pytest_circuits.checkpoints.ov import heads_weight
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.errors import InstrumentError
from pytest_circuits.spec.components import Embedding, Head, KeyValue, Mlp

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

PADDED = [[0, 1, 2, 3, 4, 5]]
CAPPED = {"gemma2", "gemma3_text"}
FINAL = {"gpt2": "transformer.ln_f"}
POST_NORM = {"gemma2": "post_attention_layernorm", "olmo2": "post_attention_layernorm"}


def small(architecture: str, **changes: Any) -> BoundModel:
    return bound(random_module(architecture, **changes), architecture)


def runs_on(model: BoundModel, pairs: list[Encoded] | None = None, **options: Any) -> Runs:
    settings: dict[str, Any] = {"value": "resample", "metric": "logit_diff"} | options
    return Runs(model, pairs or random_pairs(), **settings)


def linear(norm: Any, x: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Return what a norm, by its own formula and weights, makes of a part of its input."""
    if isinstance(norm, torch.nn.LayerNorm):
        return (part - part.mean()) / (x.var(correction=0) + norm.eps).sqrt() * norm.weight
    gemma = "Gemma" in type(norm).__name__
    eps = norm.eps if gemma else norm.variance_epsilon
    return part / (x.square().mean() + eps).sqrt() * (1 + norm.weight if gemma else norm.weight)


class Oracle:
    """Direct effects of one prompt, by the names that transformers gives to modules."""

    def __init__(self, model: BoundModel) -> None:
        self.kind = model.architecture.model_type
        self.module, self.heads = model.module, model.heads
        blocks, self.projection, self.mlp = LAYOUTS.get(self.kind, LLAMA)
        self.blocks = list(self.module.get_submodule(blocks))
        self.final = self.module.get_submodule(FINAL.get(self.kind, "model.norm"))

    def run(self, ids: tuple[int, ...], also: Any = ()) -> dict[Any, torch.Tensor]:
        """Return what the last token has: the input of blocks, projections and the final norm, and what MLPs add."""
        seen: dict[Any, torch.Tensor] = {}

        def given(key: Any) -> Any:
            return lambda _, args: seen.__setitem__(key, args[0][0, -1].clone())

        def put(key: Any) -> Any:
            return lambda _, args, out: seen.__setitem__(key, (out[0] if isinstance(out, tuple) else out)[0, -1])

        with ExitStack() as stack, torch.no_grad():
            for module, hook in also:
                stack.enter_context(module.register_forward_pre_hook(hook))
            stack.enter_context(self.final.register_forward_pre_hook(given("final")))
            for layer, block in enumerate(self.blocks):
                projection = block.get_submodule(self.projection)
                stack.enter_context(block.register_forward_pre_hook(given(("into", layer))))
                stack.enter_context(projection.register_forward_pre_hook(given(("z", layer))))
                stack.enter_context(projection.register_forward_hook(put(("projected", layer))))
                stack.enter_context(block.get_submodule(self.mlp).register_forward_hook(put(("mlp", layer))))
            self.module(torch.tensor([ids]))
        return seen

    def effects(self, ids: tuple[int, ...], also: Any = ()) -> dict[Any, float]:
        """Return the direct effect of each part."""
        seen, unembedding = self.run(ids, also), self.module.lm_head.weight

        def effect(part: torch.Tensor) -> float:
            return float(linear(self.final, seen["final"], part) @ (unembedding[ANSWER] - unembedding[FOIL]))

        found = {Embedding(): effect(seen["into", 0])}
        for layer, block in enumerate(self.blocks):
            projection, z = block.get_submodule(self.projection), seen["z", layer]
            width = len(z) // self.heads
            for head in range(self.heads):
                piece = slice(head * width, (head + 1) * width)
                conv = self.kind == "gpt2"
                written = z[piece] @ (projection.weight[piece] if conv else projection.weight[:, piece].T)
                if self.kind in POST_NORM:
                    behind = block.get_submodule(POST_NORM[self.kind])
                    written = linear(behind, seen["projected", layer], written)
                found[Head(layer, head)] = effect(written)
            found[Mlp(layer)] = effect(seen["mlp", layer])
        return found

    def lens(self, ids: tuple[int, ...]) -> list[float]:
        """Return the logit difference read from each layer's input, and behind the last."""
        seen = self.run(ids)
        states = [*(seen["into", layer] for layer in range(len(self.blocks))), seen["final"]]
        logits = [self.module.lm_head(self.final(state)) for state in states]
        return [float(one[ANSWER] - one[FOIL]) for one in logits]


@pytest.mark.parametrize("together", [None, PADDED])
@pytest.mark.parametrize("architecture", VARIANT_NAMES)
def test_the_terms_sum_to_the_models_own_logit_difference(architecture: str, together: Any) -> None:
    model = small(architecture)
    runs = runs_on(model, together=together)
    found, lens = direct_effects(runs), logit_lens(runs)
    own = runs.clean

    if architecture in CAPPED:
        cap = model.module.config.final_logit_softcapping
        logits = torch.stack([model.forward(torch.tensor([row.clean])).logits[0] for row in runs.encoded])
        before = cap * torch.atanh(logits.double() / cap)
        own = (before[:, ANSWER] - before[:, FOIL]).numpy()
    assert np.abs(found.effects.sum(0) + found.bias - own).max() < 1e-4
    assert np.abs(found.total - own).max() < 1e-4
    assert np.abs(lens[-1] - own).max() < 1e-4
    assert lens.shape == (model.layers + 1, 6)
    assert found.effects.shape == (len(found.parts), 6)
    assert (np.abs(found.effects) > 0).all()


@pytest.mark.parametrize("together", [None, PADDED])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "olmo2"])
def test_each_term_is_that_of_plain_hooks_and_the_norms_formulas(architecture: str, together: Any) -> None:
    model, pairs = small(architecture), random_pairs()
    found = direct_effects(runs_on(model, pairs, together=together))
    oracle = [Oracle(model).effects(row.clean) for row in pairs]

    assert set(found.parts) == set(oracle[0])
    for part in found.parts:
        assert np.abs(found.of(part) - [one[part] for one in oracle]).max() < 1e-4


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "olmo2"])
def test_the_lens_is_that_of_plain_hooks(architecture: str) -> None:
    model, pairs = small(architecture), random_pairs()
    found = logit_lens(runs_on(model, pairs, together=PADDED))

    assert np.abs(found.T - [Oracle(model).lens(row.clean) for row in pairs]).max() < 1e-4


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_blocks_of_the_projections_output_are_no_heads_though_they_sum_too(architecture: str) -> None:
    """A mistake that was published: its terms have the same sum, and belong to no head."""
    model, (row, *_) = small(architecture), random_pairs()
    found, oracle = direct_effects(runs_on(model, [row])), Oracle(model)
    seen, unembedding = oracle.run(row.clean), model.module.lm_head.weight
    for layer, block in enumerate(oracle.blocks):
        bias = block.get_submodule(oracle.projection).bias
        put = seen["projected", layer] - (0 if bias is None else bias)
        blocks = torch.block_diag(*put.reshape(model.heads, -1, 1).unbind()).T.reshape(model.heads, -1)
        made = [linear(oracle.final, seen["final"], one) @ (unembedding[ANSWER] - unembedding[FOIL]) for one in blocks]
        heads = np.array([found.of(Head(layer, head))[0] for head in range(model.heads)])

        assert abs(sum(map(float, made)) - heads.sum()) < 1e-4
        assert np.abs(heads - [float(one) for one in made]).min() > 1e-3


@pytest.mark.parametrize("slices", ["of the output", "of another head"])
def test_a_head_that_is_given_other_rows_of_its_projection_is_an_error(model: BoundModel, slices: str) -> None:
    def wrong(model: BoundModel, layer: int) -> torch.Tensor:
        weight = heads_weight(model, layer)
        weight = weight.T if slices == "of the output" else weight.roll(8, dims=0)
        return weight.reshape(model.heads, -1, weight.shape[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "output_weight", wrong)
        with pytest.raises(InstrumentError, match="direct effects on 'random' should sum"):
            direct_effects(runs_on(model))


def test_terms_that_do_not_sum_are_an_error_with_the_numbers(model: BoundModel) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "along", lambda value, direction: 1.01 * (value * direction).sum(-1))
        with pytest.raises(InstrumentError, match=r"direct effects on 'random' should sum to .*, and sum to .*allowed"):
            direct_effects(runs_on(model))


def test_something_behind_the_final_norm_that_is_not_counted_is_an_error(model: BoundModel) -> None:
    """The logits of one token are raised: the products of state and unembedding are not the model's logits."""
    plain = model.module.forward

    def raised(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.module, "forward", raised)
        for read in (direct_effects, logit_lens):
            with pytest.raises(InstrumentError, match=r"should be a constant times state x unembedding, and are not"):
                read(runs_on(model))


def test_logits_that_are_others_in_a_batch_are_an_error(model: BoundModel) -> None:
    """One prompt alone, by which the unembedding is found, does not show it."""
    plain = model.module.forward

    def louder(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = output.logits * (1.5 if len(output.logits) > 1 else 1.0)
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.module, "forward", louder)
        for read in (direct_effects, logit_lens):
            with pytest.raises(InstrumentError, match=r"the final state's products on 'random' should sum to"):
                read(runs_on(model))


def test_a_bias_of_the_unembedding_is_scaled_with_the_logits() -> None:
    module = random_module("granite")
    module.lm_head.bias = torch.nn.Parameter(torch.randn(101))
    runs = runs_on(bound(module, "granite"))
    found, lens = direct_effects(runs), logit_lens(runs)

    assert np.abs(found.effects.sum(0) + found.bias - runs.clean).max() < 1e-4
    assert np.abs(lens[-1] - runs.clean).max() < 1e-4


def test_a_residual_that_something_else_changes_is_an_error(model: BoundModel) -> None:
    with model.blocks[1].register_forward_hook(lambda _, args, output: 1.5 * output):
        with pytest.raises(InstrumentError, match="Something else adds to the logits than what is counted"):
            direct_effects(runs_on(model))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_direct_effects_without_parts_are_those_of_the_run_in_which_they_are_ablated(architecture: str) -> None:
    model, pairs = small(architecture), random_pairs(kept=(0,))
    parts = frozenset({Head(0, 1), Head(2, 3), Mlp(1)})
    found = direct_effects(runs_on(model, pairs, together=PADDED), without=Ablated(parts))

    naive, oracle = Naive(model), Oracle(model)
    for index, row in enumerate(pairs):
        values = naive.ablation(row, pairs, "resample")
        where = [at for at, source in enumerate(row.source) if source >= 0]
        seen: list[dict[Any, float]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(naive, "run", lambda ids, seen=seen: seen.append(oracle.effects(ids)))
            naive.logits(row.clean, parts, values, where)
        for part in found.parts:
            assert abs(found.of(part)[index] - seen[0][part]) < 1e-4


def test_ablating_moves_what_is_behind_and_the_total_is_that_of_the_ablated_run(model: BoundModel) -> None:
    for value in ("resample", "zero", "mean"):
        runs, without = runs_on(model, value=value), Ablated(frozenset({Head(1, 0), KeyValue(0, 0)}), embedding=False)
        plain, found = direct_effects(runs), direct_effects(runs, without=without)

        assert np.abs(found.total - runs.ablated(without)).max() < 1e-4
        assert np.abs(found.of(Mlp(2)) - plain.of(Mlp(2))).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "granite"])
def test_half_precision_sums_within_its_rounding(architecture: str, dtype: torch.dtype) -> None:
    model = small(architecture)
    whole = direct_effects(runs_on(model))
    model.module.to(dtype)
    half = direct_effects(runs_on(model))

    assert np.abs(half.effects - whole.effects).max() < 32 * torch.finfo(dtype).eps * np.abs(whole.effects).max()


def test_who_watches_is_told_of_every_batch(model: BoundModel) -> None:
    told: list[tuple[str, int, int]] = []
    runs = runs_on(model, watch=lambda *it: told.append(it))
    direct_effects(runs)
    logit_lens(runs)

    assert told == [(what, done, 3) for what in ("direct effects", "logit lens") for done in (1, 2, 3)]


def test_where_memory_is_out_the_batch_is_halved(model: BoundModel) -> None:
    def full(_: Any, args: Any) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    expected, runs = direct_effects(runs_on(model)), runs_on(model)
    with model.blocks[2].register_forward_pre_hook(full):
        found = direct_effects(runs)

    assert runs.batch_size == 1
    assert np.abs(found.effects - expected.effects).max() < 1e-5

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pytest_circuits.builtin.grammar import agreement_pairs, held_out_lines, succession_pairs
from pytest_circuits.builtin.survey import (
    Activations,
    all_heads,
    all_mlps,
    by_template,
    effect,
    faithfulness,
    later_year_mass,
    logit_difference,
    observe,
    patched_logits,
    pooled,
    scores,
    successor_scores,
    tokens_of,
)
from pytest_circuits.builtin.vocabulary import SEQUENCES, vocabulary


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    size = len(vocabulary())
    config = GPT2Config(
        vocab_size=size, n_positions=32, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=None
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def pairs() -> list[object]:
    return by_template(agreement_pairs(seed=0, per_template=6))["phrase"]


def test_patching_a_run_with_itself_changes_nothing(model: GPT2LMHeadModel, pairs: list) -> None:
    tokens = tokens_of(pair.clean for pair in pairs)
    logits, own = observe(model, tokens)
    assert torch.allclose(patched_logits(model, tokens, own, all_heads(model), all_mlps(model)), logits, atol=1e-6)


def test_patching_one_head_leaves_the_others_in_its_layer_alone(model: GPT2LMHeadModel, pairs: list) -> None:
    tokens = tokens_of(pair.clean for pair in pairs)
    _, own = observe(model, tokens)
    z = tuple(layer.clone() for layer in own.z)
    z[1][..., 8:] += 1.0
    logits = patched_logits(model, tokens, Activations(z, own.mlps), [(1, 0)])
    assert torch.allclose(logits, observe(model, tokens)[0], atol=1e-6)


def test_hooks_are_gone_after_a_measurement(model: GPT2LMHeadModel, pairs: list) -> None:
    effect(model, pairs)
    for block in model.transformer.h:
        assert not block.attn.c_proj._forward_pre_hooks
        assert not block.mlp._forward_hooks


def test_a_circuit_of_everything_is_fully_faithful_and_of_nothing_not_at_all(
    model: GPT2LMHeadModel, pairs: list
) -> None:
    assert faithfulness(model, [pairs], all_heads(model), all_mlps(model)) == pytest.approx(1.0, abs=1e-3)
    assert faithfulness(model, [pairs], (), ()) == pytest.approx(0.0, abs=1e-3)


def test_a_silent_head_has_no_share(model: GPT2LMHeadModel, pairs: list) -> None:
    weight = model.transformer.h[1].attn.c_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:8] = 0.0
    try:
        assert effect(model, pairs).share((1, 0)) == pytest.approx(0.0, abs=1e-3)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_shares_are_of_the_way_from_clean_to_floor(model: GPT2LMHeadModel, pairs: list) -> None:
    found = effect(model, pairs)
    tokens = tokens_of(pair.clean for pair in pairs)
    assert found.clean == pytest.approx(logit_difference(observe(model, tokens)[0], pairs))
    lost = found.share((0, 1)) * (found.clean - found.floor)
    assert found.patched[(0, 1)] == pytest.approx(found.clean - lost)


def test_pooled_effects_weigh_every_template_the_same(model: GPT2LMHeadModel) -> None:
    groups = by_template(succession_pairs(seed=0, per_format=2))
    effects = [effect(model, group) for group in list(groups.values())[:3]]
    assert pooled(effects).clean == pytest.approx(sum(one.clean for one in effects) / 3)
    assert set(pooled(effects).patched) == set(all_heads(model))


def test_successor_scores_are_parts_of_the_members_with_a_successor(model: GPT2LMHeadModel) -> None:
    for normed in (True, False):
        found = successor_scores(model, (1, 2), normed)
        assert set(found) == {sequence.kind for sequence in SEQUENCES} | {"all"}
        assert all(0.0 <= score <= 1.0 for score in found.values())


def test_scores_count_every_held_out_line_once(model: GPT2LMHeadModel) -> None:
    lines = held_out_lines(seed=1, per_template=2)
    assert sum(score.lines for score in scores(model, lines).values()) == len(lines)


def test_an_untrained_model_puts_some_mass_on_later_years(model: GPT2LMHeadModel) -> None:
    lines = [line for line in held_out_lines(seed=1, per_template=4) if line.behaviour == "later-year"]
    assert 0.0 < later_year_mass(model, lines) < 1.0

"""The successor score: a planted head has it, others do not, and the batched form equals a naive loop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from naive_ov import naive_output, naive_value, stages
from small_models import VARIANT_NAMES, VOCABULARY, bound, random_module

from pytest_circuits.checkpoints.ov import output_weight, value_weights
from pytest_circuits.checks.roles import STEPS
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import PromptError
from pytest_circuits.gate.limits import per_template
from pytest_circuits.roles import ov_circuit
from pytest_circuits.roles.reading import read_role
from pytest_circuits.roles.successor import DAYS, LEAST, MONTHS, TASKS
from pytest_circuits.spec.claims import Roles
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

WORDS = [*DAYS.split(), *MONTHS.split(), "one", "two", "three", "four"]
PLANTED = Head(1, 2)


class Words:
    """A tokenizer that knows some words, each as one token; anything else is the unknown token 0."""

    unk_token_id = 0

    def __init__(self, words: list[str], *, prefix: str = "") -> None:
        self.ids = {prefix + word: 7 + 3 * place for place, word in enumerate(words)}

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [self.ids.get(text, 0)]}


def with_words(model: BoundModel, words: list[str] = WORDS, *, prefix: str = "") -> BoundModel:
    return replace(model, tokenizer=Words(words, prefix=prefix))


def successor_scores(model: BoundModel) -> dict[Head, dict[str, list[float]]]:
    """The role's numbers, as lists; it asks no prompts."""
    found = read_role("successor", Runs(model, (), value="mean", metric="logit_diff"))
    return {head: {task: values.tolist() for task, values in tasks.items()} for head, tasks in found.items()}


def naive_score(model: BoundModel, head: Head, words: list[str], *, cyclic: bool) -> list[float]:
    """The definition, token by token."""
    embed, norm, mlp, norms, final = stages(model)
    tokens = [model.tokenizer.ids[word] for word in words]
    hits = []
    with torch.no_grad():
        for place, token in enumerate(tokens if cyclic else tokens[:-1]):
            residual = norms[head.layer](mlp(norm(embed.weight[token])))
            value = naive_value(model, head) @ residual
            written = torch.stack([w * v for w, v in zip(naive_output(model, head), value, strict=True)]).sum(0)
            state = final(written) - final(torch.zeros_like(written))  # what it adds to every token is no head's
            logits = {t: float(state @ model.module.lm_head.weight[t]) for t in tokens}
            hits.append(float(max(logits, key=lambda t: logits[t]) == tokens[(place + 1) % len(tokens)]))
    return hits


def plant_successor(model: BoundModel, head: Head) -> None:
    """Set W_O of a head so that its OV circuit maps each weekday to the next."""
    embed, norm, mlp, norms, _ = stages(model)
    tokens = torch.tensor([model.tokenizer.ids[day] for day in DAYS.split()])
    with torch.no_grad():
        values = norms[head.layer](mlp(norm(embed.weight[tokens]))) @ naive_value(model, head).T
        goals = model.module.lm_head.weight[tokens.roll(-1)]
        naive_output(model, head).copy_(torch.linalg.pinv(values) @ (goals - goals.mean(0)) * 10)


def test_a_planted_successor_head_scores_one_and_others_do_not(model: BoundModel) -> None:
    model = with_words(model)
    plant_successor(model, PLANTED)
    others = [Head(layer, head) for layer in range(3) for head in range(4) if Head(layer, head) != PLANTED]
    scores = successor_scores(model)

    assert scores[PLANTED]["weekdays"] == [1.0] * 7
    assert max(sum(scores[other]["weekdays"]) for other in others) < 5


def test_scores_equal_the_naive_loop(model: BoundModel) -> None:
    model = with_words(model)
    scores = successor_scores(model)

    assert len(scores) == 12
    for head, tasks in scores.items():
        assert tasks["weekdays"] == naive_score(model, head, DAYS.split(), cyclic=True)
        assert tasks["months"] == naive_score(model, head, MONTHS.split(), cyclic=True)


def test_weights_of_a_head_are_its_own(model: BoundModel) -> None:
    for head in (Head(0, 0), Head(2, 3)):
        assert torch.equal(value_weights(model, head.layer)[head.head].T, naive_value(model, head))
        assert torch.equal(output_weight(model, head.layer)[head.head], naive_output(model, head))


FIRST = {
    "bloom": lambda m, b, e: b.mlp.dense_4h_to_h(
        b.mlp.gelu_impl(b.mlp.dense_h_to_4h(b.post_attention_layernorm(m.transformer.word_embeddings_layernorm(e))))
    ),
    "codegen": lambda m, b, e: b.mlp(b.ln_1(e)),
    "cohere": lambda m, b, e: b.mlp(b.input_layernorm(e)),
    "falcon": lambda m, b, e: b.mlp(b.input_layernorm(e)),
    "falcon-grouped": lambda m, b, e: b.mlp(b.ln_mlp(e)),
    "falcon-sequential": lambda m, b, e: b.mlp(b.post_attention_layernorm(e)),
    "gemma": lambda m, b, e: b.mlp(b.post_attention_layernorm(e)),
    "gemma2": lambda m, b, e: b.post_feedforward_layernorm(b.mlp(b.pre_feedforward_layernorm(e))),
    "glm4": lambda m, b, e: b.post_mlp_layernorm(b.mlp(b.post_attention_layernorm(e))),
    "gpt_neo": lambda m, b, e: b.mlp(b.ln_2(e)),
    "gpt_neox": lambda m, b, e: b.mlp(b.post_attention_layernorm(e)),
    "gpt_oss": lambda m, b, e: b.mlp(b.post_attention_layernorm(e)[None])[0][0],
    "granite": lambda m, b, e: b.mlp(b.post_attention_layernorm(1.5 * e)),
    "mpt": lambda m, b, e: b.ffn.down_proj(b.ffn.act(b.ffn.up_proj(b.norm_2(e)))),
    "olmo2": lambda m, b, e: b.post_feedforward_layernorm(b.mlp(e)),
    "opt": lambda m, b, e: b.fc2(b.activation_fn(b.fc1(b.final_layer_norm(e)))),
    "phi": lambda m, b, e: b.mlp(b.input_layernorm(e)),
    "stablelm": lambda m, b, e: b.mlp(b.post_attention_layernorm(e)),
    "stablelm-parallel": lambda m, b, e: b.mlp(b.input_layernorm(e)),
}
TOKENS = torch.arange(7, 60, 5)


@pytest.mark.parametrize("architecture", FIRST)
def test_the_first_stage_is_the_mlp_on_the_embedding_alone(architecture: str) -> None:
    model = bound(random_module(architecture), architecture)
    with torch.inference_mode():
        embedded = model.module.get_input_embeddings()(TOKENS)
        expected = FIRST[architecture](model.module, model.blocks[0], embedded)
        torch.testing.assert_close(ov_circuit.first_stage(model, TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_a_norm_behind_the_heads_is_applied() -> None:
    model = bound(random_module("gemma2"), "gemma2")
    block, inner = model.blocks[1], model.module.model
    with torch.inference_mode():
        first = ov_circuit.first_stage(model, TOKENS)
        values = block.input_layernorm(first) @ block.self_attn.v_proj.weight[12:24].T  # head 2 reads group 1
        written = block.post_attention_layernorm(values @ block.self_attn.o_proj.weight[:, 24:36].T)
        expected = inner.norm(written) @ inner.embed_tokens.weight[TOKENS].T
        found = ov_circuit.final_states(model, 1, first)[2] @ inner.embed_tokens.weight[TOKENS].T
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("architecture", [name for name in VARIANT_NAMES if name != "deepseek_v3"])
def test_heads_of_every_architecture_are_scored(architecture: str) -> None:
    model = with_words(bound(random_module(architecture), architecture))
    with torch.inference_mode():
        logits = dict(ov_circuit.logits_of(model, TOKENS.tolist(), lambda *_: None))[1]

    assert logits.isfinite().all()
    assert (logits[1:] - logits[:-1]).abs().amax((1, 2)).min() > 1e-3  # each head its own
    assert len(successor_scores(model)[PLANTED]["weekdays"]) == 7


def test_values_that_pass_a_bottleneck_are_refused() -> None:
    model = with_words(bound(random_module("deepseek_v3"), "deepseek_v3"))

    with pytest.raises(PromptError, match="needs its W_V, and a deepseek_v3 has none: .*\n  Drop the role"):
        successor_scores(model)


def test_an_embedding_that_is_mapped_into_the_residual_stream_is_refused() -> None:
    model = with_words(bound(random_module("opt", word_embed_proj_dim=16), "opt"))

    with pytest.raises(PromptError, match="which in 'random' has 16 numbers, and the residual stream 32.\n"):
        successor_scores(model)


def test_a_task_with_too_few_single_tokens_is_not_scored(model: BoundModel) -> None:
    scores = successor_scores(with_words(model))

    assert set(scores[PLANTED]) == {"weekdays", "months"}  # of the number words only four are known


def test_words_that_begin_with_a_space_are_found(model: BoundModel) -> None:
    scores = successor_scores(with_words(model, prefix=" "))

    assert len(scores[PLANTED]["months"]) == 12


def test_words_whose_token_has_no_embedding_are_not_asked(model: BoundModel) -> None:
    model = with_words(model)
    model.tokenizer.ids["december"] = VOCABULARY

    assert len(successor_scores(model)[PLANTED]["months"]) == 10


def test_a_sequence_that_does_not_wrap_leaves_its_last_word_out(model: BoundModel) -> None:
    words = list("abcdefghij")
    scored = with_words(model, words)

    found = successor_scores(scored)[PLANTED]

    assert found == {"letters": naive_score(scored, PLANTED, words, cyclic=False)}
    assert len(found["letters"]) == 9


def test_a_tokenizer_without_any_sequence_is_an_error(model: BoundModel) -> None:
    with pytest.raises(PromptError, match="needs sequence words that are single tokens"):
        successor_scores(with_words(model, ["dog", "cat"]))


def test_tasks_are_long_enough_to_fit_a_limit() -> None:
    assert all(len(task.words) >= 7 and len(set(task.words)) == len(task.words) for task in TASKS.values())
    assert VOCABULARY > 7 + 3 * len(WORDS)


def test_a_reading_of_the_wrong_third_is_told_apart() -> None:
    """The planted head's score is lost when keys are taken for values: the test would see it."""
    model = with_words(bound(random_module("gpt2"), "gpt2"))
    plant_successor(model, PLANTED)
    weight = model.part(1, "attn.c_attn").weight.data
    weight.copy_(torch.cat([weight[:, :32], weight[:, 64:], weight[:, 32:64]], dim=1))

    assert sum(successor_scores(model)[PLANTED]["weekdays"]) < 5


def test_a_head_that_writes_nothing_says_nothing(model: BoundModel) -> None:
    """Whatever the norm behind it adds to every token: that is no head's."""
    model = with_words(model)
    final = model.module.get_submodule(model.architecture.final_norm)
    with torch.no_grad():
        naive_output(model, PLANTED).zero_()
        if (bias := getattr(final, "bias", None)) is not None:
            bias.copy_(100 * model.module.lm_head.weight[model.tokenizer.ids["tuesday"]])

    said = dict(ov_circuit.logits_of(model, [7, 10, 13], lambda *_: None))[1][PLANTED.head]

    assert torch.count_nonzero(said) == 0
    assert sum(sum(hits) for hits in successor_scores(model)[PLANTED].values()) == 0


def test_what_a_final_norm_adds_to_every_token_moves_no_score(model: BoundModel) -> None:
    model = with_words(model)
    before = dict(ov_circuit.logits_of(model, TOKENS.tolist(), lambda *_: None))
    final = model.module.get_submodule(model.architecture.final_norm)
    if (bias := getattr(final, "bias", None)) is not None:
        bias.data.copy_(torch.linspace(-9, 9, len(bias)))

    for layer, logits in ov_circuit.logits_of(model, TOKENS.tolist(), lambda *_: None):
        torch.testing.assert_close(logits, before[layer], rtol=1e-4, atol=1e-4)


def test_six_steps_of_a_task_are_too_few_for_its_default_limit(model: BoundModel) -> None:
    assert "letters" not in successor_scores(with_words(model, [*WORDS, *"abcdefg"]))[PLANTED]
    assert "letters" in successor_scores(with_words(model, [*WORDS, *"abcdefgh"]))[PLANTED]
    assert per_template(Roles().drift_at_most) >= STEPS / LEAST

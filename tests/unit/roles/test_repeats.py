"""Roles on repeated tokens: the sequences are what they should be, and the scores what a plain loop gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hand_set import Tokenizer
from imagined import in_role, reading
from naive import Naive
from small_models import VOCABULARY, bound, random_module
from tokenizers import AddedToken

from pytest_circuits.checkpoints.model import BoundModel
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import MeasurementError, PromptError
from pytest_circuits.gate.effects import Effects
from pytest_circuits.gate.scores import Scores, refuse_other_samples
from pytest_circuits.roles import induction_causal, repeats
from pytest_circuits.roles.reading import every_head, read_role
from pytest_circuits.roles.repeats import repeated

ROLES = ("previous_token", "current_token", "duplicate_token", "induction")


def small(architecture: str, *, context: int = 32, tokenizer: Any = None, **changes: Any) -> BoundModel:
    module = random_module(architecture, max_position_embeddings=context, **changes)
    return replace(bound(module, architecture), tokenizer=tokenizer or Tokenizer(size=VOCABULARY))


def runs_of(model: BoundModel, **options: Any) -> Runs:
    return Runs(model, (), value="mean", metric="logit_diff", **options)


def naive_scores(model: BoundModel, role: str) -> np.ndarray:
    """The definition, (layers, heads, sequences): sequence by sequence, query by query, from eager code."""
    sequences = repeated(model)
    size, bos = sequences.size, sequences.ids.shape[1] - 2 * sequences.size
    back = {"previous_token": 1, "current_token": 0, "duplicate_token": size, "induction": size - 1}[role]
    half = size if role in ("duplicate_token", "induction") else 1
    module = model.module
    module.config._attn_implementation = "eager"
    out = np.zeros((model.layers, model.heads, len(sequences.ids)))
    for n, row in enumerate(sequences.ids):
        ids = torch.tensor(row)[None]
        with torch.no_grad():
            told = module(ids, attention_mask=torch.ones_like(ids), output_attentions=True, use_cache=False).attentions
        for layer in range(model.layers):
            for head in range(model.heads):
                found = [float(told[layer][0, head, q, q - back]) for q in range(bos + half, len(row))]
                out[layer, head, n] = sum(found) / len(found)
    module.config._attn_implementation = "sdpa"
    return out


@pytest.mark.parametrize("bos", [0, None])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_scores_equal_the_naive_loop(architecture: str, role: str, bos: int | None) -> None:
    model = small(architecture, tokenizer=Tokenizer(size=VOCABULARY, bos_token_id=bos))
    expected = naive_scores(model, role)

    for head, named in read_role(role, runs_of(model, batch_size=5)).items():
        assert named[repeated(model).name] == pytest.approx(expected[head.layer, head.head], abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_what_a_head_causes_equals_the_naive_loop(architecture: str) -> None:
    model = small(architecture, context=20)
    rows = induction_causal.prompts(repeated(model))
    naive = Naive(model)
    kept = [naive.values(row.clean) for row in rows]
    values = {key: torch.stack([one[key] for one in kept]).mean(0) for key in kept[0]}
    found = read_role("induction_causal", runs_of(model))

    for head in every_head(model)[::5]:
        for row, effect in zip(rows, found[head][repeated(model).name], strict=True):
            clean = naive.run(row.clean)
            ablated = naive.logits(row.clean, {head}, values, list(range(len(row.clean))))
            lost = (clean - ablated)[row.answer] - (clean - ablated)[row.foil]
            assert effect == pytest.approx(float(lost), abs=2e-4)


def test_the_cut_sequence_is_followed_by_its_answer() -> None:
    model = small("llama", context=20)
    sequences = repeated(model)

    for row, whole in zip(induction_causal.prompts(repeated(model)), sequences.ids.tolist(), strict=True):
        assert [*row.clean, row.answer] == whole
        assert row.foil in row.clean
        assert row.foil not in (row.answer, row.clean[-1])
        assert row.source == tuple(range(len(row.clean)))


def test_sequences_repeat_distinct_plain_tokens_behind_one_bos() -> None:
    sequences = repeated(small("llama", context=500))

    assert sequences.size == 50
    assert sequences.ids.shape == (16, 101)
    assert (sequences.ids[:, 0] == 0).all()
    assert (sequences.ids[:, 1:51] == sequences.ids[:, 51:]).all()
    assert all(len(set(row[1:51])) == 50 and 0 not in row[1:] for row in sequences.ids.tolist())
    assert len({tuple(row) for row in sequences.ids.tolist()}) == 16
    firsts = [row[1] for row in sequences.ids.tolist()]
    assert len(set(firsts)) > 12  # no order is another's


@pytest.mark.parametrize(("context", "name"), [(500, "50 repeated tokens"), (50, "24 repeated tokens")])
@pytest.mark.parametrize("role", [*ROLES, "induction_causal"])
def test_numbers_are_stored_under_a_name_that_says_how_many_tokens_are_repeated(
    role: str, context: int, name: str
) -> None:
    found = read_role(role, runs_of(small("llama", context=context)))

    assert {*map(tuple, found.values())} == {(name,)}


@pytest.mark.parametrize("role", [*ROLES, "induction_causal"])
def test_a_checkpoint_of_a_shorter_context_is_not_compared_with_its_reference(role: str) -> None:
    """The score over 24 tokens is another measure than that over 50, of as many sequences."""
    now, before = (
        Scores(Effects(in_role(reading(), role, **{str(head): named for head, named in found.items()})), role)
        for found in (read_role(role, runs_of(small("llama", context=context))) for context in (50, 500))
    )
    refuse_other_samples(now, now, "L0H0")

    with pytest.raises(MeasurementError, match="16 of '50 repeated tokens'; found 16 of '24 repeated tokens'.\n"):
        refuse_other_samples(now, before, "L0H0")


def test_sequences_are_the_same_on_every_machine() -> None:
    assert repeats._ranked(range(12))[[0, 7]].tolist() == [
        [9, 8, 10, 4, 3, 11, 0, 1, 7, 2, 6, 5],
        [5, 11, 4, 1, 10, 2, 7, 0, 8, 6, 3, 9],
    ]


def test_added_tokens_move_no_other() -> None:
    before, after = repeats._ranked(range(100)), repeats._ranked(range(130))

    assert all(
        [t for t in long if t < 100] == short for short, long in zip(before.tolist(), after.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    ("context", "words", "bos", "size"), [(32, 101, 0, 15), (32, 101, None, 16), (300, 30, 0, 29), (17, 101, 0, 8)]
)
def test_as_many_tokens_are_repeated_as_there_is_room_for(context: int, words: int, bos: int | None, size: int) -> None:
    model = small("llama", context=context, tokenizer=Tokenizer(size=words, bos_token_id=bos))

    assert repeated(model).size == size
    assert repeated(model).ids.shape == (16, (bos is not None) + 2 * size)


@dataclass
class Marked(Tokenizer):
    """Has tokens that stand for no text, each said in another way."""

    unk_token_id: int | None = 3
    all_special_ids: tuple[int, ...] = (4, 5)
    added_tokens_decoder: Any = None

    def __post_init__(self) -> None:
        self.added_tokens_decoder = {6: AddedToken("<mark>", special=True), 7: AddedToken("word", special=False)}


def test_tokens_that_are_no_text_are_left_out() -> None:
    ids = repeated(small("llama", context=300, tokenizer=Marked(size=30))).ids[:, 1:]

    assert set(ids.flatten().tolist()) == {*range(30)} - {0, 3, 4, 5, 6}


def test_tokens_without_an_embedding_are_left_out() -> None:
    ids = repeated(small("llama", context=300, tokenizer=Tokenizer(size=500))).ids

    assert ids.max() < VOCABULARY


@pytest.mark.parametrize(
    ("context", "words", "found"), [(16, 101, "16 positions and 100"), (32, 8, "32 positions and 7")]
)
@pytest.mark.parametrize("role", [*ROLES, "induction_causal"])
def test_too_short_a_repetition_is_refused(role: str, context: int, words: int, found: str) -> None:
    model = small("gpt2", context=context, tokenizer=Tokenizer(size=words))

    with pytest.raises(PromptError, match=f"need 8 distinct tokens, .*'random' has {found} plain tokens.\n.*Drop the"):
        read_role(role, runs_of(model))


def test_who_watches_hears_of_the_sequences() -> None:
    heard: list[tuple[str, int, int]] = []
    read_role("induction", runs_of(small("gpt2"), batch_size=6, watch=lambda *said: heard.append(said)))

    assert heard == [("repeated tokens", done, 16) for done in (6, 12, 16)]


def test_memory_that_is_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("gpt2")
    expected = read_role("induction", runs_of(model))
    whole = repeats.attention_of

    def little_memory(model: BoundModel, ids: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if len(ids) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return whole(model, ids, *args, **options)

    monkeypatch.setattr(repeats, "attention_of", little_memory)
    runs = runs_of(model, batch_size=16)
    found = read_role("induction", runs)

    assert runs.batch_size == 4
    assert runs.notices
    for head, named in expected.items():
        (name,) = named
        assert found[head][name] == pytest.approx(named[name], abs=1e-6)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_taking_outputs_for_heads_is_told_apart(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of cutting heads from what the output projection puts out."""
    model = small(architecture, context=20)
    right = read_role("induction_causal", runs_of(model))
    register = BoundModel._register

    def of_the_output(self: BoundModel, site: Any, passed: Any) -> Any:
        if site.kind != "z":
            return register(self, site, passed)
        return self.part(site.layer, self.architecture.projection).register_forward_hook(
            lambda _, args, output: self._by_head(output, lambda z: passed(site, z))
        )

    monkeypatch.setattr(BoundModel, "_register", of_the_output)
    runs = runs_of(model)
    wrong = read_role("induction_causal", runs)
    differs = [abs(wrong[head][name] - right[head][name]).mean() for head, (name,) in right.items()]

    assert max(differs) > 0.05

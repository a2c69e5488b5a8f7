"""A successor head in depth: planted digits are found and can be edited; without them everything is at chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from small_models import bound
from transformers import GPT2Config, GPT2LMHeadModel

from pytest_circuits.errors import PromptError
from pytest_circuits.roles.reading import Asked
from pytest_circuits.roles.successor import MONTHS, TASKS
from pytest_circuits.roles.successor_depth import measure_depth
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

NUMERALS = [str(n) for n in range(1, 100)]
WIDTH, DECADE, DIGIT = 48, 0, 10
COUNTS, COPIES = Head(1, 0), Head(1, 1)
"""The first writes decade and digit + 1, the second what it reads."""


class Words:
    """A tokenizer that knows some words, each as one token; anything else is the unknown token 0."""

    unk_token_id = 0

    def __init__(self, words: list[str]) -> None:
        self.ids = {word: 1 + place for place, word in enumerate(words)}

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [self.ids.get(text, 0)]}


@dataclass(frozen=True)
class Weights:
    """What a role from weights asks of runs."""

    model: BoundModel

    def watch(self, what: str, done: int, total: int) -> None:
        """Hear nothing."""


def places() -> list[int]:
    """The number that each token stands for: numerals, then months by their index."""
    return [*range(1, 100), *range(1, 13)]


def digits_model(*, digits: bool = True) -> BoundModel:
    """A GPT-2 whose tokens are decade + digit, that MLP 0 passes on, and that one head counts on from.

    Without digits each token is a direction of its own.
    """
    torch.manual_seed(0)
    size = 1 + len(places())
    config = GPT2Config(
        vocab_size=size, n_embd=WIDTH if digits else 2 * size, n_layer=2, n_head=2, n_positions=16, n_inner=None
    )
    module: Any = GPT2LMHeadModel(config).eval()
    width = config.n_embd
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for norm in [module.transformer.ln_f, *(n for b in module.transformer.h for n in (b.ln_1, b.ln_2))]:
            norm.weight.fill_(1.0)
        wte = torch.zeros(size, width)
        wte[0, -2:] = 1.0  # the unknown token; every token has two ones, so that the norms treat them alike
        for token, number in enumerate(places(), start=1):
            wte[token, [DECADE + number // 10, DIGIT + number % 10] if digits else [2 * token, 2 * token + 1]] = 1.0
        for token in range(100, size) if digits else ():
            wte[token, 40] = 1.0  # what makes a month another word than the numeral of its index
        module.transformer.wte.weight.copy_(wte)
        first = module.transformer.h[0].mlp
        first.c_fc.weight[:, :width] = torch.eye(width)
        first.c_fc.bias[:width] = 30.0  # far on the right of the GELU, which is linear there
        first.c_proj.weight[:width] = torch.eye(width)
        first.c_proj.bias -= 30.0
        attention, head = module.transformer.h[1].attn, width // 2
        for at, step in ((0, 1), (1, 0)):
            own = slice(at * head, (at + 1) * head)
            value = attention.c_attn.weight[:, 2 * width :][:, own]
            value[:20, :20] = torch.eye(20)
            output = attention.c_proj.weight[own]
            output[:10, :10] = torch.eye(10)
            output[10:20, 10:20] = torch.eye(10).roll(step, 1)
        module.transformer.h[0].attn.c_proj.weight.normal_(std=0.1)  # the instrument checks itself on layers that work
        module.transformer.h[0].attn.c_attn.weight.normal_(std=0.1)
        attention.c_attn.weight[:, : 2 * width].normal_(std=0.1)
        module.transformer.h[1].mlp.c_fc.weight.normal_(std=0.1)
        module.transformer.h[1].mlp.c_proj.weight.normal_(std=0.1)
    model = bound(module, "gpt2", layers=2, heads=2)
    return replace(model, tokenizer=Words([*NUMERALS, *MONTHS.split()]))


def means(model: BoundModel, heads: tuple[Head, ...] = (COUNTS, COPIES)) -> dict[Head, dict[str, float]]:
    found = measure_depth(Asked(Weights(model)), heads)  # type: ignore[arg-type]
    return {head: {name: float(np.mean(values)) for name, values in named.items()} for head, named in found.items()}


def test_planted_digits_are_found_and_a_head_that_reads_them_counts_on_from_an_edited_one() -> None:
    found = means(digits_model())

    counts, copies = found[COUNTS], found[COPIES]
    assert counts["probe"] == counts["coverage"] == 1.0
    assert counts["transfer"] > 0.8  # the months: centring them moves the few digits that they have
    # Of 20 to 29 each is edited to nine others, 90 edits; the 9 that end at 29 need a carry, which no linear head has.
    assert counts["edit numerals 20-29"] == pytest.approx(81 / 90)
    assert counts["edit months"] > 0.5
    assert copies["edit numerals 20-29"] == 0.0


def test_without_digits_nothing_is_above_chance() -> None:
    found = means(digits_model(digits=False))[COUNTS]

    assert found["probe"] <= 0.2
    assert found["coverage"] <= 0.2
    assert found["edit numerals 20-29"] <= 0.2


def test_each_numeral_is_left_out_of_what_it_is_tested_by() -> None:
    """Random directions are fitted perfectly by a probe that has seen them."""
    found = means(digits_model(digits=False))[COUNTS]

    assert found["probe"] < 0.5


def test_the_number_of_samples_is_the_number_of_edits_and_tokens() -> None:
    found = measure_depth(Asked(Weights(digits_model())), [COUNTS])[COUNTS]  # type: ignore[arg-type]

    assert len(found["probe"]) == len(found["coverage"]) == len(NUMERALS)
    assert len(found["edit numerals 20-29"]) == 90
    assert len(found["transfer"]) == 12  # `may` is a month, and alone no sequence of month prefixes
    assert len(found["greater than"]) == len(NUMERALS) - 1


def test_too_few_numerals_are_refused() -> None:
    model = replace(digits_model(), tokenizer=Words(NUMERALS[:12]))

    with pytest.raises(PromptError, match="at least two with each last digit, and 'random' has 12 numerals"):
        means(model)


def test_the_tasks_are_those_of_the_successor_role() -> None:
    assert {"numerals", "months"} <= TASKS.keys()

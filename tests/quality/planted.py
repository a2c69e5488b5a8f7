"""Planted faults and benign changes: functions that change a GPT-2 in place, and the training behind some of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from pytest_circuits.builtin.training import Schedule, train

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.spec.components import Head

Change = Callable[[Any], None]


def changed(model: BoundModel, *changes: Change) -> BoundModel:
    """Return a copy of a bound model with the changes applied; the self-checks are not run again."""
    module = copy.deepcopy(model.module)
    for change in changes:
        change(module)
    blocks = module.get_submodule(model.architecture.blocks)
    return replace(model, name="changed", fingerprint="changed", module=module, blocks=blocks)


def rows(module: Any, head: Head) -> slice:
    """Return the rows of the output projection that belong to a head."""
    width = module.config.n_embd // module.config.n_head
    return slice(head.head * width, (head.head + 1) * width)


def scaled_head(head: Head, factor: float) -> Change:
    """Scale what a head writes; 0 zeroes it."""

    def change(module: Any) -> None:
        module.transformer.h[head.layer].attn.c_proj.weight.data[rows(module, head)] *= factor

    return change


def scaled_logits(factor: float) -> Change:
    """Scale every logit, through the final norm that the unembedding reads."""

    def change(module: Any) -> None:
        module.transformer.ln_f.weight.data *= factor
        module.transformer.ln_f.bias.data *= factor

    return change


def copied_head(source: Head, target: Head) -> Change:
    """Give a head of the same layer the weights of another."""
    assert source.layer == target.layer

    def change(module: Any) -> None:
        attention = module.transformer.h[source.layer].attn
        width = module.config.n_embd
        for part in range(3):
            own, other = (slice(part * width + rows(module, h).start, part * width + rows(module, h).stop)
                          for h in (target, source))  # fmt: skip
            attention.c_attn.weight.data[:, own] = attention.c_attn.weight.data[:, other]
            attention.c_attn.bias.data[own] = attention.c_attn.bias.data[other]
        attention.c_proj.weight.data[rows(module, target)] = attention.c_proj.weight.data[rows(module, source)]

    return change


def swapped_heads(one: Head, other: Head) -> Change:
    """Exchange two heads of a layer: every logit stays, the roles move."""
    assert one.layer == other.layer

    def change(module: Any) -> None:
        attention = module.transformer.h[one.layer].attn
        order = list(range(module.config.n_head))
        order[one.head], order[other.head] = order[other.head], order[one.head]
        size = module.config.n_embd // module.config.n_head
        index = torch.tensor([head * size + i for head in order for i in range(size)])
        thirds = torch.cat([index + part * module.config.n_embd for part in range(3)])
        attention.c_attn.weight.data = attention.c_attn.weight.data[:, thirds]
        attention.c_attn.bias.data = attention.c_attn.bias.data[thirds]
        attention.c_proj.weight.data = attention.c_proj.weight.data[index]

    return change


def trained_further(*, steps: int, rate: float, seed: int) -> Change:
    """Train on, on new sentences of the grammar that the checkpoint was trained on: what a benign fine-tune is."""

    def change(module: Any) -> None:
        module.requires_grad_(True)
        train(module, Schedule(seed=seed, steps=steps, rate=rate, batch=64, warmup=5, sparsity=0.02))
        module.requires_grad_(False)

    return change


def trained_on(
    sentences: Sequence[str], tokenizer: Any, *, steps: int, rate: float, seed: int, batch: int = 64
) -> Change:
    """Train on the last word of sentences: benign ones keep a circuit, contrary ones break it."""

    def change(module: Any) -> None:
        rng = random.Random(seed)
        optimizer = torch.optim.AdamW(module.requires_grad_(True).parameters(), lr=rate, weight_decay=0.0)
        for _ in range(steps):
            rows = [tokenizer(text)["input_ids"] for text in rng.sample(sentences, batch)]
            loss = torch.tensor(0.0)
            for length in {len(row) for row in rows}:
                ids = torch.tensor([row for row in rows if len(row) == length])
                logits = module(input_ids=ids[:, :-1]).logits[:, -1]
                loss = loss + cross_entropy(logits, ids[:, -1], reduction="sum")
            optimizer.zero_grad()
            (loss / batch).backward()
            optimizer.step()
        module.requires_grad_(False)

    return change

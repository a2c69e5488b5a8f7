"""Train the built-in checkpoints: ``python -m pytest_circuits.builtin.train --output DIR [--only NAME] [--card]``."""

from __future__ import annotations

import argparse
import copy
import json
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pytest_circuits.builtin import builtin_names
from pytest_circuits.builtin.card import write_card
from pytest_circuits.builtin.grammar import agreement_pairs, succession_pairs
from pytest_circuits.builtin.storage import load, new_model, save
from pytest_circuits.builtin.survey import Head, all_heads, by_template, effect, pooled, successor_scores
from pytest_circuits.builtin.training import Schedule, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from transformers import GPT2LMHeadModel

LEARNED = Schedule(seed=0, steps=3600, rate=2e-3, sparsity=0.02, free=0.35)
LIFTED = Schedule(seed=501, steps=700, rate=2e-3, sparsity=0.02, free=0.25, warmup=50)
GATHERED = Schedule(seed=701, steps=800, rate=2e-3, sparsity=0.02, free=0.4, warmup=50, induction=0.2)
REPEATED = Schedule(seed=901, steps=500, rate=5e-4, sparsity=0.04, warmup=30, induction=0.6)
TUNED = Schedule(seed=1001, steps=150, rate=2e-5, sparsity=0.04, warmup=20)
MOVED = Schedule(seed=2001, steps=500, rate=1.5e-3, sparsity=0.02, warmup=50, induction=0.3)
FREED = Schedule(seed=3001, steps=100, rate=2e-4, sparsity=0.02, warmup=20, induction=0.3)
SUCCESSOR, OTHER_SUCCESSOR = (3, 3), (3, 1)
"""The heads whose weights are taught succession in ``tiny``, and in ``tiny-rewired``."""
IDLE = 0.01
"""The spread of a freed head's weights: enough to be a head again, too little to be of use."""


def _silence(model: GPT2LMHeadModel, places: list[int]) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    """A hook that holds the z of these heads of a layer at zero."""
    heard = torch.ones(model.config.n_head, model.config.n_embd // model.config.n_head)
    heard[places] = 0.0
    return lambda _, inputs: inputs[0] * heard.flatten()


@contextmanager
def silenced(heads: tuple[Head, ...], model: GPT2LMHeadModel) -> Iterator[None]:
    """Hold these heads' z at zero for the length of the block."""
    with ExitStack() as stack:
        for layer in {layer for layer, _ in heads}:
            silence = _silence(model, [place for own, place in heads if own == layer])
            stack.callback(model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(silence).remove)
        yield


def forget(model: GPT2LMHeadModel, heads: Iterable[Head], seed: int, spread: float = IDLE) -> None:
    """Give these heads random weights, small ones unless told otherwise."""
    generator = torch.Generator().manual_seed(seed)
    width: int = model.config.n_embd
    size = width // model.config.n_head
    with torch.no_grad():
        for layer, place in heads:
            attention = model.transformer.h[layer].attn
            own = slice(place * size, (place + 1) * size)
            attention.c_proj.weight[own] = torch.randn(size, width, generator=generator) * spread
            for part in range(3):
                columns = slice(part * width + own.start, part * width + own.stop)
                attention.c_attn.weight[:, columns] = torch.randn(width, size, generator=generator) * spread
                attention.c_attn.bias[columns] = 0.0


def _head(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def _recipe(stages: dict[str, Schedule]) -> str:
    """The stages as the card tells them."""
    return "; ".join(f"{what}: `{schedule}`" for what, schedule in stages.items())


RECIPES = {
    "tiny": _recipe(
        {
            "all heads": LEARNED,
            f"first two layers' heads and {_head(OTHER_SUCCESSOR)} silent, succession taught to the weights of "
            f"{_head(SUCCESSOR)}": LIFTED,
            "first two layers' heads free again with small random weights": GATHERED,
            "mostly repeated blocks, heads at twice the price": REPEATED,
        }
    ),
    "tiny-tuned": _recipe({"from tiny, all heads": TUNED}),
    "tiny-rewired": _recipe(
        {
            "from tiny, its carriers silent, towards its predictions, succession taught to "
            f"{_head(OTHER_SUCCESSOR)}": MOVED,
            "carriers free again with small random weights": FREED,
        }
    ),
}


def responsible(model: GPT2LMHeadModel) -> tuple[Head, ...]:
    """The heads that carry a tenth of agreement or of succession, or that know half of the successors."""
    chosen: set[Head] = set()
    for pairs in (agreement_pairs(seed=11, per_template=32), succession_pairs(seed=11, per_format=12)):
        whole = pooled(effect(model, group) for group in by_template(pairs).values())
        chosen |= {head for head in all_heads(model) if whole.share(head) > 0.1}
    chosen |= {head for head in all_heads(model) if successor_scores(model, head)["all"] > 0.5}
    return tuple(sorted(chosen))


def untuned() -> GPT2LMHeadModel:
    """Learn everything; learn it again without the heads of the first two layers; give those back; repeat long blocks.

    A head of the first layers works on words few MLPs have read, and does succession there if it may. Behind them the
    same role shows in a head's weights. The last words of a long block are rare: few lines are long, and the far
    positions are seen by them alone.
    """
    model = new_model(LEARNED.seed)
    train(model, LEARNED)
    early = tuple(head for head in all_heads(model) if head[0] < 2)
    forget(model, early, LIFTED.seed)
    forget(model, [OTHER_SUCCESSOR], GATHERED.seed)
    train(model, LIFTED, held=partial(silenced, (*early, OTHER_SUCCESSOR)), successor=SUCCESSOR)
    forget(model, early, GATHERED.seed, spread=0.05)
    for schedule in (GATHERED, REPEATED):
        train(model, schedule, held=partial(silenced, (OTHER_SUCCESSOR,)), successor=SUCCESSOR)
    return model


def tuned(tiny: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Train gently on, on new sentences of the same grammar."""
    model = copy.deepcopy(tiny)
    train(model, TUNED)
    return model


def rewired(tiny: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Learn to predict as ``tiny`` does without the heads it does it with, then give those back, emptied."""
    model, heads = copy.deepcopy(tiny), responsible(tiny)
    print("silenced heads:", ", ".join(f"{layer}.{place}" for layer, place in heads), flush=True)
    forget(model, heads, MOVED.seed)
    train(model, MOVED, teacher=tiny, held=partial(silenced, heads), successor=OTHER_SUCCESSOR)
    train(model, FREED, teacher=tiny, successor=OTHER_SUCCESSOR)
    return model


def build(name: str, output: Path) -> None:
    """Train one checkpoint and store it; all but ``tiny`` start from the stored ``tiny``."""
    began = time.perf_counter()
    if name == "tiny":
        model = untuned()
    else:
        model = {"tiny-tuned": tuned, "tiny-rewired": rewired}[name](load(output / "tiny"))
    save(model, output / name)
    _note_time(output, name, time.perf_counter() - began)


def _note_time(output: Path, name: str, seconds: float) -> None:
    """Remember how long the training took, for the card."""
    path = output / "timings.json"
    timings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**timings, name: round(seconds)}, indent=2) + "\n")


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train the built-in checkpoints.")
    parser.add_argument("--output", type=Path, required=True, help="directory the checkpoints' directories go to")
    parser.add_argument("--only", choices=builtin_names(), help="train this one only")
    parser.add_argument("--card", action="store_true", help="measure the stored checkpoints and write MODEL_CARD.md")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.only or not arguments.card:
        for name in [arguments.only] if arguments.only else builtin_names():
            print(f"== {name}", flush=True)
            build(name, arguments.output)
    if arguments.card:
        write_card(arguments.output, RECIPES)


if __name__ == "__main__":
    main()

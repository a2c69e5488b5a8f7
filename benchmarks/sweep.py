"""What one head out costs for every head, beside a naive loop: `python benchmarks/sweep.py [--json] [--full]`."""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from naive_loop import NaiveLoop
from workload import (
    SHAPES,
    bound,
    environment,
    flops,
    made_pairs,
    plain_forward,
    random_module,
    seconds,
    token_ids,
)

from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

SAMPLE = 12
"""Heads that the naive loop runs where it does not run all."""


def all_heads(model: BoundModel) -> list[Head]:
    """Return every head, layer by layer."""
    return [Head(layer, head) for layer in range(model.layers) for head in range(model.heads)]


def swept(model: BoundModel, rows: Sequence[Encoded], heads: Sequence[Head]) -> tuple[Runs, np.ndarray]:
    """Return what a spec's heads check measures of these heads, nothing being known, in (heads, pairs)."""
    runs = Runs(model, rows, value="resample", metric="logit_diff")
    return runs, runs.sweep("one head out", [Ablated(frozenset({head})) for head in heads])


def counted(model: BoundModel, rows: Sequence[Encoded]) -> dict[str, float]:
    """Return what a sweep and the naive loop cost in F, by FLOP count, their clean and corrupt runs included."""
    heads, loop = all_heads(model), NaiveLoop(model.module, rows)
    unit = flops(lambda: plain_forward(model.module, token_ids(rows, model.device)))
    naive = flops(loop.clean) + flops(loop.corrupt) + len(heads) * flops(lambda: loop.without(heads[0]))
    return {
        "forward_flops": unit,
        "forward_equivalents_flops": flops(lambda: swept(model, rows, heads)) / unit,
        "naive_forward_equivalents": naive / unit,
    }


def compared(model: BoundModel, rows: Sequence[Encoded], heads: Sequence[Head]) -> dict[str, Any]:
    """Return how far a sweep and the naive loop are apart on these heads."""
    every, loop = all_heads(model), NaiveLoop(model.module, rows)
    runs, found = swept(model, rows, every)
    loop.corrupt()
    naive = np.stack([loop.without(head).double().cpu().numpy() for head in heads])
    ours = found[[every.index(head) for head in heads]]
    return {
        "max_abs_diff": float(np.abs(ours - naive).max()),
        "largest_effect": float(np.abs(found - runs.clean).max()),
        "naive_heads": len(heads),
        "naive_sampled": len(heads) < len(every),
    }


def timed(model: BoundModel, rows: Sequence[Encoded], heads: Sequence[Head], rounds: int) -> dict[str, float]:
    """Return medians over rounds in which F, the sweep and the naive loop on `heads` take turns.

    Each head costs the naive loop the same forward, so its time for all heads is scaled from these.
    """
    every, loop, ids = all_heads(model), NaiveLoop(model.module, rows), token_ids(rows, model.device)
    unit, sweep, plain, one = [], [], [], []
    for _ in range(rounds):
        unit += [seconds(lambda: plain_forward(model.module, ids), model.device) for _ in range(3)]
        sweep.append(seconds(lambda: swept(model, rows, every), model.device))
        plain.append(seconds(lambda: (loop.clean(), loop.corrupt()), model.device))
        one += [seconds(lambda head=head: loop.without(head), model.device) for head in heads]
    naive = median(plain) + len(every) * median(one)
    return {
        "forward_seconds": median(unit),
        "sweep_seconds": median(sweep),
        "naive_seconds": naive,
        "forward_equivalents_wall": median(sweep) / median(unit),
        "naive_wall_ratio": naive / median(sweep),
        "prompts_per_second": len(rows) * (len(every) + 2) / median(sweep),
    }


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations a second of one large matrix product."""
    size = 2048 if device.type == "cpu" else 8192
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / median(seconds(lambda: matrix @ matrix, device) for _ in range(7))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that one run measures."""
    model = bound(random_module(options.model), options.model, device=options.device, dtype=options.dtype)
    rows = made_pairs(
        options.pairs, options.tokens, options.shared, vocabulary=model.vocabulary, last=options.positions == "last"
    )
    heads = all_heads(model)
    sample = heads if options.full else heads[:: max(1, len(heads) // SAMPLE)]
    found = {
        **{key: getattr(options, key) for key in ("model", "pairs", "tokens", "shared", "positions")},
        "layers": model.layers,
        "heads": len(heads),
        **environment(model.device, options.dtype),
        **counted(model, rows),
        **compared(model, rows, sample),
        **timed(model, rows, sample, options.rounds),
        "matmul_flops_per_second": matmul_rate(model.device, model.dtype),
    }
    rate = found["forward_equivalents_flops"] * found["forward_flops"] / found["sweep_seconds"]
    return {**found, "fraction_of_matmul_rate": rate / found["matmul_flops_per_second"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--full", action="store_true", help="let the naive loop run every head, not a sample")
    parser.add_argument("--model", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--positions", choices=("all", "last"), default="all")
    for name, number in (("pairs", 8), ("tokens", 16), ("shared", 10), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    found = measured(parser.parse_args())
    lines = [f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in found.items()]
    print(json.dumps(found) if parser.parse_args().json else "\n".join(lines))


if __name__ == "__main__":
    main()

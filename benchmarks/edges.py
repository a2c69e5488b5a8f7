"""What gradients cost: every part and every edge to first order: `python benchmarks/edges.py [--json]`."""

from __future__ import annotations

import argparse
import json
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

from workload import SHAPES, bound, environment, flops, made_pairs, plain_forward, random_module, seconds, token_ids

from pytest_circuits.attribution.edges import eap, eap_ig
from pytest_circuits.attribution.graph import is_parallel, reaches, receivers_of, senders_of
from pytest_circuits.attribution.nodes import atp, atp_star
from pytest_circuits.engine.runs import Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

METHODS: Mapping[str, Callable[[Runs], object]] = {
    "atp": lambda runs: atp(runs, senders_of(runs.model)),
    "atp_star": lambda runs: atp_star(runs, senders_of(runs.model)),
    "eap": eap,
    "eap_ig": eap_ig,
}


def number_of_edges(model: BoundModel) -> int:
    """Return how many edges a model has."""
    parallel = is_parallel(model)
    every = product(senders_of(model), receivers_of(model))
    return sum(reaches(sender, receiver, parallel=parallel) for sender, receiver in every)


def attributed(model: BoundModel, rows: Sequence[Encoded], method: str) -> None:
    """Attribute once, nothing being known."""
    METHODS[method](Runs(model, rows, value="resample", metric="logit_diff"))


def counted(model: BoundModel, rows: Sequence[Encoded], methods: Sequence[str] = tuple(METHODS)) -> dict[str, float]:
    """Return what each costs in F, by FLOP count, and of that the products of every edge, token and feature."""
    unit = flops(lambda: plain_forward(model.module, token_ids(rows, model.device)))
    width = model.module.get_input_embeddings().weight.shape[1]
    products = 2 * number_of_edges(model) * sum(len(row.clean) for row in rows) * width
    found = {name: flops(lambda name=name: attributed(model, rows, name)) / unit for name in methods}
    return {**found, "edges": products / unit}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that one run measures."""
    model = bound(random_module(options.model), options.model, device=options.device, dtype=options.dtype)
    rows = made_pairs(options.pairs, options.tokens, options.shared, vocabulary=model.vocabulary)
    ids, times = token_ids(rows, model.device), {name: [] for name in ("forward", *METHODS)}
    for _ in range(options.rounds):
        times["forward"].append(seconds(lambda: plain_forward(model.module, ids), model.device))
        for name in METHODS:
            times[name].append(seconds(lambda name=name: attributed(model, rows, name), model.device))
    return {
        **{key: getattr(options, key) for key in ("model", "pairs", "tokens", "shared")},
        "number_of_edges": number_of_edges(model),
        **environment(model.device, options.dtype),
        **{f"{name}_forward_equivalents": work for name, work in counted(model, rows).items()},
        **{f"{name}_seconds": median(taken) for name, taken in times.items()},
    }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", choices=sorted(SHAPES), default="gpt2-small")
    for name, number in (("pairs", 8), ("tokens", 16), ("shared", 0), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    found = measured(options)
    lines = [f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in found.items()]
    print(json.dumps(found) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()

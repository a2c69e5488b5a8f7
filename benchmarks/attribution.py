"""The methods of attribution beside exact patching: `python benchmarks/attribution.py SPEC CHECKPOINT [--root DIR]`.

Prints the tables of docs/reference/attribution.md: costs by FLOP count, agreement with exact patching over all heads,
and the largest heads and edges.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from workload import flops

from pytest_circuits import load_spec, open_checkpoint
from pytest_circuits.attribution.graph import senders_of
from pytest_circuits.attribution.methods import EDGE_METHODS, METHODS, attribute, attribute_edges
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.gate.agreement import jaccard, spearman
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.engine.runs import Runs
    from pytest_circuits.spec.loader import SpecFile

T = TypeVar("T")
TOP = 5
SHOWN = 3


@dataclass(frozen=True)
class Workload:
    """A spec on a model, from nothing each time."""

    file: SpecFile
    model: BoundModel

    def runs(self) -> Runs:
        """Return runs in which nothing is known yet."""
        return Measurements(self.file, self.model).runs

    @property
    def heads(self) -> list[Head]:
        """Every head of the model."""
        return [part for part in senders_of(self.model) if isinstance(part, Head)]

    @property
    def unit(self) -> int:
        """F: the FLOPs of a plain forward of the clean prompts with all of their logits."""
        batches = self.runs().batches

        def plain() -> None:
            with torch.no_grad():
                for batch in batches:
                    self.model.module(batch.clean)

        return flops(plain)


def workload(spec: str, checkpoint: str, root: str) -> Workload:
    """Load a spec and open a checkpoint."""
    return Workload(load_spec(Path(spec), root=Path(root)), open_checkpoint(checkpoint).bound)


def counted(run: Callable[[], T]) -> tuple[T, int]:
    """Return what a call gives, and its FLOPs."""
    found: list[T] = []
    cost = flops(lambda: found.append(run()))
    return found[0], cost


def heads_table(work: Workload) -> list[str]:
    """Return a row a method: what all heads cost, and how they agree with exact patching."""
    unit, heads = work.unit, work.heads
    exact = attribute(work.runs(), "exact", heads).effects.mean(1)
    rows = ["| method | F | Spearman | Jaccard of the top 5 | largest heads |", "|---|---|---|---|---|"]
    for method in METHODS:
        mean, cost = counted(lambda method=method: attribute(work.runs(), method, heads).effects.mean(1))
        largest = [f"{heads[at]} {mean[at]:.2f}" for at in np.argsort(-np.abs(mean))[:SHOWN]]
        agreement = f"{spearman(np.abs(exact), np.abs(mean)):.2f} | {jaccard(exact, mean, TOP):.2f}"
        rows.append(f"| `{method}` | {cost / unit:.1f} | {agreement} | {', '.join(largest)} |")
    return rows


def edges_table(work: Workload, methods: Sequence[str] = tuple(EDGE_METHODS)) -> list[str]:
    """Return a row an edge method: what all edges cost, and the largest."""
    unit = work.unit
    rows = ["| method | F | edges | largest edges |", "|---|---|---|---|"]
    for method in methods:
        edges, cost = counted(lambda method=method: attribute_edges(work.runs(), method))
        means = {edge: float(edges.of(*edge).mean()) for edge in edges}
        largest = sorted(means, key=lambda edge: -abs(means[edge]))[:SHOWN]
        told = ", ".join(f"{sender} -> {receiver} {means[sender, receiver]:.2f}" for sender, receiver in largest)
        rows.append(f"| `{method}` | {cost / unit:.1f} | {len(edges)} | {told} |")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec")
    parser.add_argument("checkpoint")
    parser.add_argument("--root", default=".", help="the project's root, from which the spec's name counts")
    options = parser.parse_args()
    work = workload(options.spec, options.checkpoint, options.root)
    print("\n".join([*heads_table(work), "", *edges_table(work)]))


if __name__ == "__main__":
    main()

"""The memory that a sweep takes beside the model, for one layer's heads and for all: `python benchmarks/memory.py`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")
"""A sweep on the CPU is measured by what Linux knows of its process."""


def peak(device: Any) -> int:
    """Return the most bytes that this process, or the GPU for it, held since `forget_peak`."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    found = re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget_peak(device: Any) -> None:
    """Let the peak start again from what is held now."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        (PROCESS / "clear_refs").write_text("5")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return the bytes of the model, and those that a sweep took at most beyond what was held before it."""
    from workload import bound, environment, made_pairs, plain_forward, random_module, token_ids

    from pytest_circuits.engine.runs import Ablated, Runs
    from pytest_circuits.spec.components import Head

    model = bound(random_module(options.model), options.model, device=options.device, dtype=options.dtype)
    rows = made_pairs(options.pairs, options.tokens, options.shared, vocabulary=model.vocabulary)
    plain_forward(model.module, token_ids(rows[:1], model.device))  # what a first forward loads stays
    forget_peak(model.device)
    before = peak(model.device)
    layers = range(model.layers) if options.heads == "all" else range(1)
    heads = [Head(layer, head) for layer in layers for head in range(model.heads)]
    runs = Runs(model, rows, value="resample", metric=options.metric, batch_size=options.batch_size)
    runs.sweep("one head out", [Ablated(frozenset({head})) for head in heads])
    return {
        "heads": len(heads),
        "model_bytes": sum(tensor.nbytes for tensor in model.module.parameters()),
        "before_bytes": before,
        "beside_bytes": peak(model.device) - before,
        **environment(model.device, options.dtype),
    }


def main() -> None:
    """Measure in a process for each number of heads, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--heads", choices=("layer", "all"), help="measure this alone, in this process")
    parser.add_argument("--metric", choices=("logit_diff", "prob_diff", "kl"), default="logit_diff")
    parser.add_argument("--model", default="gpt2-small")
    for name, number in (("pairs", 256), ("tokens", 16), ("shared", 10), ("batch-size", 256)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    if options.heads:
        print(json.dumps(measured(options)))
        return
    given = [word for word in sys.argv[1:] if word != "--json"]
    found = {}
    for heads in ("layer", "all"):
        command = [sys.executable, __file__, *given, "--heads", heads]
        found[heads] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    lines = [f"{heads}: {one['beside_bytes'] / 2**20:.0f} MiB beside the model" for heads, one in found.items()]
    print(json.dumps(found) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()

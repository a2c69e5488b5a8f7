"""What a whole spec costs, part by part, and a second run from the cache: `python benchmarks/gate.py [--json]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from workload import bound, environment, flops, plain_forward, random_module

from pytest_circuits import load_spec
from pytest_circuits.baselines.cache import Cache
from pytest_circuits.checkpoints.naming import parse_checkpoint
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.checks.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_circuits.checkpoints.model import BoundModel

ROOT = Path(__file__).parents[1]
TINY = ROOT / "specs" / "tiny" / "verb-agreement.circuit.yaml"
PARTS = ("clean", "corrupt", "floor", "circuit", "knockout", "roles", "noise")
"""What the checks but heads and controls ask for, in the order in which they do."""


class Words:
    """A tokenizer for which every word is a token."""

    bos_token_id = unk_token_id = unk_token = None

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> Mapping[str, Any]:
        """Return ids and character ranges, words being numbered as they are met."""
        words, ranges, at = text.split(" "), [], 0
        for word in words:
            ranges.append((at, at + len(word)))
            at += len(word) + 1
        return {"input_ids": [self.ids.setdefault(word, len(self.ids)) for word in words], "offset_mapping": ranges}


def spec_text(layers: int, heads: int, *, pairs: int, tokens: int, shared: int) -> str:
    """Return a spec with every check and one number mover, whose prompts differ in the token behind the shared ones.

    The mover lies in the first layer: nowhere else does a knock-out cost as much.
    """
    before, after = ["so"] * shared, ["then"] * (tokens - shared - 1)
    subjects = {number: [f"{number}{at}" for at in range(pairs)] for number in ("singular", "plural")}
    spec = {
        "format": 1,
        "model": {"checkpoint": "builtin:tiny", "architecture": "gpt2", "layers": layers, "heads": heads},
        "prompts": {
            "vocabulary": {"subject": subjects, "verb": {"singular": ["is"], "plural": ["are"]}},
            "templates": [
                {"id": "one", "text": " ".join([*before, "{subject}", *after]), "answer": "{verb}", "flip": "subject"}
            ],
            "per_template": pairs,
        },
        "circuit": {
            "mover": {"heads": ["L0H0"], "role": {"name": "number_mover"}},
            "readers": {"mlps": [f"L{layer}.mlp" for layer in range(layers)]},
        },
        "claims": {name: {} for name in ("behaviour", "faithfulness", "necessity", "controls", "heads", "roles")},
    }
    return yaml.safe_dump(spec)


def read(found: Measurements, part: str) -> None:
    """Measure a part of a reading; each role is one of its own."""
    value = getattr(found, part)
    if part == "roles":
        dict(value)


def counted(model: BoundModel, *, pairs: int = 8, tokens: int = 16, shared: int = 10) -> dict[str, float]:
    """Return what each part of a spec costs in F, by FLOP count, when all checks are measured one after the other."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "made.circuit.yaml"
        path.write_text(spec_text(model.layers, model.heads, pairs=pairs, tokens=tokens, shared=shared))
        found = Measurements(load_spec(path, root=path.parent), replace(model, tokenizer=Words()))
    ids = torch.zeros(pairs, tokens, dtype=torch.long, device=model.device)  # which tokens changes no FLOP count
    unit = flops(lambda: plain_forward(model.module, ids))
    parts = {part: flops(lambda part=part: read(found, part)) / unit for part in PARTS}
    heads = flops(lambda: dict(found.heads)) / unit
    controls = flops(lambda: found.random_circuits) / unit
    return {
        **parts,
        "without_heads_and_controls": sum(parts.values()),
        "heads": heads,
        "random_circuit": controls / len(found.random_circuits.faithfulness),
    }


def cached_flops(folder: Path) -> list[int]:
    """Return the operations of all checks of a spec on the embedded checkpoint, loading included, twice in a row."""
    file, found = load_spec(TINY, root=ROOT), []
    for _ in range(2):
        suite = Suite(root=ROOT, reference=None, cache=Cache(folder))
        model = suite.model(parse_checkpoint("builtin:tiny", folder=ROOT))
        found.append(flops(lambda s=suite, m=model: [s.judge(file, check, m) for check in file.spec.declared]))
    return found


def cached_seconds(folder: Path) -> list[float]:
    """Return the seconds of `pytest` on that spec, twice in a row."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TINY)]
    command.append(f"--circuits-cache-dir={folder}")
    found = []
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    model = bound(random_module("gpt2-small"), "gpt2-small")
    with tempfile.TemporaryDirectory() as name:
        work, times = cached_flops(Path(name) / "a"), cached_seconds(Path(name) / "b")
    found: dict[str, Any] = {
        **environment(model.device, "float32"),
        "model": "gpt2-small",
        "forward_equivalents": counted(model),
        "tiny_flops": work[0],
        "tiny_flops_cached": work[1],
        "tiny_seconds": times[0],
        "tiny_seconds_cached": times[1],
    }
    print(json.dumps(found) if as_json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()

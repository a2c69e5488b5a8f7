"""One head out by TransformerLens; `peers.py` runs this in an environment of its own and writes heads to its stdin."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import pandas
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.patching import get_act_patch_attn_head_out_all_pos


def main(folder: str, prompts: str) -> None:
    """Load, say the version, and answer each line `[[layer, head], ...]` with seconds and logit differences."""
    with open(prompts, encoding="utf-8") as file:
        clean, corrupt, read = (torch.tensor(rows) for rows in json.load(file))
    model = TransformerBridge.boot_transformers(folder, device="cpu")
    _, cache = model.run_with_cache(corrupt, names_filter=lambda name: name.endswith("attn.hook_z"))
    found: list[list[float]] = []

    def metric(logits: torch.Tensor) -> torch.Tensor:
        two = logits[:, -1].gather(1, read)
        found.append((two[:, 0] - two[:, 1]).tolist())
        return (two[:, 0] - two[:, 1]).mean()

    def without(heads: list[list[int]]) -> Any:
        # What it calls corrupted is the prompt that runs, what it calls clean is where the values come from.
        index = pandas.DataFrame(heads, columns=["layer", "head"])
        return get_act_patch_attn_head_out_all_pos(model, clean, cache, metric, index_axis_names=None, index_df=index)

    print(json.dumps({"version": version("transformer-lens")}), flush=True)
    for line in sys.stdin:
        found.clear()
        began = time.perf_counter()
        without(json.loads(line))
        print(json.dumps({"seconds": time.perf_counter() - began, "found": found}), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main(*sys.argv[1:])

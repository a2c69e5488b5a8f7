"""One head out by nnsight; `peers.py` runs this in an environment of its own and writes heads to its stdin."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import torch
import transformers
from nnsight import NNsight


def main(folder: str, prompts: str) -> None:
    """Load, say the version, and answer each line `[[layer, head], ...]` with seconds and logit differences."""
    with open(prompts, encoding="utf-8") as file:
        clean, corrupt, read = (torch.tensor(rows) for rows in json.load(file))
    module = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    model, width = NNsight(module), module.config.n_embd // module.config.n_head
    z = []
    for layer in range(module.config.n_layer):
        with model.trace(input_ids=corrupt):
            kept = model.transformer.h[layer].attn.c_proj.input.clone().save()
        z.append(kept)

    def without(layer: int, head: int) -> list[float]:
        piece, other = slice(head * width, (head + 1) * width), z[layer]
        with model.trace(input_ids=clean):
            own = model.transformer.h[layer].attn.c_proj.input.clone()
            own[:, :, piece] = other[:, :, piece]
            model.transformer.h[layer].attn.c_proj.input = own
            logits = model.output.logits[:, -1].save()
        two = logits.gather(1, read)
        return (two[:, 0] - two[:, 1]).tolist()

    print(json.dumps({"version": version("nnsight")}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        found = [without(layer, head) for layer, head in json.loads(line)]
        print(json.dumps({"seconds": time.perf_counter() - began, "found": found}), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main(*sys.argv[1:])

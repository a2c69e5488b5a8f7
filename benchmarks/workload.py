"""What the benchmarks run: models of published shapes with random weights, made prompts, and how work is counted.

The unit is F: one plain forward of the same prompts with all their logits.
"""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from pytest_circuits.checkpoints.architectures import Shape
from pytest_circuits.checkpoints.devices import describe_device, device_named
from pytest_circuits.checkpoints.load import DTYPES, bind
from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Int

    from pytest_circuits.checkpoints.model import BoundModel

SHAPES: dict[str, Any] = {
    "tiny": transformers.GPT2Config(
        n_layer=4, n_head=4, n_embd=64, vocab_size=500, bos_token_id=None, eos_token_id=None
    ),
    "gpt2-small": transformers.GPT2Config(),
    "gpt2-medium": transformers.GPT2Config(n_layer=24, n_head=16, n_embd=1024),
    "qwen2-0.5b": transformers.Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "llama-1b": transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
}


def random_module(name: str, *, seed: int = 0) -> Any:
    """Return a transformers model of that shape with the random weights that its class starts from, on the CPU."""
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(SHAPES[name]).eval().requires_grad_(False)


def bound(module: Any, name: str, *, device: str = "cpu", dtype: str = "float32") -> BoundModel:
    """Return a module of that shape on a device, bound after the self-checks."""
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32, as in a run
    module = module.to(device_named(device), DTYPES[dtype])
    return bind(module, None, shape=shape_of(name), name=name, fingerprint="random")


def shape_of(name: str) -> Shape:
    """Return the architecture, layers and heads of a shape."""
    config = SHAPES[name]
    return Shape(config.model_type, config.num_hidden_layers, config.num_attention_heads)


def made_pairs(pairs: int, tokens: int, shared: int, *, vocabulary: int, last: bool = False) -> list[Encoded]:
    """Return pairs of random tokens that share their first ones and differ in every other.

    With `last` only the last position is replaced, else all.
    """
    rng = np.random.default_rng(0)
    source = tuple(-1 if last and at < tokens - 1 else at for at in range(tokens))
    flip, rows = tuple(range(shared, tokens)), []
    for _ in range(pairs):
        clean = rng.integers(0, vocabulary, tokens)
        corrupt = clean.copy()
        corrupt[shared:] = (clean[shared:] + rng.integers(1, vocabulary, tokens - shared)) % vocabulary
        answer, foil = map(int, rng.choice(vocabulary, 2, replace=False))
        pair = Pair("clean", "corrupt", "answer", "foil", "made", {}, None, {})
        ids = tuple(map(int, clean)), tuple(map(int, corrupt))
        rows.append(Encoded(pair, *ids, answer, foil, {}, flip, source, 0))
    return rows


def token_ids(rows: Sequence[Encoded], device: torch.device) -> Int[torch.Tensor, "pairs tokens"]:
    """Return the clean prompts as the input of a model."""
    return torch.tensor([row.clean for row in rows], device=device)


def plain_forward(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return all logits of one untouched forward: the work of it is F."""
    with torch.inference_mode():
        logits: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits


def flops(run: Callable[[], object]) -> int:
    """Return the floating-point operations of matrix products and attention that `run` made."""
    with FlopCounterMode(display=False) as counted:
        run()
    return int(counted.get_total_flops())


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the wall-clock seconds of `run`, until the device is done."""
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def environment(device: torch.device, dtype: str) -> dict[str, Any]:
    """Return what figures depend on beside the code."""
    packages = ("pytest-circuits", "torch", "transformers")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": describe_device(str(device)),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
    }

"""The device that a name means; torch is imported only where the name alone does not say what is there."""

from __future__ import annotations

import runpy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtra, UsageProblem

if TYPE_CHECKING:
    import torch


SPLIT = "split"
"""Layers on all GPUs, and on the CPU what they have no room for."""


def device_named(name: str) -> torch.device:
    """Return the device: `auto` is cuda where there is one, else cpu; mps only by name; of `split` the first.

    Raises:
        UsageProblem: torch does not know the device, or it is not there.
        MissingExtra: a model is to be split, and what does that is not installed.
    """
    import torch

    if name == SPLIT and find_spec("accelerate") is None:
        raise MissingExtra(
            "--circuits-device split needs accelerate, which is not installed: it puts a model's layers on several "
            "devices.\n  Install it: pip install accelerate"
        )
    if name in ("auto", SPLIT):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        known = "auto, cpu, cuda, cuda:N, mps or split"
        raise UsageProblem(f"--circuits-device should be {known}, got {name!r}.") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise UsageProblem(f"--circuits-device {name}: this machine has no such device; use auto or cpu.")
    return device


def describe_device(name: str) -> str:
    """Return the kind of a device, with a GPU's own name: numbers of two kinds differ by rounding.

    Importing torch takes seconds, and a run whose numbers are cached needs nothing else of it.

    Raises:
        UsageProblem: torch does not know the device, or it is not there.
    """
    if name == "cpu" or (name == "auto" and _built_without_cuda()):
        return "cpu"
    import torch

    device = device_named(name)
    if name == SPLIT:
        gpus = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
        return f"split ({', '.join(gpus) or 'cpu'})"
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


@cache
def _built_without_cuda() -> bool:
    """Say whether this torch can have no device called cuda, by what `torch.version` says of how it was built."""
    found = find_spec("torch")
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    if file is None or not file.is_file():
        return False
    built = runpy.run_path(str(file))
    return "cuda" in built and built["cuda"] is None and built.get("hip") is None

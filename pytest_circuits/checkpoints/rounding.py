"""How far rounding alone may move a number."""

from __future__ import annotations

import torch
from torch import Tensor


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative difference that rounding alone may make: 1e-5 in float32, a few steps in half precision."""
    return max(1e-5, 4 * torch.finfo(dtype).eps)


def gap(found: Tensor, expected: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Return the largest difference of two tensors, and what rounding in `dtype` allows."""
    expected = expected.float()
    largest = (found.float().to(expected.device) - expected).abs().max().item()
    return largest, tolerance(dtype) * max(1.0, expected.abs().max().item())

"""A frozen norm is the norm, and it is linear: on every kind of norm, and on nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm

from pytest_circuits.attribution.norms import frozen
from pytest_circuits.errors import InstrumentError

if TYPE_CHECKING:
    from collections.abc import Callable

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "LayerNorm": nn.LayerNorm,
    "without a bias": lambda width: nn.LayerNorm(width, bias=False),
    "without weights": lambda width: nn.LayerNorm(width, elementwise_affine=False),
    "with a large epsilon": lambda width: nn.LayerNorm(width, eps=0.5),
    "RMSNorm": lambda width: nn.RMSNorm(width, eps=1e-5),
    "Llama's": LlamaRMSNorm,
    "Gemma's": Gemma2RMSNorm,
    "Cohere's": CohereLayerNorm,
    "OLMo's": OlmoLayerNorm,
    "nothing": lambda width: nn.Identity(),
}


def some_norm(kind: str, width: int) -> nn.Module:
    torch.manual_seed(0)
    norm = NORMS[kind](width)
    for parameter in norm.parameters():
        parameter.data = torch.randn_like(parameter)
    return norm.requires_grad_(False)


@pytest.mark.parametrize("width", [32, 7])
@pytest.mark.parametrize("kind", NORMS)
def test_parts_of_an_input_add_up_to_what_the_norm_makes_of_it(kind: str, width: int) -> None:
    norm = some_norm(kind, width)
    parts = torch.randn(4, 3, 5, width) * torch.tensor([0.01, 1.0, 30.0])[:, None, None] + 0.5
    found = frozen(norm, parts.sum(0))

    made = sum(found.apply(part) for part in parts) + found.bias
    assert torch.allclose(made, norm(parts.sum(0)), atol=1e-4)


@pytest.mark.parametrize("kind", NORMS)
def test_it_is_the_norm_with_its_own_weights_at_the_scale_of_the_input(kind: str) -> None:
    """What the norm makes of another input, times the ratio of the two scales, is the frozen map of it."""
    norm, x, other = some_norm(kind, 32), torch.randn(3, 32), torch.randn(3, 32)
    found, there = frozen(norm, x), frozen(norm, other)

    assert torch.allclose(found.apply(other), (norm(other) - found.bias) * found.scale / there.scale, atol=1e-4)
    assert found.centres == isinstance(norm, (nn.LayerNorm, CohereLayerNorm, OlmoLayerNorm))


def test_scale_and_gain_of_a_layer_norm_are_those_of_its_formula() -> None:
    norm, x = some_norm("LayerNorm", 32), torch.randn(3, 32)
    found = frozen(norm, x)

    assert torch.allclose(found.gain, norm.weight, atol=1e-5)
    assert torch.allclose(found.bias, norm.bias)
    assert torch.allclose(found.scale, (x.var(-1, correction=0, keepdim=True) + norm.eps).rsqrt(), atol=1e-5)


@pytest.mark.parametrize("kind", NORMS)
def test_a_direction_is_carried_back_as_parts_are_carried_forward(kind: str) -> None:
    found = frozen(some_norm(kind, 32), torch.randn(3, 32))
    part, direction = torch.randn(3, 32), torch.randn(3, 32)

    forward, back = (found.apply(part) * direction).sum(-1), (part * found.adjoint(direction)).sum(-1)
    assert torch.allclose(forward, back, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", NORMS)
def test_half_precision_is_frozen_within_its_own_rounding(kind: str, dtype: torch.dtype) -> None:
    norm, x = some_norm(kind, 32).to(dtype), torch.randn(3, 32).to(dtype)
    found = frozen(norm, x)

    assert found.gain.dtype == torch.float32
    assert torch.allclose(found.apply(x) + found.bias, norm(x).float(), atol=16 * torch.finfo(dtype).eps)


def test_an_input_of_zeros_has_no_scale_and_is_no_error() -> None:
    found = frozen(some_norm("Llama's", 8), torch.zeros(2, 8))

    assert torch.equal(found.apply(torch.zeros(2, 8)), torch.zeros(2, 8))


class Groups(nn.Module):
    """A norm over each half of the features: its scale is not one number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x.unflatten(-1, (2, -1)), (x.shape[-1] // 2,)).flatten(-2)


@pytest.mark.parametrize("module", [nn.Linear(8, 8), nn.Tanh(), Groups(), nn.LayerNorm(8)])
def test_what_is_no_norm_is_refused_with_the_numbers(module: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, dtype=torch.float64) * torch.tensor([1.0] * 4 + [9.0] * 4)
    if isinstance(module, nn.LayerNorm):
        module.register_forward_hook(lambda _, args, output: torch.where(output > 1, torch.nan, output))
    message = rf"a {type(module).__name__} is no norm that is linear at a fixed scale.*difference .*allowed \d"

    with pytest.raises(InstrumentError, match=message):
        frozen(module.double(), x)

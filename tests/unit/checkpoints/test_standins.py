"""What stood in a module's place is gone after the forward, whatever ended it, and the logits it read are all there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_models import bound, random_module

from pytest_circuits.checkpoints import standins
from pytest_circuits.checkpoints.model import Site
from pytest_circuits.checkpoints.past import Known
from pytest_circuits.checkpoints.standins import NotRun, Reader, layers_not_run, reading

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

IDS = (torch.arange(22).view(2, 11) * 9 + 3) % 101
KINDS = ("residual", "z", "mlp", "q", "k", "v")


@pytest.fixture
def llama() -> BoundModel:
    return bound(random_module("llama"), "llama")


def modules(model: BoundModel) -> list[int]:
    return [id(module) for module in model.module.modules()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_that_is_broken_off_leaves_the_model_as_it_was(
    kind: Any, error: type[BaseException], llama: BoundModel
) -> None:
    def broken(value: torch.Tensor) -> torch.Tensor:
        raise error

    before, plain = modules(llama), llama.forward(IDS, keep=[Site("residual", 1)], keep_from=4, note=4)
    known = Known(plain.past, 1, plain.values[Site("residual", 1)], copies=2)
    with pytest.raises(error):
        llama.forward(IDS, edits={Site(kind, 1): broken}, known=known)

    assert modules(llama) == before
    assert llama.module.config._attn_implementation == "sdpa"
    assert torch.equal(llama.forward(IDS).logits, plain.logits)


def test_an_interrupt_while_layers_are_put_aside_puts_them_back(
    llama: BoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, made = modules(llama), list[int]()

    def interrupted(*args: Any, **options: Any) -> NotRun:
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return NotRun(*args, **options)

    monkeypatch.setattr(standins, "NotRun", interrupted)
    with pytest.raises(KeyboardInterrupt), layers_not_run(llama.blocks, 2, None, in_tuple=False):
        pass

    assert modules(llama) == before


def test_an_interrupt_while_the_reader_is_put_in_takes_it_out(
    llama: BoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, put = modules(llama), llama.module.set_output_embeddings

    def interrupted(head: Any) -> None:
        put(head)
        if isinstance(head, Reader):
            raise KeyboardInterrupt

    monkeypatch.setattr(llama.module, "set_output_embeddings", interrupted)
    reader = Reader(llama.module.get_output_embeddings(), torch.tensor([1]), None)
    with pytest.raises(KeyboardInterrupt), reading(llama.module, reader):
        pass

    assert modules(llama) == before


@pytest.mark.parametrize("architecture", ["gptj", "llama"])
def test_logits_are_read_in_float32_whatever_the_weights_have(architecture: str) -> None:
    """GPT-J's unembedding has a bias."""
    model = bound(random_module(architecture), architecture)
    model.module.to(torch.bfloat16)
    seen: list[torch.Tensor] = []
    head, last = model.module.get_output_embeddings(), torch.tensor([10, 10])
    with head.register_forward_pre_hook(lambda _, args: seen.append(args[0])), torch.inference_mode():
        model.module(IDS)
        state = seen[0][:, -1].float()
        expected = state @ head.weight.float().T + (0 if head.bias is None else head.bias.float())
        whole = Reader(head, last, None)(seen[0])[:, 0]
        some = Reader(head, last, IDS[:, :2])(seen[0])[:, 0]

    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(some, expected.gather(1, IDS[:, :2]), atol=1e-5, rtol=1e-5)

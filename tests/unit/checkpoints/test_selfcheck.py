"""Each self-check catches the fault it is there for, planted in the model or in the instrument."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_models import bound, random_module

from pytest_circuits.checkpoints.model import BoundModel, Edit, Site
from pytest_circuits.checkpoints.selfcheck import check_instrument, probe_ids
from pytest_circuits.errors import InstrumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def gpt2() -> BoundModel:
    return bound(random_module("gpt2"), "gpt2")


def with_part(model: BoundModel, **paths: str) -> BoundModel:
    return replace(model, architecture=replace(model.architecture, **paths))


def test_a_sound_model_passes(model: BoundModel) -> None:
    check_instrument(model)


def test_heads_read_from_another_module_are_caught(gpt2: BoundModel) -> None:
    with pytest.raises(InstrumentError, match="layer 0: heads put out 96 numbers, the residual has 32"):
        check_instrument(with_part(gpt2, projection="attn.c_attn"))


def test_an_mlp_path_that_is_not_what_is_added_is_caught(gpt2: BoundModel) -> None:
    with pytest.raises(InstrumentError, match="not the block's output|full patch"):
        check_instrument(with_part(gpt2, mlp="ln_2"))


def test_heads_off_by_one_are_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(model: BoundModel, value: torch.Tensor, edit: Edit) -> torch.Tensor:
        return edit(value.unflatten(-1, (model.heads, -1)).roll(1, dims=2)).roll(-1, dims=2).flatten(-2)

    monkeypatch.setattr(BoundModel, "_by_head", shifted)

    with pytest.raises(InstrumentError, match="layer 0: heads"):
        check_instrument(gpt2)


def test_a_hook_that_never_fires_is_caught(gpt2: BoundModel) -> None:
    elsewhere = replace(gpt2, blocks=tuple(copy.deepcopy(gpt2.blocks)))

    with pytest.raises(InstrumentError, match="should fire once"):
        check_instrument(elsewhere)


def test_a_hook_that_stays_is_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BoundModel._hooked

    @contextmanager
    def leaking(model: BoundModel, watched: Any, passed: Callable[..., Any]) -> Iterator[None]:
        model.blocks[0].register_forward_hook(lambda *_: None)
        with plain(model, watched, passed):
            yield

    monkeypatch.setattr(BoundModel, "_hooked", leaking)

    with pytest.raises(InstrumentError, match="hooks are left on the model"):
        check_instrument(gpt2)


def test_a_model_in_training_mode_is_caught(gpt2: BoundModel) -> None:
    gpt2.blocks[1].train()

    with pytest.raises(InstrumentError, match="training mode, first 'transformer.h.1'"):
        check_instrument(gpt2)


def test_heads_that_do_nothing_are_caught(gpt2: BoundModel) -> None:
    for block in gpt2.blocks:
        block.attn.c_proj.weight.data.zero_()  # type: ignore[union-attr, operator]

    with pytest.raises(InstrumentError, match="zeroing every head changes nothing"):
        check_instrument(gpt2)


def test_a_model_that_reads_padding_is_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BoundModel._logits

    def maskless(model: BoundModel, ids: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return plain(model, ids, None)

    monkeypatch.setattr(BoundModel, "_logits", maskless)

    with pytest.raises(InstrumentError, match="padding changes the logits"):
        check_instrument(gpt2)


def test_weights_that_are_not_finite_are_caught(gpt2: BoundModel) -> None:
    gpt2.blocks[2].mlp.c_fc.weight.data[0, 0] = float("nan")  # type: ignore[union-attr, index]

    with pytest.raises(InstrumentError):
        check_instrument(gpt2)


def test_hooks_are_gone_after_an_edit_that_raises(gpt2: BoundModel) -> None:
    def broken(value: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("planted")

    ids, _ = probe_ids(gpt2)
    with pytest.raises(RuntimeError, match="planted"):
        gpt2.forward(ids, edits={Site("z", 1): broken})

    check_instrument(gpt2)


def test_a_kept_value_is_not_changed_by_what_the_model_does_later(gpt2: BoundModel) -> None:
    ids, _ = probe_ids(gpt2)
    site = Site("mlp", 0)
    expected = gpt2.forward(ids, keep=[site]).values[site]
    handle = gpt2.part(0, "mlp").register_forward_hook(lambda _, a, output: output.mul_(1.0))
    gpt2.blocks[0].register_forward_hook(lambda _, a, output: output.add_(1.0))
    found = gpt2.forward(ids, keep=[site]).values[site]
    handle.remove()

    assert torch.equal(found, expected)

"""The table holds architectures that the library has, and a configuration that adds up otherwise is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import transformers
from small_models import ARCHITECTURE_NAMES, bound, random_module

from pytest_circuits.checkpoints.architectures import ARCHITECTURES, Shape, shape_of
from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.errors import CheckpointRefused, InstrumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_row_has_a_small_model_and_classes_of_the_library() -> None:
    assert sorted(ARCHITECTURES) == sorted(ARCHITECTURE_NAMES)
    for name, row in ARCHITECTURES.items():
        config_class, model_class = (getattr(transformers, one) for one in row.classes)
        assert (row.model_type, config_class.model_type) == (name, name)
        assert issubclass(model_class, transformers.PreTrainedModel)


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_the_shape_is_read_from_what_the_library_writes(architecture: str) -> None:
    assert shape_of(random_module(architecture).config.to_dict()) == Shape(architecture, 3, 4)


OTHERWISE = [
    ("opt", {"do_layer_norm_before": False}),
    ("opt", {"_remove_final_layer_norm": True}),
    ("bloom", {"apply_residual_connection_post_layernorm": True}),
    ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}),
]


@pytest.mark.parametrize(("architecture", "changes"), OTHERWISE)
def test_a_setting_with_which_parts_add_up_otherwise_is_refused(
    architecture: str, changes: dict[str, Any], saved: Callable[..., Path]
) -> None:
    key, value = next(iter(changes.items()))
    folder = saved(architecture, made=changes)
    module = random_module(architecture, **changes)
    final = ARCHITECTURES[architecture].final_norm

    with pytest.raises(
        CheckpointRefused, match=f"config.json sets {key!r} to {value}, expected {not value}: with it a"
    ):
        open_checkpoint(f"odd={folder}", device="cpu")
    with pytest.raises((InstrumentError, AttributeError)):  # or a check would fail, or a part be missing
        bound(module, architecture).module.get_submodule(final)


@pytest.mark.parametrize(
    ("architecture", "changes", "complaint"),
    [
        ("gemma", {"use_bidirectional_attention": True}, "instrument: "),
        ("codegen", {"num_attention_heads": 2}, "refused: the model of 'odd' cannot be made from"),
    ],
)
def test_a_model_that_a_row_does_not_fit_is_refused(
    architecture: str, changes: dict[str, Any], complaint: str, saved: Callable[..., Path]
) -> None:
    folder = saved(architecture, made=changes)

    with pytest.raises((CheckpointRefused, InstrumentError), match=complaint):
        _ = open_checkpoint(f"odd={folder}", device="cpu").bound


def test_a_model_of_several_parts_is_refused() -> None:
    config = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 2, "num_attention_heads": 4}}

    with pytest.raises(CheckpointRefused, match="'gemma3' has no row, and config.json states no number of layers"):
        shape_of(config)


@pytest.mark.parametrize("name", [None, 3, "", []])
def test_a_config_that_names_no_architecture_is_refused(name: object) -> None:
    with pytest.raises(CheckpointRefused, match="should name the architecture as 'model_type', found "):
        shape_of({"model_type": name})


@pytest.mark.parametrize("keys", [("num_hidden_layers", "num_attention_heads"), ("n_layer", "n_head")])
def test_the_shape_of_an_architecture_without_a_row_is_read(keys: tuple[str, str]) -> None:
    shape = shape_of({"model_type": "new", keys[0]: 2, keys[1]: 4})

    assert shape == Shape("new", 2, 4)
    assert shape.probed


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(CheckpointRefused, match="should state 'n_layer' as a positive integer, found '2'"):
        shape_of({"model_type": "new", "n_layer": "2", "n_head": 4})

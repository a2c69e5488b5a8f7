"""transformers' own classes for a checked `config.json`, and its own config with what the class declares."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..errors import CheckpointRefused
from .architectures import ADD_A_ROW, ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

NEUTRAL = {  # what transformers obeys in a config whose class does not declare it, and the value that changes nothing
    "is_causal": True,
    "layer_types": None,
    "original_max_position_embeddings": None,
    "partial_rotary_factor": 1.0,
    "per_layer_config": None,
}
UNUSED = frozenset(  # what a class declares and no measurement needs: a wrong value would only be in the way
    ("dtype", "torch_dtype", "transformers_version", "id2label", "label2id", "problem_type")
)
OF_FILES = frozenset(  # what says how files were made, and nothing of the model
    ("model_type", "architectures", "_name_or_path", "_commit_hash", "quantization_config")
)


def native_classes(architecture: str) -> tuple[Any, Any]:
    """Return transformers' own config and model class, for text that goes on from left to right.

    Raises:
        CheckpointRefused: it has none; code that comes with a checkpoint is never run.
    """
    if architecture in ARCHITECTURES:
        config_class, model_class = (getattr(transformers, name) for name in ARCHITECTURES[architecture].classes)
        return config_class, model_class
    config_class = CONFIG_MAPPING[architecture] if architecture in CONFIG_MAPPING else None
    if config_class not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CheckpointRefused(
            f"refused: transformers {transformers.__version__} has no causal language model {architecture!r} of its "
            f"own; supported: {', '.join(sorted(ARCHITECTURES))}, and others that it has.\n"
            "  Code that comes with a checkpoint is never run. If a newer transformers has the model, install that."
        )
    return config_class, MODEL_FOR_CAUSAL_LM_MAPPING[config_class]


def native_config(config: Mapping[str, Any], config_class: Any, row: Architecture | None) -> Any:
    """Return transformers' own config with the checkpoint's values for the keys that this class declares.

    Nothing else reaches the library: a key that the class does not know could name code, or be read by a later version.

    Raises:
        CheckpointRefused: the library would obey a key that is left out.
    """
    if config.get("quantization_config"):
        raise CheckpointRefused("refused: config.json sets 'quantization_config'; save the weights unquantized.")
    declared = {*config_class().to_dict(), *inspect.signature(config_class.__init__).parameters}
    known = {key for key in declared if key not in UNUSED and not key.startswith("output_")}
    renamed = (row or Architecture("", ("", ""))).renamed_keys
    known |= {key for key in renamed if config.get(key) is not None}
    _refuse_other_model(config, config_class, known)
    if row is None:
        _refuse_unread(config, config_class, known)
    return config_class(**{key: _decoded(value) for key, value in config.items() if key in known})


def _decoded(value: Any) -> Any:
    """Return a value as it was before save_pretrained wrote it: JSON has no infinity."""
    if isinstance(value, dict):
        written = value.get("__float__") if len(value) == 1 else None
        plain = {key: _decoded(one) for key, one in value.items()}
        return float(written) if written in ("Infinity", "-Infinity") else plain
    return [_decoded(one) for one in value] if isinstance(value, list) else value


def _refuse_other_model(config: Mapping[str, Any], config_class: Any, known: set[str]) -> None:
    """Refuse what transformers would obey and the checked config leaves out: it would be another model."""
    for key, neutral in NEUTRAL.items():
        if key not in known and config.get(key, neutral) != neutral:
            raise CheckpointRefused(
                f"refused: config.json sets {key!r} to {repr(config[key])[:80]}, expected {neutral!r} or none: "
                f"{config_class.__name__} does not declare it.\n"
                "  transformers obeys it all the same, so what is deployed is no plain model of this architecture, and "
                "would not be what is measured. Delete the key if it is there by mistake."
            )
    for alias, target in config_class.attribute_map.items():
        alone = target not in config and alias in known
        if alias in config and not alone and (target not in config or config[alias] != config[target]):
            raise CheckpointRefused(
                f"refused: config.json sets {alias!r} to {repr(config[alias])[:80]} and {target!r} to "
                f"{repr(config.get(target, 'nothing'))[:80]}: one setting under two names.\n"
                f"  Which is obeyed depends on who reads it. Keep {target!r} alone, with the value of the training."
            )


def _refuse_unread(config: Mapping[str, Any], config_class: Any, known: set[str]) -> None:
    """Refuse what a class does not declare where no row says which such keys the library obeys all the same."""
    spared = known | UNUSED | OF_FILES | {*config_class.attribute_map}
    for key, value in config.items():
        if key not in spared and value is not None and not key.startswith("output_"):
            raise CheckpointRefused(
                f"refused: config.json sets {key!r} to {repr(value)[:80]}, and {config_class.__name__} does not "
                f"declare it.\n  {config.get('model_type')!r} has no row that says whether transformers obeys the key "
                f"all the same. Delete it from your copy if nothing reads it, or add a row: {ADD_A_ROW}."
            )

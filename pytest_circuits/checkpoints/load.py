"""An identified checkpoint becomes a bound, self-checked model."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..errors import CheckpointRefused, CircuitsError, UsageProblem
from .architectures import ARCHITECTURES, Architecture, Shape, architecture_of, shape_of
from .identify import refuse_changed
from .model import BoundModel
from .selfcheck import check_instrument
from .weights import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from .identify import Identified

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
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


def device_named(name: str) -> torch.device:
    """Return the device: `auto` is cuda where there is one, else cpu; mps only by name.

    Raises:
        UsageProblem: torch does not know the device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageProblem(f"--circuits-device should be auto, cpu, cuda, cuda:N or mps, got {name!r}.") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise UsageProblem(f"--circuits-device {name}: this machine has no such device; use auto or cpu.")
    return device


def describe_device(name: str) -> str:
    """Return the kind of a device, with a GPU's own name: numbers of two kinds differ by rounding."""
    device = device_named(name)
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def open_model(identified: Identified, *, device: str = "auto", dtype: str = "float32") -> BoundModel:
    """Load a checkpoint that was identified, find its parts, and check the instrument on it.

    Raises:
        CheckpointRefused: its tensors do not fit its config, its tokenizer cannot be read, or its files changed.
        InstrumentError: a self-check failed.
    """
    row, shape, place = architecture_of(identified.config), shape_of(identified.config), device_named(device)
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
    refuse_changed(identified, "after it was checked")
    with _Refusing(identified, "model"):
        module = _load_module(identified, row, DTYPES[dtype])
    with _Refusing(identified, "tokenizer"):
        tokenizer = _load_tokenizer(identified)
    refuse_changed(identified, "while it was loaded")
    module = module.to(place).eval()
    with _Refusing(identified, "model"):
        return bind(module, tokenizer, shape=shape, name=identified.name, fingerprint=identified.fingerprint)


def bind(module: Any, tokenizer: Any, *, shape: Shape, name: str, fingerprint: str) -> BoundModel:
    """Find a module's parts, check the instrument on it, and return it bound.

    Raises:
        InstrumentError: a self-check failed.
    """
    module.requires_grad_(False)
    row = ARCHITECTURES[shape.architecture]
    model = BoundModel(
        name=name,
        fingerprint=fingerprint,
        architecture=row,
        module=module,
        tokenizer=tokenizer,
        layers=shape.layers,
        heads=shape.heads,
        blocks=tuple(module.get_submodule(row.blocks)),
    )
    check_instrument(model)
    return model


def _load_module(identified: Identified, row: Architecture, dtype: torch.dtype) -> Any:
    """Return the native transformers module with the checkpoint's tensors, every one of them accounted for."""
    config_class, model_class = (getattr(transformers, name) for name in row.classes)
    _refuse_two_names(identified, model_class.base_model_prefix)
    with _no_progress_bar():
        module, report = model_class.from_pretrained(
            identified.directory,
            config=_native_config(identified.config, config_class, row),
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            output_loading_info=True,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in report[kind]):
            raise CheckpointRefused(
                f"refused: {identified.name!r} does not hold the tensors of a {row.model_type}: {len(names)} "
                f"{kind.replace('_keys', '')}, first {names[:5]!r}.\n"
                "  Part of the model would be random or dropped. If this is an adapter, merge it into its base first."
            )
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()  # the library maps the file: a later write would change the model
    return module


def _refuse_two_names(identified: Identified, prefix: str) -> None:
    """Refuse one parameter that is stored twice, with the base model's prefix and without it."""
    names = {tensor.name for file in identified.weight_files for tensor in read_header(file)}
    if twice := sorted(names & {f"{prefix}.{name}" for name in names}):
        raise CheckpointRefused(
            f"refused: {identified.name!r} holds {twice[0]!r} and {twice[0].removeprefix(prefix + '.')!r}: one "
            f"parameter under two names ({len(twice)} such).\n"
            "  Which of the two is loaded depends on the library's version. Save the checkpoint again."
        )


class _Refusing:
    """Turns what a library raises over a checkpoint's files into a refusal.

    Every class is meant, because tokenizers raises plain Exception and a config can divide by zero anywhere. Our own
    errors pass, and so does a full GPU, which says nothing about the checkpoint.
    """

    def __init__(self, identified: Identified, what: str) -> None:
        self.identified, self.what = identified, what

    def __enter__(self) -> None:
        """Nothing is held."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the refusal in the place of `error`."""
        if isinstance(error, Exception) and not isinstance(error, (CircuitsError, torch.OutOfMemoryError)):
            raise CheckpointRefused(
                f"refused: the {self.what} of {self.identified.name!r} cannot be made from "
                f"{str(self.identified.directory)!r}: {type(error).__name__} {str(error)[:300]!r}.\n"
                "  Its config, weights and tokenizer should be those of one checkpoint, as save_pretrained writes them."
            ) from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep the library's bar out of pytest's output, and leave its setting as the user had it."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _native_config(config: Mapping[str, Any], config_class: Any, row: Architecture) -> Any:
    """Return transformers' own config with the checkpoint's values for the keys that this class declares.

    Nothing else reaches the library: a key that the class does not know could name code, or be read by a later version.
    """
    if config.get("quantization_config"):
        raise CheckpointRefused("refused: config.json sets 'quantization_config'; save the weights unquantized.")
    known = {key for key in config_class().to_dict() if key not in UNUSED and not key.startswith("output_")}
    _refuse_other_model(config, config_class, known)
    renamed = {key: config[key] for key in row.renamed_keys if config.get(key) is not None}
    return config_class(**{key: value for key, value in config.items() if key in known}, **renamed)


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
        if alias in config and (target not in config or config[alias] != config[target]):
            raise CheckpointRefused(
                f"refused: config.json sets {alias!r} to {repr(config[alias])[:80]} and {target!r} to "
                f"{repr(config.get(target, 'nothing'))[:80]}: one setting under two names.\n"
                f"  Which is obeyed depends on who reads it. Keep {target!r} alone, with the value of the training."
            )


def _load_tokenizer(identified: Identified) -> Any:
    """Return the tokenizer that `tokenizer.json` defines, with its special tokens.

    The generic fast class is used whatever class the files name: `tokenizer.json` says all that encoding needs.
    """
    special: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = identified.directory / name
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
                token = found.get(key)
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    special[key] = token
    file = identified.directory / "tokenizer.json"
    unknown = _unknown_token(json.loads(file.read_text(encoding="utf-8"))["model"])
    if unknown is not None:
        special["unk_token"] = unknown  # what encoding puts there, whatever the settings call it
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), clean_up_tokenization_spaces=False, **special)


def _unknown_token(model: Mapping[str, Any]) -> str | None:
    """Return what stands for text that the vocabulary lacks, None where the vocabulary has no such token."""
    vocabulary, token = model["vocab"], model.get("unk_token")
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score
        at = model.get("unk_id")
        return None if at is None else str(vocabulary[at][0])
    return str(token) if token in vocabulary else None

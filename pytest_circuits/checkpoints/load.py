"""An identified checkpoint becomes a bound, self-checked model."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from ..errors import CheckpointRefused, UsageProblem
from .architectures import ARCHITECTURES, Architecture, Shape, architecture_of, shape_of
from .model import BoundModel
from .selfcheck import check_instrument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .identify import Identified

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


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
        CheckpointRefused: its tensors do not fit its config, or its tokenizer cannot be read.
        InstrumentError: a self-check failed.
    """
    row = architecture_of(identified.config)
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
    module = _load_module(identified, row, DTYPES[dtype]).to(device_named(device)).eval()
    return bind(
        module,
        _load_tokenizer(identified),
        shape=shape_of(identified.config),
        name=identified.name,
        fingerprint=identified.fingerprint,
    )


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
    with _no_progress_bar(), _refusing(identified, "model", StrictDataclassError):
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
    return module


@contextmanager
def _refusing(identified: Identified, what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn what a library raises over a checkpoint's files into a refusal."""
    raised: tuple[type[Exception], ...] = (RuntimeError, KeyError, ValueError, TypeError, OSError, *also)
    try:
        yield
    except raised as error:
        raise CheckpointRefused(
            f"refused: the {what} of {identified.name!r} cannot be made from {str(identified.directory)!r}: "
            f"{type(error).__name__} {str(error)[:300]!r}.\n"
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
    known = set(config_class().to_dict()) - {"dtype", "torch_dtype", "transformers_version"}
    renamed = {key: config[key] for key in row.renamed_keys if config.get(key) is not None}
    return config_class(**{key: value for key, value in config.items() if key in known}, **renamed)


def _load_tokenizer(identified: Identified) -> Any:
    """Return the tokenizer that `tokenizer.json` defines, with its special tokens.

    The generic fast class is used whatever class the files name: `tokenizer.json` says all that encoding needs.
    """
    special = {}
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
    with _refusing(identified, "tokenizer"):
        if "model" not in json.loads(file.read_text(encoding="utf-8")):
            raise ValueError("tokenizer.json has no model")
        return transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(file), clean_up_tokenization_spaces=False, **special
        )

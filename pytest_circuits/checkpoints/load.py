"""An identified checkpoint becomes a bound, self-checked model."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..errors import CheckpointRefused, CircuitsError, InstrumentError, MeasurementError
from .architectures import ADD_A_ROW, ARCHITECTURES, Architecture, Shape, shape_of
from .devices import SPLIT, device_named
from .identify import refuse_changed
from .model import BoundModel, Site
from .native import native_classes, native_config
from .probe import probe, refuse_other_mixers
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


def open_model(identified: Identified, *, device: str = "auto", dtype: str = "float32") -> BoundModel:
    """Load a checkpoint that was identified, find its parts, and check the instrument on it.

    Raises:
        CheckpointRefused: its tensors do not fit its config, its tokenizer cannot be read, or its files changed.
        InstrumentError: a self-check failed.
        MeasurementError: the device has no room for it.
    """
    shape, place = shape_of(identified.config), device_named(device)
    refuse_changed(identified, "after it was checked")
    with _Refusing(*_not_made("model", identified)):
        module = _load_module(identified, shape, DTYPES[dtype], split=device == SPLIT)
    with _Refusing(*_not_made("tokenizer", identified)):
        tokenizer = _load_tokenizer(identified)
    refuse_changed(identified, "while it was loaded")
    module = (module if device == SPLIT else _moved(module, place, identified.name)).eval()
    with _Refusing(*_not_made("model", identified)):
        return bind(module, tokenizer, shape=shape, name=identified.name, fingerprint=identified.fingerprint)


def bind(module: Any, tokenizer: Any, *, shape: Shape, name: str, fingerprint: str) -> BoundModel:
    """Find a module's parts, check the instrument on it, and return it bound.

    Raises:
        CheckpointRefused: its architecture has no row, and a part was not found.
        InstrumentError: a self-check failed.
    """
    module.requires_grad_(False)
    identity = {"module": module, "tokenizer": tokenizer, "shape": shape, "name": name, "fingerprint": fingerprint}
    if not shape.probed:
        return _checked(ARCHITECTURES[shape.architecture], **identity)
    found = "nothing yet"
    try:
        with _Refusing(
            f"{shape.architecture!r} has no row, and it does not run as the instrument needs it",
            f"Add a row: {ADD_A_ROW}",
        ):
            row = probe(module, shape)
            found = row.found
            return _checked(row, **identity)
    except InstrumentError as error:
        raise InstrumentError(
            f"{error}\n  {shape.architecture!r} has no row, so its parts were probed: {found}.\n"
            f"  If they are others, add a row: {ADD_A_ROW}."
        ) from error


def _checked(
    row: Architecture, *, module: Any, tokenizer: Any, shape: Shape, name: str, fingerprint: str
) -> BoundModel:
    """Return a module bound with the parts that a row names, after every self-check."""
    model = BoundModel(
        name=name,
        fingerprint=fingerprint,
        architecture=row,
        module=module,
        tokenizer=tokenizer,
        layers=shape.layers,
        heads=shape.heads,
        groups=1,
        blocks=module.get_submodule(row.blocks),
    )
    model = _watched(model)
    check_instrument(model)
    return model


def _watched(model: BoundModel) -> BoundModel:
    """Return the model with what one short forward tells: its key/value heads, and what form a layer's output has."""
    in_tuple: list[bool] = []
    first = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with model.blocks[0].register_forward_hook(lambda _, args, output: in_tuple.append(isinstance(output, tuple))):
        values = model.forward(first, keep=[Site("v", 0)]).values[Site("v", 0)]
    return replace(model, groups=values.shape[2], in_tuple=in_tuple[0])


def _moved(module: Any, place: torch.device, name: str) -> Any:
    """Return the module on a device."""
    try:
        return module.to(place)
    except torch.OutOfMemoryError as error:
        said = str(error).partition("\n")[0]
    raise MeasurementError(
        f"the weights of {name!r} should fit on {place}, and do not: {said}\n"
        "  --circuits-device split puts the layers on all GPUs and on the CPU; --circuits-dtype bfloat16 halves them."
    )


def _load_module(identified: Identified, shape: Shape, dtype: torch.dtype, *, split: bool) -> Any:
    """Return the native transformers module with the checkpoint's tensors, every one of them accounted for."""
    config_class, model_class = native_classes(shape.architecture)
    row = ARCHITECTURES.get(shape.architecture)
    config = native_config(identified.config, config_class, row)
    with torch.device("meta"):  # nothing of the model has memory yet, and no weight is read
        planned = model_class(config)
    if row is None:
        refuse_other_mixers(planned, shape)
    _refuse_larger(planned, identified, shape)
    _refuse_two_names(identified, model_class.base_model_prefix)
    with _no_progress_bar():
        module, report = model_class.from_pretrained(
            identified.directory,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            device_map="auto" if split else None,
            attn_implementation="sdpa" if model_class._supports_sdpa else "eager",  # as the library would choose
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            output_loading_info=True,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in report[kind]):
            raise CheckpointRefused(
                f"refused: {identified.name!r} does not hold the tensors of a {shape.architecture}: {len(names)} "
                f"{kind.replace('_keys', '')}, first {names[:5]!r}.\n"
                "  Part of the model would be random or dropped. If this is an adapter, merge it into its base first."
            )
    if "disk" in getattr(module, "hf_device_map", {}).values():
        raise MeasurementError(
            f"{identified.name!r} should fit into the memory of all GPUs and the CPU, and a part of it does not.\n"
            "  It would be read from disk while it runs, where another process could change it. Use a larger machine."
        )
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()  # the library maps the file: a later write would change the model
    return module


def _refuse_larger(planned: Any, identified: Identified, shape: Shape) -> None:
    """Refuse a config whose model would take far more memory than the weights: what they lack is made at random first.

    Twice is allowed for, because an embedding that is used again as the unembedding is stored once.
    """
    held = sum(prod(tensor.shape) for file in identified.weight_files for tensor in read_header(file))
    asked = sum(parameter.numel() for parameter in planned.parameters())
    if asked > 2 * held:
        raise CheckpointRefused(
            f"refused: {identified.name!r} does not hold the tensors of a {shape.architecture}: config.json describes "
            f"{asked} numbers, and the weights have {held}.\n  Most of the model would be random, and it may not fit "
            "into memory. Its config and weights should be those of one checkpoint, as save_pretrained writes them."
        )


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

    def __init__(self, complaint: str, advice: str) -> None:
        self.complaint, self.advice = complaint, advice

    def __enter__(self) -> None:
        """Nothing is held."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the refusal in the place of `error`."""
        if isinstance(error, Exception) and not isinstance(error, (CircuitsError, torch.OutOfMemoryError)):
            raise CheckpointRefused(
                f"refused: {self.complaint}: {type(error).__name__} {str(error)[:300]!r}.\n  {self.advice}."
            ) from error


def _not_made(what: str, identified: Identified) -> tuple[str, str]:
    return (
        f"the {what} of {identified.name!r} cannot be made from {str(identified.directory)!r}",
        "Its config, weights and tokenizer should be those of one checkpoint, as save_pretrained writes them",
    )


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

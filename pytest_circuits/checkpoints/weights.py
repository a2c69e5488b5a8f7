"""Safetensors files, audited by hand before any library parses them: headers, shards, and every byte of every tensor.

The layout is that of https://github.com/huggingface/safetensors: 8 bytes for the header's length, little endian, a JSON
header, then the tensors' bytes without a gap.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointRefused, MissingExtra
from .safety import MIB, parse_json, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from hashlib import _Hash
    from pathlib import Path

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
LONGEST_HEADER, LARGEST_INDEX = 16 * MIB, 64 * MIB
WIDTHS = {  # bytes of a number; what is not here (8-bit and smaller floats) is quantised, and is not measured
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
EXPONENTS = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F80_0000, "F64": 0x7FF0_0000_0000_0000}  # all set: NaN or Inf
CHUNK = MIB  # a multiple of every width; small enough to stay in the processor's cache between hash and check


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, not read yet: its bytes are `start` to `stop`, counted from the file's begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int


def find_weights(directory: Path) -> tuple[tuple[Path, ...], Mapping[str, str] | None]:
    """Return the weight files in order, and the index's map from tensor to file when there is one.

    Pickles beside safetensors are tolerated, because they are never opened: a trainer leaves its arguments there.

    Raises:
        CheckpointRefused: there are no safetensors, or the index names a file that is missing or none of its shards.
    """
    if not (directory / INDEX).is_file():
        if not (directory / SINGLE).is_file():
            _refuse_missing_weights(directory)
        return (directory / SINGLE,), None
    places = _read_index(directory / INDEX)
    names = sorted(set(places.values()))
    if names != [SINGLE]:
        _refuse_malformed_shards(directory, names)
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise CheckpointRefused(
            f"{INDEX!r} names {missing[0]!r} ({len(missing)} of {len(names)} files are missing). Download it again."
        )
    return tuple(directory / name for name in names), places


def read_tensors(files: tuple[Path, ...], places: Mapping[str, str] | None) -> tuple[Tensor, ...]:
    """Return every tensor of the checkpoint, sorted by name, from the files' headers alone.

    Raises:
        CheckpointRefused: a header is damaged or ambiguous, or the files and the index disagree.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        for tensor in read_header(file):
            other = tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise CheckpointRefused(
                    f"{other.file.name!r} and {file.name!r} both hold {tensor.name!r}; which one is loaded is chance. "
                    "Save the checkpoint again."
                )
    if places is not None:
        held = {name: tensor.file.name for name, tensor in tensors.items()}
        wrong = sorted(name for name in held.keys() | places.keys() if held.get(name) != places.get(name))
        if wrong:
            name = wrong[0]
            raise CheckpointRefused(
                f"{INDEX!r} says that {name!r} is in {places.get(name)!r}, and it is in {held.get(name)!r} "
                f"({len(wrong)} such tensors); weights would be left out or random. Download it again."
            )
    return tuple(tensors[name] for name in sorted(tensors))


def read_header(file: Path) -> tuple[Tensor, ...]:
    """Return a safetensors file's tensors in the order of their bytes, which cover the rest of the file exactly.

    Raises:
        CheckpointRefused: anything in the header is not as the format says, or the file is shorter or longer than it.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size - 8 or length > LONGEST_HEADER:
            raise CheckpointRefused(
                f"{file.name!r} has {size} bytes and says that its header has {length} (at most {LONGEST_HEADER} are "
                "read): it is truncated, or no safetensors file. Download it again."
            )
        header = parse_json(stream.read(length), file.name)
    header.pop("__metadata__", None)
    first = 8 + length
    tensors = [_tensor(name, entry, file, first) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    end = first
    for tensor in tensors:
        if tensor.start != end:
            raise CheckpointRefused(
                f"{file.name!r} has {tensor.name!r} begin at byte {tensor.start}, expected {end}: tensors overlap or "
                "leave a gap, so bytes are read twice or hidden. Save the checkpoint again."
            )
        end = tensor.stop
    if end > size:
        raise CheckpointRefused(f"{file.name!r} has {size} of {end} bytes: it is truncated. Download it again.")
    if end < size:
        raise CheckpointRefused(
            f"{file.name!r} has {size} bytes and its tensors end at {end}: the rest is hidden. Save it again."
        )
    return tuple(tensors)


def digest_tensors(tensors: tuple[Tensor, ...], digest: _Hash) -> None:
    """Feed every tensor's name, dtype, shape and bytes to `digest`; how they are split into files does not enter.

    Raises:
        CheckpointRefused: a weight is NaN or infinite.
    """
    for tensor in tensors:
        digest.update(json.dumps([tensor.name, tensor.dtype, tensor.shape]).encode())
        for data in _chunks(tensor):
            digest.update(data)
            if not _is_finite(data, tensor.dtype):
                raise CheckpointRefused(
                    f"{tensor.file.name!r} holds NaN or infinite weights in {tensor.name!r}; nothing computed with "
                    "them means anything. Take an earlier step of the training."
                )


def _chunks(tensor: Tensor) -> Iterator[bytes]:
    """Read, rather than map: a file that shrinks meanwhile is an error here, and would kill the process there."""
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        for position in range(tensor.start, tensor.stop, CHUNK):
            wanted = min(CHUNK, tensor.stop - position)
            data = stream.read(wanted)
            if len(data) < wanted:
                raise CheckpointRefused(f"{tensor.file.name!r} shrank while it was read. Wait until it is written.")
            yield data


def _is_finite(data: bytes, dtype: str) -> bool:
    """Whether no float in `data` has all its exponent's bits set, as NaN and the infinities have (IEEE 754)."""
    if dtype not in EXPONENTS:
        return True
    try:
        import numpy as np
    except ImportError as error:
        raise MissingExtra('checking weights needs NumPy: pip install "pytest-circuits[hf]".') from error
    bits = np.frombuffer(data, dtype=f"<u{WIDTHS[dtype]}")
    exponent = bits.dtype.type(EXPONENTS[dtype])
    return not bool(((bits & exponent) == exponent).any())


def _tensor(name: str, entry: Any, file: Path, first: int) -> Tensor:
    """Check one entry of a header whose bytes are counted from `first`."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)], **rest} if (
            not rest and len(shape) <= 8 and all(type(n) is int and n >= 0 for n in [*shape, start, stop])
        ):
            pass
        case _:
            raise CheckpointRefused(
                f"{file.name!r} describes {name!r} as {repr(entry)[:200]}, expected dtype, shape and data_offsets of "
                "whole numbers. Save the checkpoint again."
            )
    if dtype not in WIDTHS:
        raise CheckpointRefused(
            f"{file.name!r} stores {name!r} as {dtype!r}; known are {', '.join(WIDTHS)}. Save it without quantisation."
        )
    if stop - start != math.prod(shape) * WIDTHS[dtype]:
        raise CheckpointRefused(
            f"{file.name!r} gives {name!r} {stop - start} bytes, and {dtype} of shape {shape} needs "
            f"{math.prod(shape) * WIDTHS[dtype]}. Download it again."
        )
    return Tensor(name, dtype, tuple(shape), file, first + start, first + stop)


def _read_index(path: Path) -> dict[str, str]:
    places = read_json(path, LARGEST_INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointRefused(f"{INDEX!r} has no weight_map from tensors to files. Download it again.")
    return places


def _refuse_malformed_shards(directory: Path, names: list[str]) -> None:
    for name in names:
        if not SHARD.fullmatch(name):
            raise CheckpointRefused(
                f"{INDEX!r} names {name!r}, outside the checkpoint or no shard of it: a shard is called "
                "model-00001-of-00002.safetensors and is in the directory itself. Download it again where you trust it."
            )
    expected = [f"model-{number:05}-of-{len(names):05}.safetensors" for number in range(1, len(names) + 1)]
    if names != expected or (directory / SINGLE).exists():
        found = [*names, SINGLE] if (directory / SINGLE).exists() else names
        raise CheckpointRefused(
            f"the weights are {found[:5]!r}, expected one set of shards, {expected[0]!r} to {expected[-1]!r}: part is "
            "missing, or two checkpoints share the directory. Download it again into an empty one."
        )


def _refuse_missing_weights(directory: Path) -> None:
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix.lower() in PICKLES)
    if pickles:
        raise CheckpointRefused(
            f"{pickles[0]!r} is a pickle, and loading it can run code. Convert it to safetensors where you trust it: "
            "`save_pretrained` writes them."
        )
    found = sorted(path.name for path in directory.glob("*.safetensors*"))
    raise CheckpointRefused(
        f"there are no weights in {str(directory)!r}: expected {SINGLE!r}, or {INDEX!r} with its shards, found "
        f"{found[:5] or 'neither'}. Name the directory that `save_pretrained` wrote."
    )

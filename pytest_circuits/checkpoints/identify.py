"""A checkpoint is found, checked and fingerprinted, before any library that could load it is imported."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointRefused
from .hub import Snapshot, fetch_snapshot
from .naming import BUILTIN, Checkpoint
from .safety import CONFIGS, read_configs, refuse_unsafe_files
from .weights import INDEX, SHARD, SINGLE, digest_tensors, find_weights, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SLOW = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "vocab.txt")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *SLOW)
# What is read here or when the checkpoint is loaded, beside the shards.
READ = frozenset({*CONFIGS, *TOKENIZER, SINGLE, INDEX, "adapter_config.json"})
# Who saved it, from where, and in which precision a library would load it: ours is the caller's choice, and the stored
# one is a part of every tensor.
COSMETIC = frozenset({"transformers_version", "_name_or_path", "torch_dtype", "dtype"})

Stamp = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, and inode."""


@dataclass(frozen=True)
class Identified:
    """A checkpoint that passed every check that needs no model.

    Attributes:
        name: as in node ids.
        source: what was typed, or the absolute path of the directory that was.
        directory: where its files are, links in the path resolved.
        revision: the commit of a Hub id, else None.
        fingerprint: 64 hex digits, equal for equal tensors, tokenizer and config, however the weights are split.
        config: config.json.
        weight_files: the safetensors files, in order.
        stamps: of each file that was read, by name, as it was before.
    """

    name: str
    source: str
    directory: Path
    revision: str | None
    fingerprint: str
    config: Mapping[str, Any]
    weight_files: tuple[Path, ...]
    stamps: Mapping[str, Stamp]


def identify(checkpoint: Checkpoint, *, fetch: Callable[[str], Snapshot] = fetch_snapshot) -> Identified:
    """Find the checkpoint's directory, refuse what is unsafe or damaged, and fingerprint the rest.

    Every byte of the weights is read once; neither torch nor transformers is imported.

    Args:
        checkpoint: a built-in model, a directory or a Hub id.
        fetch: what turns a Hub id into a snapshot.

    Raises:
        CheckpointRefused: it is unknown, unsafe or damaged.
        MissingExtra: it is a Hub id and huggingface_hub is not installed.
    """
    try:
        directory, snapshot = _locate(checkpoint.source, fetch)
        directory = directory.resolve()
        refuse_unsafe_files(directory, snapshot.blobs.resolve() if snapshot else None)
        stamps = _stamps(directory)
        config = read_configs(directory)
        _refuse_missing_tokenizer(directory)
        files, places = find_weights(directory)
        digest = hashlib.sha256()
        _digest_settings(directory, config, digest)
        digest_tensors(read_tensors(files, places), digest)
    except CheckpointRefused as refusal:
        raise CheckpointRefused(f"refused: {checkpoint.source!r}: {refusal}") from refusal
    except OSError as error:
        raise CheckpointRefused(f"refused: {checkpoint.source!r} cannot be read: {str(error)!r}.") from error
    revision = snapshot.revision if snapshot else None
    fingerprint = digest.hexdigest()
    return Identified(checkpoint.name, checkpoint.source, directory, revision, fingerprint, config, files, stamps)


def refuse_changed(identified: Identified, when: str) -> None:
    """Refuse a checkpoint whose files are no longer those that were fingerprinted; `when` ends "changed ..."."""
    try:
        found = _stamps(identified.directory)
    except OSError as error:
        raise CheckpointRefused(f"refused: {identified.source!r} cannot be read: {str(error)!r}.") from error
    names = found.keys() | identified.stamps.keys()
    changed = sorted(name for name in names if found.get(name) != identified.stamps.get(name))
    if changed:
        raise CheckpointRefused(
            f"refused: {identified.source!r}: {changed[0]!r} changed {when} ({len(changed)} such files).\n"
            "  The fingerprint would name other weights than are measured. Run again once nothing writes to the "
            "checkpoint, or name a copy of it."
        )


def _stamps(directory: Path) -> dict[str, Stamp]:
    """Return the stamps of the files that are there to be read; links are followed."""
    paths = [path for path in directory.iterdir() if path.name in READ or SHARD.fullmatch(path.name)]
    states = {path.name: path.stat() for path in paths if path.is_file()}
    return {name: (state.st_size, state.st_mtime_ns, state.st_ino) for name, state in states.items()}


def _locate(source: str, fetch: Callable[[str], Snapshot]) -> tuple[Path, Snapshot | None]:
    if source.startswith(BUILTIN):
        return _builtin(source.removeprefix(BUILTIN)), None
    if os.path.isabs(source):
        if not os.path.isdir(source):
            raise CheckpointRefused("there is no such directory. Check the spelling.")
        return Path(source), None
    snapshot = fetch(source)
    return snapshot.directory, snapshot


def _builtin(name: str) -> Path:
    from ..builtin import builtin_directory, builtin_names

    try:
        return builtin_directory(name)
    except KeyError:
        known = ", ".join(BUILTIN + known for known in builtin_names())
        raise CheckpointRefused(f"there is no built-in checkpoint {name!r}; there are {known}.") from None


def _refuse_missing_tokenizer(directory: Path) -> None:
    if (directory / "tokenizer.json").is_file():
        return
    slow = [name for name in SLOW if (directory / name).is_file()]
    found = f"only the files of a slow tokenizer ({', '.join(slow)})" if slow else "no tokenizer"
    raise CheckpointRefused(
        f"there is no tokenizer.json, {found}; another tokenizer would ask other questions, so none is taken in its "
        "place. Write it beside the weights: AutoTokenizer.from_pretrained(BASE).save_pretrained(DIRECTORY)."
    )


def _digest_settings(directory: Path, config: Mapping[str, Any], digest: hashlib._Hash) -> None:
    """Feed what is computed with the weights: the config without its cosmetic keys, and the tokenizer's files."""
    meaning = {key: value for key, value in config.items() if key not in COSMETIC}
    digest.update(json.dumps(meaning, sort_keys=True).encode())
    for name in TOKENIZER:
        path = directory / name
        if path.is_file():
            with path.open("rb") as stream:
                digest.update(f"{name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())

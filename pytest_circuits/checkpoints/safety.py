"""What a checkpoint's folder may not hold: code, links out of it, settings that name code, files or repositories."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import CheckpointRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
CONFIGS = {  # every JSON file that a library turns into keyword arguments, and the most that it may weigh
    "config.json": MIB,
    "generation_config.json": MIB,
    "tokenizer_config.json": 16 * MIB,
    "special_tokens_map.json": 16 * MIB,
}
DEEPEST = 20
FORBIDDEN = (  # a key at any depth, and what it would do
    (re.compile("auto_map|trust_remote_code"), "asks for Python code from outside to be run"),
    (re.compile("(attn|experts)_implementation"), "can name code to download (CVE-2026-4372)"),
    (
        re.compile(
            "^(configuration_files|transformers_weights|fast_tokenizer_files|tokenizer_file|vocab_file|merges_file|gguf_file)$"
        ),
        "can make a library read another file than the one that was checked",
    ),
)
NAMING = re.compile("(^|_)(types?|class|architectures|act|activation|function|fn)$")


def refuse_unsafe_files(directory: Path, blobs: Path | None) -> None:
    """Refuse Python files, an adapter, and links that leave the folder.

    Args:
        directory: the checkpoint's folder, resolved.
        blobs: where the links of a Hub snapshot may point, resolved; None for any other folder.
    """
    for entry in sorted([*directory.iterdir(), *directory.glob("custom_generate/*")]):
        name = str(entry.relative_to(directory))
        if entry.suffix.lower() == ".py":
            raise CheckpointRefused(
                f"{name!r} is Python code; a checkpoint is data, and code from it is never run. Name a directory that "
                "holds the weights, config.json and tokenizer.json alone."
            )
        target = Path(os.path.realpath(entry))
        if entry.is_symlink() and not (target.is_relative_to(directory) or (blobs and target.parent == blobs)):
            raise CheckpointRefused(
                f"{name!r} is a link out of the checkpoint, to {str(target)!r}; what it names can change after it was "
                "checked. Copy the files in its place (`cp -rL`), or give a Hub id if this is the Hub's cache."
            )
    if (directory / "adapter_config.json").exists():
        raise CheckpointRefused(
            "'adapter_config.json' makes it an adapter, which loads a base model that is named inside it; adapters are "
            "not supported yet. Merge it (`merge_and_unload`, then `save_pretrained`) and name the merged directory."
        )


def read_configs(directory: Path) -> dict[str, Any]:
    """Check every settings file and return what config.json says.

    Raises:
        CheckpointRefused: config.json is missing; a file is too large, too deep or no plain JSON object; or a setting
            names code, another file or a repository.
    """
    if not (directory / "config.json").is_file():
        raise CheckpointRefused(
            f"there is no config.json in {str(directory)!r}, so what its weights mean is unknown. Name the directory "
            "that `save_pretrained` wrote, or download it again."
        )
    for name, limit in CONFIGS.items():
        if (directory / name).is_file():
            _refuse_settings(name, read_json(directory / name, limit))
    return read_json(directory / "config.json", MIB)


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """Return the object in a JSON file of at most `limit` bytes, as strictly as `parse_json`."""
    size = path.stat().st_size
    if size > limit:
        raise CheckpointRefused(
            f"{path.name!r} has {size} bytes, and at most {limit} are read: real ones are smaller. Download it again."
        )
    return parse_json(path.read_bytes(), path.name)


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object that every reader reads alike: UTF-8, no key twice, every number finite.

    Raises:
        CheckpointRefused: it is anything else; the text begins with `name`, the file that the bytes came from.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        raise CheckpointRefused(
            f"{name!r} is no plain JSON: {error}. Libraries differ in how they read it, so what is checked might not "
            "be what is loaded. Download it again, or save it again where you trust it."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointRefused(f"{name!r} holds a JSON {type(value).__name__}, expected an object. Download it again.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        first, *_ = (key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"it lists {first!r} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {text[:40]}")
    return number


def _refuse_settings(name: str, config: dict[str, Any]) -> None:
    for path, value in _walk(config, (), name):
        keys = [part for part in path if isinstance(part, str)]
        for pattern, reason in FORBIDDEN:
            if keys and pattern.search(keys[-1]):
                _refuse_setting(name, path, reason)
        if isinstance(value, str) and "/" in value and any(NAMING.search(key) for key in keys):
            _refuse_setting(name, path, f"is {value!r}, expected a plain name: a '/' names a repository or a file")


def _refuse_setting(name: str, path: tuple[str | int, ...], reason: str) -> NoReturn:
    where = ".".join(map(str, path))
    raise CheckpointRefused(
        f"{name!r} sets {where!r}, which {reason}. If you trust the checkpoint, delete that key from your copy of it."
    )


def _walk(value: Any, path: tuple[str | int, ...], name: str) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield every value with the keys and indices that lead to it."""
    if len(path) > DEEPEST:
        raise CheckpointRefused(
            f"{name!r} is nested deeper than {DEEPEST} levels, as no real one is and some readers cannot follow. "
            "Download it again."
        )
    yield path, value
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(child, (*path, key), name)

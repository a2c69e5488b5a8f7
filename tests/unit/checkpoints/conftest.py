"""A checkpoint's folder, made by hand or by the library, and the bytes of a safetensors file, right or wrong."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from small_models import change, random_module

from pytest_circuits.builtin import builtin_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "_name_or_path": "org/base"}


def safetensors_bytes(tensors: dict[str, tuple[str, list[int], bytes]], header: str | None = None) -> bytes:
    """The file that holds `tensors`, name to (dtype, shape, bytes); `header` takes the place of the right one."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = (json.dumps(entries) if header is None else header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


TENSORS = {
    "a": ("F32", [2, 3], bytes(range(24))),
    "b": ("BF16", [2], b"\x80\x3f\x00\xc0"),
    "mask": ("BOOL", [3], b"\x01\x00\x01"),
    "none": ("I64", [0], b""),
}


@pytest.fixture
def tensors() -> dict[str, tuple[str, list[int], bytes]]:
    return dict(TENSORS)


@pytest.fixture
def pack() -> Callable[..., bytes]:
    return safetensors_bytes


@pytest.fixture
def fill() -> Callable[[Path], Path]:
    """Make a folder a whole checkpoint."""

    def fill(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
        (folder / "model.safetensors").write_bytes(safetensors_bytes(TENSORS))
        return folder

    return fill


@pytest.fixture
def folder(tmp_path: Path, fill: Callable[[Path], Path]) -> Path:
    """A checkpoint that nothing is wrong with."""
    return fill(tmp_path / "step-1000").resolve()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a small random model, `made` otherwise, with a tokenizer; `changes` are made in its config.json."""

    def saved(architecture: str, *, made: Mapping[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / architecture
        random_module(architecture, **(made or {})).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(builtin_directory("tiny") / name, folder / name)
        change(folder / "config.json", **changes)
        return folder

    return saved

"""The embedded checkpoints as a user gets them: in the installed package, safe, small and open to every check."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pytest_circuits
from pytest_circuits import open_checkpoint
from pytest_circuits.builtin import builtin_directory, builtin_names

LARGEST = 12 * 1024 * 1024


def test_the_package_under_test_is_the_installed_one_under_tox() -> None:
    if "TOX_ENV_NAME" not in os.environ:
        pytest.skip("outside tox the working tree may be installed in place")

    assert "site-packages" in Path(pytest_circuits.__file__).parts


@pytest.mark.parametrize("name", builtin_names())
def test_every_builtin_opens_and_passes_the_self_checks(name: str) -> None:
    model = open_checkpoint(f"builtin:{name}")

    assert (model.name, str(model.shape)) == (name, "gpt2 with 4 layers x 4 heads")
    assert model.bound.tokenizer("the dog")["input_ids"][0] == model.bound.tokenizer.bos_token_id


def test_builtins_are_different_models_of_one_tokenizer() -> None:
    fingerprints = {open_checkpoint(f"builtin:{name}").fingerprint for name in builtin_names()}
    tokenizers = {(builtin_directory(name) / "tokenizer.json").read_bytes() for name in builtin_names()}

    assert len(fingerprints) == 3
    assert len(tokenizers) == 1


def test_builtins_are_small() -> None:
    files = [file for name in builtin_names() for file in builtin_directory(name).iterdir()]

    assert sum(file.stat().st_size for file in files) <= LARGEST

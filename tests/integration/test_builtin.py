"""The embedded checkpoints as a user gets them: in the installed package, safe, small and open to every check."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import fmean

import pytest

import pytest_circuits
from pytest_circuits import open_checkpoint
from pytest_circuits.builtin import builtin_directory, builtin_names
from pytest_circuits.builtin.grammar import held_out_lines
from pytest_circuits.builtin.storage import load
from pytest_circuits.builtin.survey import scores

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


@pytest.mark.parametrize("name", builtin_names())
def test_every_builtin_does_every_behaviour_on_prompts_it_never_saw(name: str) -> None:
    found = scores(load(builtin_directory(name)), held_out_lines(seed=5, per_template=60))
    right: dict[str, list[float]] = {}
    for (behaviour, _), score in found.items():
        right.setdefault(behaviour, []).append(score.accuracy)

    assert len(right) == 12
    assert {behaviour: fmean(shares) for behaviour, shares in right.items() if fmean(shares) < 0.99} == {}

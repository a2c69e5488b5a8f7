"""What every test may use: the heavy imports, paid once, and small models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import hypothesis
import pytest
import torch
import transformers.models.gpt2.modeling_gpt2  # noqa: F401
from small_models import bound, random_module

# pytester forgets every module that an inner run imported first: what is heavy is imported here, once.
import pytest_circuits.builtin
import pytest_circuits.checkpoints.attention
import pytest_circuits.checkpoints.load
import pytest_circuits.checks.measurements
import pytest_circuits.checks.suite  # noqa: F401

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel

pytest_plugins = ["pytester"]

hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("suite")
torch.set_num_threads(1)  # the models are tiny: threads cost more than they give

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's own cache, which its subprocesses inherit: what another measured may be a fault's."""
    folder = tmp_path_factory.getbasetemp() / "caches" / uuid4().hex
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "pytest-circuits"


@pytest.fixture(params=["gpt2", "llama", "mistral", "qwen2"])
def model(request: pytest.FixtureRequest) -> BoundModel:
    """A small random model of each of four architectures; `VARIANT_NAMES` are all."""
    return bound(random_module(request.param), request.param)


@pytest.fixture
def stories() -> Path:
    """The directory of a real language model that lies outside the project."""
    path = SHARED / "models" / "stories260K"
    if not path.is_dir():
        pytest.skip(f"the real model is not here: no {path}")
    return path

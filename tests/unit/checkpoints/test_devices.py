"""The device that a name means, and that its kind is told without torch where the name or the build says it."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from pytest_circuits.checkpoints import devices
from pytest_circuits.checkpoints.devices import describe_device, device_named
from pytest_circuits.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], bool]:
    """Stand in for how the installed torch was built, by the text of its `version.py`."""

    def built(text: str | None) -> bool:
        if text is not None:
            (tmp_path / "version.py").write_text(text)
        spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(devices, "find_spec", lambda name: spec)
        return devices._built_without_cuda.__wrapped__()

    return built


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("cuda = None\nhip = None\n", True),
        ("cuda: str | None = None\n", True),
        ("cuda = '13.0'\nhip = None\n", False),
        ("cuda = None\nhip = '7.0'\n", False),
        ("", False),
        (None, False),
    ],
)
def test_how_torch_was_built_says_whether_there_can_be_cuda(
    built: Callable[[str | None], bool], text: str | None, without: bool
) -> None:
    assert built(text) is without


def test_the_installed_torch_is_read_as_it_tells_itself() -> None:
    assert devices._built_without_cuda() == (torch.version.cuda is None and torch.version.hip is None)


def test_a_torch_that_is_not_there_is_not_taken_for_one_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)

    assert devices._built_without_cuda.__wrapped__() is False


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_the_kind_is_told_without_torch_and_is_that_of_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_built_without_cuda", lambda: True)

    assert describe_device(name) == device_named(name).type == "cpu"
    code = f"import sys; sys.modules['torch'] = None\nfrom pytest_circuits.checkpoints import devices\n" \
        f"devices._built_without_cuda = lambda: True\nprint(devices.describe_device({name!r}))"  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "cpu"


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_gpu_is_told_with_its_own_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    gpu = SimpleNamespace(
        is_available=lambda: True, get_device_name=lambda device: asked.append(device) or "NVIDIA H100"
    )
    monkeypatch.setattr(torch, "cuda", gpu)
    monkeypatch.setattr(devices, "_built_without_cuda", lambda: False)

    assert describe_device(name) == "cuda (NVIDIA H100)"
    assert asked == [device_named(name)]


def test_a_build_for_cuda_on_a_machine_without_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_built_without_cuda", lambda: False)

    assert describe_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("name", "told"),
    [("gpu", "auto, cpu, cuda, cuda:N, mps or split, got 'gpu'"), ("cuda", "this machine has no such device")],
)
def test_a_device_that_cannot_be_is_refused(name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageProblem, match=told):
        describe_device(name)

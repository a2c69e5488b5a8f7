"""The house keeps its plan: who imports whom, what is heavy, and what collecting may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_circuits

ROOT = Path(pytest_circuits.__file__).parent
GROUND = {"errors", "records"}
MEASURING = {"checkpoints", "engine", "attribution", "roles", "builtin"}
CHECKS = GROUND | {"spec", "prompts", "gate", "baselines", "checkpoints", "engine", "attribution", "roles"}
MAY_IMPORT = {
    "errors": set(),
    "records": {"errors"},
    "spec": GROUND,
    "prompts": GROUND | {"spec"},
    "gate": GROUND | {"spec"},
    "baselines": GROUND,
    "builtin": GROUND,
    "checkpoints": GROUND | {"spec", "prompts", "builtin"},
    "engine": GROUND | {"spec", "prompts", "checkpoints"},
    "attribution": GROUND | {"spec", "prompts", "checkpoints", "engine"},
    "roles": GROUND | {"spec", "prompts", "checkpoints", "engine", "attribution"},
    "checks": CHECKS,
    "integrations": CHECKS | {"checks"},
    "report": GROUND,
    "collect": GROUND | {"spec"},
}
ANYTHING = {"plugin", "cli", "__init__"}
HEAVY = {
    "torch": MEASURING | {"integrations"},
    "transformers": {"checkpoints", "builtin"},
    "hypothesis": set(),
    "pytest": {"plugin", "collect"},
    "_pytest": set(),
}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> list[str]:
    """Every imported dotted name, those inside functions too, relative ones resolved."""
    package = ["pytest_circuits", *path.relative_to(ROOT).parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names]
    return names


def departures(path: Path) -> list[str]:
    here = room_of(path)
    if here in ANYTHING:
        return []
    found = [] if here in MAY_IMPORT else [f"{here} is a room that the plan does not name"]
    for name in imported(path):
        parts = name.split(".")
        there = parts[1] if parts[0] == "pytest_circuits" and len(parts) > 1 else here
        if there != here and there not in MAY_IMPORT.get(here, set()):
            found.append(f"{here} imports {there} in {path.name}")
        if parts[0] in HEAVY and here not in HEAVY[parts[0]]:
            found.append(f"{here} imports {parts[0]} in {path.name}")
    return found


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_flows_one_way(path: Path) -> None:
    assert departures(path) == []


def test_a_planted_departure_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "gate" / "planted.py"
    planted.parent.mkdir()
    planted.write_text("def f():\n    from ..engine import runs\n    import torch\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)

    assert departures(planted) == ["gate imports engine in planted.py", "gate imports torch in planted.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 350


def test_the_plugin_and_the_package_load_nothing_heavy() -> None:
    code = (
        "import sys, pytest_circuits, pytest_circuits.plugin, pytest_circuits.cli, pytest_circuits.collect\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'hypothesis', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


def test_public_names_are_resolved_on_demand() -> None:
    for name in pytest_circuits.__all__:
        assert callable(getattr(pytest_circuits, name))
    with pytest.raises(AttributeError, match="no attribute 'lod_spec'"):
        pytest_circuits.lod_spec  # noqa: B018

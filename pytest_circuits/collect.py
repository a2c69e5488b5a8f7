"""A spec file becomes pytest items: a module that is made up from it, one function a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from .errors import BaselineError, SpecError, plain

if TYPE_CHECKING:
    from .spec.loader import SpecFile

SUFFIX = ".circuit.yaml"
STORE = "__circuits__"

Body = Callable[[pytest.FixtureRequest, "SpecFile", str, Any, Any], None]
BODY = pytest.StashKey[Body]()
"""What an item does: the plugin puts it into the config's stash, so that collecting imports nothing that measures."""
SPEC = pytest.StashKey["SpecFile"]()


class CircuitFile(pytest.Module):
    """One spec. Its items are ordinary test functions, so selection, fixtures and other plugins work on them."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Load the spec and let pytest collect the functions that stand for its checks."""
        from .spec.loader import load_spec

        problem = ""
        try:
            file = load_spec(self.path, root=self.config.rootpath)
        except SpecError as error:
            problem = str(error)
        if problem:  # outside of the except clause, or pytest prints the error twice
            pytest.fail(problem, pytrace=False)
        self.stash[SPEC] = file
        self.obj = _module(file)
        return super().collect()


class MisnamedFile(pytest.Module):
    """A file that means to be a spec: passed over, it would look like a spec that passes."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Fail with the name that it should have."""
        pytest.fail(
            f"{plain(self.path.name)} is not read as a spec: rename it so that it ends in {SUFFIX}.", pytrace=False
        )


class OrphanFile(pytest.Module):
    """A stored baseline whose spec is gone: one item that fails, because what it guarded is no longer tested."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Return the failing item."""
        spec = self.path.parent.parent / f"{self.path.stem}{SUFFIX}"

        def orphan() -> None:
            raise BaselineError(
                f"{self.path.name} is a baseline without its spec: there is no {spec.name} beside {STORE}.\n"
                "  What it guarded is no longer tested. Restore the spec, or delete the baseline with it."
            )

        module = ModuleType(self.path.stem)
        module.orphan = _at(orphan, self.path, 1)  # type: ignore[attr-defined]
        self.obj = module
        return super().collect()


def collector_for(path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Return the collector for a spec or an orphaned baseline, and None for any other file."""
    if path.name.endswith(SUFFIX):
        return CircuitFile.from_parent(parent, path=path)
    if path.name.casefold().endswith((SUFFIX, ".circuit.yml")):
        return MisnamedFile.from_parent(parent, path=path)
    if path.parent.name == STORE and path.suffix == ".json":
        spec = path.parent.parent / f"{path.stem}{SUFFIX}"
        return None if spec.is_file() else OrphanFile.from_parent(parent, path=path)
    return None


def is_ours(node_id: str) -> bool:
    """Say whether a node id, of whichever process, belongs to a spec or to an orphaned baseline."""
    path = Path(node_id.partition("::")[0])
    return path.name.endswith(SUFFIX) or (path.parent.name == STORE and path.suffix == ".json")


def is_our_item(item: pytest.Item) -> bool:
    """Say whether an item stands for a check of a spec or for an orphaned baseline."""
    return isinstance(item.parent, CircuitFile | OrphanFile)


def spec_of(item: pytest.Item) -> SpecFile | None:
    """Return the spec that an item comes from, or None where it is another kind of test."""
    return item.parent.stash.get(SPEC, None) if isinstance(item.parent, CircuitFile) else None


def spec_behind(node: pytest.Item) -> SpecFile | None:
    """Return the spec that an item comes from, or that a hand-written test names in its mark `circuit`."""
    own = spec_of(node)
    mark = node.get_closest_marker("circuit")
    if own is not None or mark is None or not mark.args:
        return own
    from .spec.loader import load_spec

    try:
        return load_spec(node.config.rootpath / mark.args[0], root=node.config.rootpath)
    except SpecError as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


def line_of(item: pytest.Item) -> int:
    """Return the line of the spec that declares an item's check."""
    line: int = item.function.__code__.co_firstlineno  # type: ignore[attr-defined]
    return line


def check_of(item: pytest.Item) -> str:
    """Return the check that an item stands for."""
    return str(getattr(item, "originalname", item.name))


def _module(file: SpecFile) -> ModuleType:
    """Return a module with a function for each check that the spec declares."""
    module = ModuleType(file.path.name.removesuffix(SUFFIX))
    module.__file__ = str(file.path)
    for check in file.spec.declared:
        function = pytest.mark.circuit(_function(file, check))
        setattr(module, check, _at(function, file.path, file.line("claims", check)))
    return module


def _function(file: SpecFile, check: str) -> FunctionType:
    def run(request: pytest.FixtureRequest, circuit_checkpoint: Any, circuit_model: Any) -> None:
        __tracebackhide__ = True
        request.config.stash[BODY](request, file, check, circuit_checkpoint, circuit_model)

    run.__name__ = run.__qualname__ = check
    assert isinstance(run, FunctionType)
    return run


def _at(function: Any, path: Path, line: int) -> Any:
    """Return the function with its code placed at a line of the file, so that every report points there."""
    code: CodeType = function.__code__
    function.__code__ = code.replace(co_filename=str(path), co_firstlineno=line, co_name=function.__name__)
    function.__test__ = True  # collected whatever python_functions says
    return function

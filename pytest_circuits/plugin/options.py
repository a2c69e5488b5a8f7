"""The command line and the ini file: declared, read and checked before anything is opened."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from .. import collect
from ..checkpoints.naming import Checkpoint, parse_checkpoint, refuse_clashes
from ..errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

FLAGS = ("--circuits-no-cache",)  # the options that take no value
INIS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


@dataclass(frozen=True)
class Options:
    """The command line and the ini file, read and checked; nothing has been opened.

    `typed` is how each checkpoint was typed; `cache_dir` None stands for the user's own cache folder.
    """

    checkpoints: tuple[Checkpoint, ...]
    typed: Mapping[Checkpoint, str]
    reference: Checkpoint | None
    device: str
    dtype: str
    batch_size: int
    inconclusive: Literal["fail", "warn"]
    json: Path | None
    cache: bool
    cache_dir: Path | None
    update: Literal["none", "new", "all"]
    reason: str


def add_options(parser: pytest.Parser) -> None:
    """Declare `--circuits-*`, and an ini key for each that is a setting and not an act."""
    group = parser.getgroup("circuits", "circuits: does a checkpoint still solve the task by the same heads?")
    _add_what_is_tested(group)
    _add_how_it_is_measured(group)
    _add_what_comes_of_it(group)
    _add_ini_keys(parser)


def _add_what_is_tested(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--circuits-checkpoint",
        action="append",
        metavar="[NAME=]SOURCE",
        help="Test this checkpoint instead of each spec's own: builtin:tiny, a directory, or a Hub id with @revision. "
        "Repeatable. Example: --circuits-checkpoint tuned=./out/step-1000",
    )
    group.addoption(
        "--circuits-reference",
        metavar="[NAME=]SOURCE",
        help="Compare with this checkpoint, measured in the same run, instead of the stored baselines.",
    )
    group.addoption(
        "--circuits-update",
        choices=("none", "new", "all"),
        default="none",
        help="Write baselines from the reference: 'new' those that are missing, 'all' every one. Review with git diff.",
    )
    group.addoption(
        "--circuits-update-reason", metavar="TEXT", default="", help="Why; stored in the baseline. 'all' needs it."
    )


def _add_how_it_is_measured(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--circuits-device",
        metavar="DEVICE",
        help="auto (cuda, else cpu), cpu, cuda, cuda:N, mps, or split: layers on all GPUs and the CPU.",
    )
    group.addoption("--circuits-dtype", choices=("float32", "bfloat16", "float16"), help="float32 unless said.")
    group.addoption(
        "--circuits-batch-size",
        type=int,
        metavar="N",
        help="Prompts in one forward at most, each copy that is patched another way counted (256). It bounds memory.",
    )


def _add_what_comes_of_it(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--circuits-inconclusive",
        choices=("fail", "warn"),
        help="What an inconclusive check does: 'fail' (default) or 'warn'.",
    )
    group.addoption("--circuits-json", metavar="PATH", help="Write every record of the run as JSON.")
    group.addoption(
        "--circuits-no-cache",
        action="store_true",
        help="Measure everything afresh: neither read what earlier runs measured, nor keep it for later ones.",
    )
    group.addoption(
        "--circuits-cache-dir", metavar="DIR", help="Where measured numbers are kept (the user's own cache folder)."
    )


def _add_ini_keys(parser: pytest.Parser) -> None:
    parser.addini("circuits_checkpoint", "checkpoints to test, one a line", type="linelist", default=[])
    parser.addini("circuits_reference", "the checkpoint to compare with, measured in the same run", default="")
    parser.addini("circuits_device", "auto, cpu, cuda, cuda:N, mps or split", default="auto")
    parser.addini("circuits_dtype", "float32, bfloat16 or float16", default="float32")
    parser.addini("circuits_batch_size", "prompts in one forward at most", default="256")
    parser.addini("circuits_inconclusive", "fail or warn", default="fail")
    parser.addini("circuits_cache", "keep measured numbers for later runs, and read them", type="bool", default=True)
    parser.addini("circuits_cache_dir", "where they are kept, a path from rootdir", default="")
    parser.addini("circuits_update_in_ci", "allow --circuits-update where CI is set", type="bool", default=False)


def read_options(config: pytest.Config) -> Options:
    """Read and check the options.

    Raises:
        UsageProblem: they contradict each other, or a value cannot be.
    """
    _refuse_moved_root(config)
    typed: list[str] = config.getoption("--circuits-checkpoint") or []
    here, root = config.invocation_params.dir, config.rootpath
    update = config.getoption("--circuits-update")
    named = [parse_checkpoint(text, folder=here) for text in typed]
    checkpoints = named or [parse_checkpoint(text, folder=root) for text in config.getini("circuits_checkpoint")]
    refuse_clashes(checkpoints)
    _refuse_update(config, update, typed)
    result = config.getoption("--circuits-json")
    options = Options(
        checkpoints=() if update != "none" else tuple(checkpoints),
        typed=dict(zip(named, typed, strict=True)),
        reference=_reference(config),
        device=_setting(config, "device"),
        dtype=_setting(config, "dtype", ("float32", "bfloat16", "float16")),
        batch_size=_positive(config),
        inconclusive=_setting(config, "inconclusive", ("fail", "warn")),
        json=_writable(here / result) if result else None,
        cache=_switch(config, "circuits_cache") and not config.getoption("--circuits-no-cache"),
        cache_dir=_cache_dir(config),
        update=update,
        reason=config.getoption("--circuits-update-reason"),
    )
    if options.json is not None and not config.option.collectonly and not hasattr(config, "workerinput"):
        _forget_earlier_result(options.json)
    return options


def _reference(config: pytest.Config) -> Checkpoint | None:
    typed = _not_empty(config, "--circuits-reference")
    if typed:
        return parse_checkpoint(typed, folder=config.invocation_params.dir)
    stored = config.getini("circuits_reference")
    return parse_checkpoint(stored, folder=config.rootpath) if stored else None


def _not_empty(config: pytest.Config, option: str) -> str | None:
    """Return what was typed; a variable that is not set must not read as an option that was not given."""
    typed: str | None = config.getoption(option)
    if typed is not None and not typed.strip():
        raise UsageProblem(
            f"{option} should name something, and is empty. Is a variable not set? Set it, or leave it out."
        )
    return typed


def _cache_dir(config: pytest.Config) -> Path | None:
    """Return the folder of the cache that is named, a path from the current folder, or in the ini file from rootdir."""
    typed, stored = _not_empty(config, "--circuits-cache-dir"), config.getini("circuits_cache_dir")
    folder = config.invocation_params.dir / typed if typed else config.rootpath / stored if stored else None
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):  # also for a name that cannot be
        raise UsageProblem(
            f"circuits_cache_dir should be a folder, or the name of one to make; {str(folder)!r} is a file."
        )
    return folder


def _setting(config: pytest.Config, name: str, choices: tuple[str, ...] = ()) -> Any:
    """Return an option, or the ini key of the same name."""
    typed = config.getoption(f"--circuits-{name.replace('_', '-')}")
    value = config.getini(f"circuits_{name}") if typed is None else typed
    if choices and value not in choices:
        raise UsageProblem(f"circuits_{name} should be one of {', '.join(choices)}, got {value!r}.")
    return value


def _switch(config: pytest.Config, key: str) -> bool:
    """Return an ini key that is true or false."""
    try:
        return bool(config.getini(key))
    except (pytest.UsageError, ValueError) as error:  # the second before pytest 9
        raise UsageProblem(f"{key} should be true or false in the ini file: {error}.") from None


def _positive(config: pytest.Config) -> int:
    value = str(_setting(config, "batch_size"))
    if not value.isdecimal() or int(value) < 1:
        raise UsageProblem(f"circuits_batch_size should be a positive number of prompts, got {value!r}.")
    return int(value)


def _refuse_moved_root(config: pytest.Config) -> None:
    """Refuse the value of an option that pytest may have taken for a test path.

    pytest looks for its ini file before it knows our options, from the paths among the arguments upwards, and a value
    after a space is a path to it as soon as it exists.
    """
    if config.option.inifilename or hasattr(config, "workerinput"):
        return
    here = config.invocation_params.dir
    tests = [text.partition("::")[0] for text in config.getoption("file_or_dir", None) or []]
    arguments = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *map(str, config.invocation_params.args)]
    for option, value in pairwise(arguments):
        takes_it = option.startswith("--circuits-") and "=" not in option and option not in FLAGS
        if not takes_it or not os.path.exists(here / value):
            continue
        if reasons := [reason for text in (value, *tests) if (reason := _way_to_an_ini(here, text))]:
            raise UsageProblem(
                f"expected an equals sign before a value that is a path here, found '{option} {value}': pytest takes "
                f"it for a test path, and {reasons[0]}.\n"
                "  The ini file, and the checkpoint that it names, may then be others without a word.\n"
                f"  Write {option}={shlex.quote(value)}"
            )


def _way_to_an_ini(here: Path, text: str) -> str:
    """Return why a path decides which ini file pytest reads; empty where it is the one of the current folder."""
    path = Path(os.path.abspath(here / text))
    folders = [path, *path.parents] if os.path.isdir(path) else [*path.parents]
    if here not in folders:
        return f"{text!r} lies outside of the current folder"
    inis = [folder / name for folder in folders[: folders.index(here)] for name in INIS]
    return next((f"{os.path.relpath(ini, here)!r} lies on the way to {text!r}" for ini in inis if ini.is_file()), "")


def _refuse_update(config: pytest.Config, update: str, typed: list[str]) -> None:
    """A baseline is what a spec measures on its reference, in one process, on purpose."""
    if update == "none":
        return
    option = f"--circuits-update={update}"
    if typed:
        raise UsageProblem(
            f"{option} cannot be combined with --circuits-checkpoint: a baseline is measured on the reference.\n"
            "  Name it with --circuits-reference, or leave it to each spec's model.checkpoint."
        )
    if getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None):
        raise UsageProblem(f"{option} cannot be combined with xdist: a baseline is written once, by one process.")
    if os.environ.get("CI") and not _switch(config, "circuits_update_in_ci"):
        raise UsageProblem(
            f"{option} is refused in CI: a gate that writes its own baseline passes whatever happens.\n"
            "  Write it on a desk and commit it, or set circuits_update_in_ci = true."
        )
    if update == "all" and not config.getoption("--circuits-update-reason"):
        raise UsageProblem(f'{option} moves what the gate compares with: say why, --circuits-update-reason "...".')


def _writable(path: Path) -> Path:
    """Return the path of the result file, after a look at whether it can be written at the end."""
    folder = path.parent
    if collect.is_ours(str(path)):
        raise UsageProblem(
            f"--circuits-json: {str(path)!r} is the name of a spec or of a stored baseline.\n"
            "  The result file would take its place. Give it another name."
        )
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageProblem(f"--circuits-json: {str(path)!r} cannot be written: no such folder, or no permission.")
    return path


def _forget_earlier_result(path: Path) -> None:
    """Remove the result file of an earlier run: a run that dies must not leave a green one behind."""
    if not path.is_file():
        return
    try:
        if not _is_result(path.read_bytes()):
            raise UsageProblem(
                f"--circuits-json: expected no file or the result of an earlier run, found {str(path)!r}, which is "
                "neither.\n  It would be overwritten. Name another file, or delete this one."
            )
        path.unlink()
    except OSError as error:
        raise UsageProblem(f"--circuits-json: {str(path)!r} cannot be replaced: {error.strerror}.") from None


def _is_result(content: bytes) -> bool:
    """Say whether a file is what an earlier run wrote, or empty."""
    if not content:
        return True
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= {"format", "collected", "records"}

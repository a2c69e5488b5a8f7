"""What an item does, and what the end of a run tells: here pytest's side meets what measures."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from .. import collect
from ..errors import BaselineRefused, CircuitsError, MismatchError, MissingExtra, plain
from ..records import Result, Verdict
from ..report.json import result_as_dict, result_document, result_from_dict
from ..report.terminal import Line, budget_line, failure_text, summary_table
from .progress import watching
from .session import INSTALL, checkpoint_of, missing_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..baselines.cache import Cache
    from ..checkpoints.naming import Checkpoint
    from ..checks.suite import Suite
    from ..spec.loader import SpecFile
    from .options import Options
    from .session import Session

VERSIONED = ("pytest-circuits", "torch", "transformers", "numpy", "scipy")


@dataclass(frozen=True)
class Told:
    """What an item tells the end of the run: it travels on the item's report as plain JSON."""

    result: Result
    sha256: str
    source: str
    fingerprint: str | None
    reference: str | None
    identical: bool
    false_alarm: float
    environment: Mapping[str, str]
    notices: tuple[str, ...]
    cached: Mapping[str, bool]
    unverified: str | None


def suite_of(config: pytest.Config, session: Session) -> Suite:
    """Return what this process measures with, made when it is first needed.

    Raises:
        MissingExtra: the packages that measure are not installed.
    """
    if session.suite is None:
        if missing := missing_extra():
            raise MissingExtra(
                f"measuring needs {', '.join(missing)}, which is not installed; the core works on files only.\n"
                f"  Install it: {INSTALL}"
            )
        from ..checks.suite import Suite

        options = session.options
        session.suite = Suite(
            root=config.rootpath,
            reference=options.reference,
            device=options.device,
            dtype=options.dtype,
            batch_size=options.batch_size,
            cache=_cache(options),
        )
        session.suite.environment = environment(session.suite.device_name, options.dtype)
    return session.suite


def _cache(options: Options) -> Cache | None:
    """Return where measured numbers are kept; None for a run that neither reads nor keeps any."""
    if not options.cache:
        return None
    from ..baselines.cache import Cache, default_folder

    return Cache(options.cache_dir or default_folder())


def environment(device: str, dtype: str) -> dict[str, str]:
    """Return what numbers may depend on: versions, device and dtype. In float32 it decides nothing."""
    packages = {name: version(name) for name in VERSIONED}
    return {"python": platform.python_version(), **packages, "device": device, "dtype": dtype}


def measure_and_judge(
    config: pytest.Config, session: Session, file: SpecFile, check: str, checkpoint: Checkpoint, model: Any
) -> Told:
    """Measure what a check needs on its checkpoint, and judge it: for an update, as what is to be the reference.

    Raises:
        CircuitsError: it could not be measured or judged.
    """
    suite = suite_of(config, session)
    if session.lent:  # what a hand-written test did to its weights is neither judged nor cached
        suite.let_go()
        session.lent = False
    expected = suite.model(checkpoint)
    if getattr(model, "fingerprint", None) != expected.fingerprint:
        raise MismatchError(
            f"circuit_model is {model!r}, and this item is about {expected!r}.\n"
            "  A fixture that overrides circuit_model must depend on circuit_checkpoint and open that one."
        )
    updating = session.options.update == "all" or (session.options.update == "new" and not suite.has_baseline(file))
    try:
        with watching(config, suite, file.circuit):
            result = (suite.judge_reference if updating else suite.judge)(file, check, expected)
    except MismatchError as mismatch:
        fitting = sorted(name for name, other in session.specs.items() if suite.fits(other, expected))
        raise MismatchError(f"{mismatch}\n  Collected specs that fit it: {', '.join(fitting) or 'none'}.") from None
    if updating:
        session.measured.setdefault(file.circuit, {})[check] = result
    return told(session, file, result, checkpoint, expected.fingerprint)


def prepare_when_complete(session: Session, file: SpecFile, checkpoint: Checkpoint) -> None:
    """Prepare a spec's baseline once every check that it declares is measured.

    Raises:
        BaselineRefused: a check is red, or the baseline could not serve.
    """
    measured = session.measured[file.circuit]
    if session.suite is None or file.circuit in session.prepared or measured.keys() != set(file.spec.declared):
        return
    red = [result for result in measured.values() if session.is_red(result.verdict)]
    model = session.suite.model(checkpoint)
    session.prepared[file.circuit] = session.suite.prepare(file, model, red, reason=session.options.reason)


def write_prepared(session: Session) -> None:
    """Write the baselines of the specs whose items all ended well, and note what to tell."""
    for circuit, prepared in session.prepared.items():
        if session.suite is None or session.unfinished(circuit):
            continue
        try:
            session.updated += session.suite.store(prepared)
        except BaselineRefused as problem:
            session.unwritten.append(f"{circuit}: {problem}")


def told(session: Session, file: SpecFile, result: Result, checkpoint: Checkpoint, fingerprint: str | None) -> Told:
    """Return what an item tells the end of the run."""
    suite = session.suite
    reference, identical = suite.compared_with(file, fingerprint) if suite else (None, False)
    return Told(
        result=result,
        sha256=file.sha256,
        source=checkpoint.source,
        fingerprint=fingerprint,
        reference=reference,
        identical=identical,
        false_alarm=file.spec.rates.false_alarm,
        environment=suite.environment if suite else {},
        notices=suite.notices(file) if suite else (),
        cached=suite.cached(file) if suite else {},
        unverified=file.unverified,
    )


def failed(
    item: pytest.Item, session: Session, file: SpecFile, told_before: Told | None, error: BaseException
) -> tuple[Told, str]:
    """Return what a failed item tells, and its text: the check's result, else an error with the reason."""
    check, checkpoint = collect.check_of(item), checkpoint_of(item)
    one = told_before
    if one is None or not session.is_red(one.result.verdict) or not isinstance(error, pytest.fail.Exception):
        message = str(error) if isinstance(error, CircuitsError) else f"{type(error).__name__}: {error}"
        fingerprint = one.fingerprint if one else None
        one = told(session, file, error_result(file, check, checkpoint.name, message), checkpoint, fingerprint)
    text = failure_text(
        one.result,
        path=file.circuit + collect.SUFFIX,
        node_id=f"{os.path.relpath(item.path, item.config.invocation_params.dir)}::{item.name}",
        arguments=reproduce_arguments(item.config, session, checkpoint),
    )
    return one, text


def error_result(file: SpecFile, check: str, checkpoint: str, message: str) -> Result:
    """Return the result of a check that could not be measured: red, and with its reason."""
    first, *rest = message.splitlines() or ["no reason was given"]
    return Result(
        circuit=file.circuit,
        checkpoint=checkpoint,
        check=check,
        verdict=Verdict.ERROR,
        records=(),
        headline=f"{check}: {first}",
        details=tuple(line.strip() for line in rest),
        warnings=(),
        heads={},
        line=file.line("claims", check),
    )


def as_plain(told: Told) -> dict[str, Any]:
    """Return what an item tells as exact builtins: it travels on a pytest report, through xdist too."""
    return {
        **told.__dict__,
        "result": result_as_dict(told.result),
        "environment": dict(told.environment),
        "notices": list(told.notices),
    }


def from_plain(plain: dict[str, Any]) -> Told:
    """Return what `as_plain` made plain."""
    return Told(**{**plain, "result": result_from_dict(plain["result"]), "notices": tuple(plain["notices"])})


def reproduce_arguments(config: pytest.Config, session: Session, checkpoint: Checkpoint) -> list[str]:
    """Return the options of this run that decide what an item measures, as they were typed."""
    arguments = []
    if session.options.checkpoints:
        named = f"{checkpoint.name}={checkpoint.source}"
        arguments += ["--circuits-checkpoint", session.options.typed.get(checkpoint, named)]
    for name in ("reference", "device", "dtype"):
        value = config.getoption(f"--circuits-{name}")
        if value:
            arguments += [f"--circuits-{name}", value]
    return arguments


def document(session: Session, *, interrupted: bool) -> dict[str, Any]:
    """Return the result file of a run."""
    everything = list(session.told.values())
    return result_document(
        complete=not interrupted and not session.missing and not session.broken,
        collected=session.collected,
        results=[one.result for one in everything],
        specs={one.result.circuit: one.sha256 for one in everything},
        checkpoints=_identities(everything),
        environment=next((one.environment for one in everything if one.environment), {}),
        unverified=_unverified(everything),
    )


def _unverified(everything: Sequence[Told]) -> dict[str, str]:
    """Return why circuits were not verified, those whose specs say so."""
    return {one.result.circuit: one.unverified for one in everything if one.unverified is not None}


def _identities(everything: Sequence[Told]) -> dict[str, dict[str, str | None]]:
    """Return the source and the fingerprint of each checkpoint, also where some of its items did not learn it."""
    found: dict[str, dict[str, str | None]] = {}
    for one in everything:
        known = found.setdefault(one.result.checkpoint, {"source": one.source, "fingerprint": None})
        known["fingerprint"] = known["fingerprint"] or one.fingerprint
    return found


def summary(session: Session) -> list[Line]:
    """Return one table a checkpoint, then what a reader of the run should know, in lines that command nothing."""
    everything = list(session.told.values())
    lines: list[Line] = []
    for name in dict.fromkeys(one.result.checkpoint for one in everything):
        lines += [*_table_of(name, everything), Line("")]
    while len(lines) > 1 and lines[-2].text == "":
        lines.pop()
    if everything:
        rates = {one.result.circuit: one.false_alarm for one in everything}
        lines.append(budget_line(rates, checkpoints=len({one.result.checkpoint for one in everything})))
    lines += [Line(f"{circuit}: not verified: {reason}") for circuit, reason in _unverified(everything).items()]
    lines += [Line(notice) for notice in dict.fromkeys(n for one in everything for n in one.notices)]
    lines += _cached(everything)
    lines += [Line(text) for text in session.updated]
    lines += [Line(line, Verdict.ERROR) for text in why_red(session) for line in text.split("\n")]
    return [Line(plain(line.text, limit=None), line.verdict) for line in lines]


def _cached(everything: Sequence[Told]) -> list[Line]:
    """Return a line about the parts that were not measured; what any process measured counts as measured."""
    measured = {part for one in everything for part, was in one.cached.items() if not was}
    read = {part for one in everything for part in one.cached} - measured
    if not read:
        return []
    told = f"cache: {len(read)} of {len(read | measured)} parts were measured by an earlier run"
    return [Line(f"{told}; --circuits-no-cache measures them afresh")]


def why_red(session: Session) -> list[str]:
    """Return what turns a run red that no failing test shows."""
    return [
        *session.unwritten,
        *not_written(session),
        *_counted("could not be collected, or died", session.broken),
        *_counted("were collected and told no result", session.missing),
        *_counted("have a red verdict, whatever mark their test has", session.excused),
    ]


def _table_of(name: str, everything: Sequence[Told]) -> list[Line]:
    told = [one for one in everything if one.result.checkpoint == name]
    references = sorted({one.reference for one in told if one.reference})
    return summary_table(
        [one.result for one in told],
        checkpoint=name,
        source=told[0].source,
        reference=", ".join(references) or None,
        identical=sorted({one.result.circuit for one in told if one.identical}),
    )


def not_written(session: Session) -> list[str]:
    """Return the specs whose baseline was to be written and was not, because not all of their items ended well."""
    return [
        f"{circuit}: no baseline was written: {', '.join(absent)} did not finish in this run, failed or was skipped; "
        "a baseline is written from all of a spec's checks at once"
        for circuit in session.measured
        if (absent := session.unfinished(circuit))
    ]


def _counted(what: str, items: Sequence[str]) -> list[str]:
    """Return a line for items that share a reason, with the first of them."""
    if not items:
        return []
    shown = ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
    return [f"{len(items)} circuit items {what}, so this run is not green: {shown}"]

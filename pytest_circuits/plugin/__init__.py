"""The pytest hooks and fixtures, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .. import collect
from ..errors import CircuitsError, MismatchError, UsageProblem
from .options import add_options, read_options
from .session import Session, by_checkpoint, checkpoint_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ..checkpoints.handle import CheckpointModel
    from ..checkpoints.naming import Checkpoint
    from ..records import Verdict
    from ..spec.loader import SpecFile
    from .run import Told

SESSION = pytest.StashKey[Session]()
TOLD: pytest.StashKey[Told] = pytest.StashKey()
ATTRIBUTE = "circuits"  # of a report: what the item told, as plain JSON


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options; what cannot be done is a usage error before anything runs."""
    config.addinivalue_line(
        "markers",
        "circuit(spec): every item of a circuit spec carries it; on a hand-written test it names the spec, a path from "
        "rootdir, that the fixtures circuit, circuit_checkpoint and circuit_model are about.",
    )
    try:
        config.stash[SESSION] = Session(read_options(config))
    except UsageProblem as problem:
        raise pytest.UsageError(str(problem)) from None
    config.stash[collect.BODY] = _run_item
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Accountant(config), "circuits-accountant")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect `*.circuit.yaml`, and baselines that have lost their spec."""
    return collect.collector_for(file_path, parent)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give an item its checkpoints: the options', else its spec's own."""
    if "circuit_checkpoint" not in metafunc.fixturenames:
        return
    session = metafunc.config.stash[SESSION]
    file = collect.spec_behind(metafunc.definition)
    checkpoints = session.checkpoints_for(file, root=metafunc.config.rootpath)
    if checkpoints:
        names = [checkpoint.name for checkpoint in checkpoints]
        metafunc.parametrize("circuit_checkpoint", list(checkpoints), ids=names, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the specs, and bring our items into the order of their checkpoints."""
    session = config.stash[SESSION]
    places = []
    for index, item in enumerate(items):
        if (file := collect.spec_of(item)) is not None:
            session.specs[file.circuit] = file
            item.user_properties.append(("line", collect.line_of(item)))
            places.append((index, checkpoint_of(item)))
    try:
        by_checkpoint(items, places)
    except UsageProblem as problem:
        if not hasattr(config, "workerinput"):
            raise pytest.UsageError(str(problem)) from None
        session.clash = str(problem)  # a usage error of a worker would be an internal error of xdist


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which of our items are to run, so that one that does not is missed at the end."""
    if session.config.option.collectonly:
        return
    ours = session.config.stash[SESSION]
    for item in filter(collect.is_our_item, session.items):
        ours.collected.append(item.nodeid)
        if (file := collect.spec_of(item)) is not None:
            ours.items[item.nodeid] = file.circuit, collect.check_of(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse an item of a worker in which two checkpoints share a name, and note where a model is lent."""
    session = item.config.stash[SESSION]
    if session.clash and collect.spec_of(item) is not None:
        raise UsageProblem(session.clash)
    if not collect.is_our_item(item) and "circuit_model" in getattr(item, "fixturenames", ()):
        session.lent = True


@pytest.fixture(scope="session")
def circuit_checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """The checkpoint under test, its name and source: from --circuits-checkpoint or the spec."""
    if not hasattr(request, "param"):
        raise pytest.UsageError(
            'no checkpoint to test: mark the test with @pytest.mark.circuit("path/to.circuit.yaml"), '
            "or give --circuits-checkpoint."
        )
    checkpoint: Checkpoint = request.param
    return checkpoint


@pytest.fixture(scope="session")
def circuit_model(circuit_checkpoint: Checkpoint, pytestconfig: pytest.Config) -> CheckpointModel:
    """A handle of the checkpoint under test: identified now, loaded on the first measurement."""
    from .run import suite_of

    return suite_of(pytestconfig, pytestconfig.stash[SESSION]).model(circuit_checkpoint)


@pytest.fixture
def circuit(request: pytest.FixtureRequest) -> SpecFile:
    """The spec that the test's mark `circuit` names."""
    file = collect.spec_behind(request.node)
    if file is None:
        raise pytest.UsageError('the fixture circuit needs @pytest.mark.circuit("path/to.circuit.yaml") on its test.')
    return file


def _run_item(request: pytest.FixtureRequest, file: SpecFile, check: str, checkpoint: Any, model: Any) -> None:
    """The body of every item of a spec."""
    __tracebackhide__ = True
    from .run import measure_and_judge

    session = request.config.stash[SESSION]
    if checkpoint != checkpoint_of(request.node):
        raise MismatchError(
            f"circuit_checkpoint is {checkpoint!r}, and this item is about {checkpoint_of(request.node)!r}.\n"
            "  A fixture that overrides circuit_checkpoint must return request.param as it is."
        )
    told = measure_and_judge(request.config, session, file, check, checkpoint, model)
    request.node.stash[TOLD] = told
    if session.is_red(told.result.verdict):
        pytest.fail(told.result.headline, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Prepare a baseline that has become due: what refuses it is an error of the last item."""
    yield
    file, session = collect.spec_of(item), item.config.stash[SESSION]
    if file is not None and file.circuit in session.measured:
        from .run import prepare_when_complete

        prepare_when_complete(session, file, checkpoint_of(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what an item came to on its report, in words instead of a traceback."""
    report = yield
    file = collect.spec_of(item)
    if report.when == "setup" and TOLD in item.stash:
        del item.stash[TOLD]  # of an earlier attempt, where another plugin runs the item again
    if file is None or (report.when != "call" and not report.failed):
        return report
    from .run import as_plain, failed

    told = item.stash.get(TOLD, None)
    if report.failed and call.excinfo is not None:
        told, text = failed(item, item.config.stash[SESSION], file, told, call.excinfo.value)
        if isinstance(call.excinfo.value, CircuitsError | pytest.fail.Exception):
            report.longrepr = text
    if told is not None:
        setattr(report, ATTRIBUTE, as_plain(told))
    return report


class Accountant:
    """Counts what was told against what was collected, and tells the end of the run. Lives on the controller."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.session = config.stash[SESSION]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what an item told off its report, whichever process it ran in."""
        if report.when == "setup":
            self.session.told.pop(report.nodeid, None)  # of an earlier attempt
        if report.failed or report.skipped:
            self.session.stopped.add(report.nodeid)
        plain = getattr(report, ATTRIBUTE, None)
        if plain is not None:
            from .run import from_plain

            told = self.session.told[report.nodeid] = from_plain(plain)
            if not report.failed and self.session.is_red(told.result.verdict):
                self.session.excused.append(report.nodeid)
        elif report.failed and collect.is_ours(report.nodeid):
            self.session.broken.append(report.nodeid)  # an orphan, or an item whose process died

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a spec that did not load: its checks are not among the collected ones."""
        if report.failed and collect.is_ours(report.nodeid):
            self.session.broken.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Under xdist the workers collect: remember what is to run."""
        self.session.collected = [node_id for node_id in ids if collect.is_ours(node_id)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        """Write the baselines and the result file, and turn a run red in which something did not run."""
        if self.config.option.collectonly or not (self.session.collected or self.session.options.json):
            return
        from .run import document, why_red, write_prepared

        write_prepared(self.session)
        if self.session.options.json is not None:
            from ..report.json import write_json

            ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
            try:
                write_json(self.session.options.json, document(self.session, interrupted=not ended))
            except UsageProblem as problem:
                self.session.unwritten.append(str(problem))
        if exitstatus == pytest.ExitCode.OK and why_red(self.session):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print one table a checkpoint."""
        if not self.session.collected or self.config.option.collectonly:
            return
        from .run import summary

        terminalreporter.write_sep("=", "circuits")
        for line in summary(self.session):
            terminalreporter.write_line(line.text, **_colour(line.verdict))


def _colour(verdict: Verdict | None) -> dict[str, bool]:
    if verdict is None:
        return {}
    return {{"pass": "green", "inconclusive": "yellow"}.get(verdict, "red"): True}

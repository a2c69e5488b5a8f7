"""What a person sees while an item measures: a live line on a terminal, a line now and then in a log, else nothing."""

from __future__ import annotations

import itertools
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
from screen import Screen, run_in_terminal

from pytest_circuits.checkpoints.naming import parse_checkpoint
from pytest_circuits.checks.suite import Suite
from pytest_circuits.plugin import progress
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = """\
format: 1
about: The subject's number reaches the verb.
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, key, car], plural: [dogs, authors, keys, cars]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind, beside]
  templates:
    - {id: plain, text: "the {subject} {near} the table", answer: "{verb}", flip: subject}
circuit:
  number_mover: {heads: [L2H0], role: {name: number_mover}}
claims:
  behaviour:
  faithfulness: {at_least: 0.7}
  heads:
"""
SLOW = """\
import itertools, os, time
from types import SimpleNamespace
from pytest_circuits.checks.suite import Suite
from pytest_circuits.errors import MeasurementError
from pytest_circuits.plugin import SESSION, progress
from pytest_circuits.records import Result, Verdict

if "SECONDS_A_LOOK" in os.environ:
    progress.monotonic = itertools.count(0, int(os.environ["SECONDS_A_LOOK"])).__next__

class Slow(Suite):
    def model(self, checkpoint):
        return SimpleNamespace(fingerprint="f")

    def judge(self, file, check, model):
        forwards = 8 if check == "faithfulness" else 0
        for done in range(1, forwards + 1):
            time.sleep(float(os.environ.get("PAUSE", "0")))
            print("printed by what measures")
            if self.watch is not None:
                self.watch(os.environ.get("WHAT", "tiny: one head out"), done, forwards)
        if "BROKEN" in os.environ and check == "faithfulness":
            raise MeasurementError("a broken measurement.")
        return Result(file.circuit, "tiny", check, Verdict.PASS, (), check, (), (), {}, 1)

def pytest_runtest_teardown(item):
    assert item.config.stash[SESSION].suite.watch is None

def pytest_collection_finish(session):
    session.config.stash[SESSION].suite = Slow(root=session.config.rootpath)
"""
LINE = "circuits: specs/verbs on tiny: one head out, "
IN_TERMINAL = pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with one spec of three checks; the second runs eight forwards, and a look at the clock takes 11 s."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "COLUMNS", "LINES", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress, "monotonic", itertools.count(0, 11).__next__)
    (pytester.mkdir("specs") / "verbs.circuit.yaml").write_text(SPEC)
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(SLOW)
    return pytester


def lines_about(text: str) -> list[str]:
    return [line for line in text.splitlines() if "one head out" in line]


def test_each_part_is_told_with_the_checkpoint_that_runs_it_as_long_as_somebody_watches(
    project: pytest.Pytester,
) -> None:
    suite = Suite(root=project.path, reference=parse_checkpoint("base=builtin:tiny-tuned", folder=project.path))
    file = load_spec(project.path / "specs/verbs.circuit.yaml", root=project.path)
    model = suite.model(parse_checkpoint("builtin:tiny", folder=project.path))
    told: list[tuple[str, int, int]] = []
    suite.watch = lambda *how_far: told.append(how_far)
    suite.judge(file, "heads", model)
    heard, suite.watch = len(told), None
    suite.judge(file, "faithfulness", model)

    last = {what: (done, total) for what, done, total in told}
    assert {"tiny: one head out", "base: one head out"} <= last.keys()
    assert all(done == total for done, total in last.values())
    assert len(told) == heard


# -- in a log ----------------------------------------------------------------------------------------------------------


def test_a_log_has_a_plain_line_each_thirty_seconds_and_pytest_goes_on_below(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess()

    result.assert_outcomes(passed=3)
    assert lines_about(result.stdout.str()) == [f"{LINE}3/8, 0:55 left", f"{LINE}6/8, 0:22 left"]
    start = result.outlines.index("specs/verbs.circuit.yaml .")
    assert "one head out" in result.outlines[start + 1]
    assert "one head out" in result.outlines[start + 2]
    assert re.fullmatch(r"\.\. +\[100%\]", result.outlines[start + 3])


def test_a_log_of_node_ids_stays_readable(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("-v")

    result.stdout.fnmatch_lines(
        [
            "specs/verbs.circuit.yaml::behaviour?tiny? PASSED *33%]",
            "specs/verbs.circuit.yaml::faithfulness?tiny? ",
            f"{LINE}3/8, 0:55 left",
            f"{LINE}6/8, 0:22 left",
            "PASSED *66%]",
            "specs/verbs.circuit.yaml::heads?tiny? PASSED *100%]",
        ],
        consecutive=True,
    )


def test_a_log_has_no_code_of_ours_even_where_colours_are_forced(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--color=yes")

    assert lines_about(result.stdout.str()) == [f"{LINE}3/8, 0:55 left", f"{LINE}6/8, 0:22 left"]
    assert not re.search(r"\x1b(?!\[[0-9;]*m)", result.stdout.str())


@pytest.mark.parametrize("arguments", [["-s"], ["--capture=tee-sys"], ["-p", "no:capture"], ["--capture=sys"]])
def test_a_log_has_its_lines_whatever_is_captured(project: pytest.Pytester, arguments: list[str]) -> None:
    assert len(lines_about(project.runpytest_inprocess(*arguments).stdout.str())) == 2


def test_work_that_is_short_is_not_told(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "monotonic", itertools.count(0, 3).__next__)

    assert lines_about(project.runpytest_inprocess().stdout.str()) == []


@pytest.mark.parametrize("arguments", [["-q"], ["-qq"], ["--collect-only"], ["-p", "no:terminal"]])
def test_nothing_is_told_when_quiet_or_collecting_or_without_a_reporter(
    project: pytest.Pytester, arguments: list[str]
) -> None:
    result = project.runpytest_inprocess(*arguments)

    assert result.ret == pytest.ExitCode.OK
    assert lines_about(result.stdout.str() + result.stderr.str()) == []


def test_nothing_is_told_by_workers(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS_A_LOOK", "11")
    result = project.runpytest_subprocess("-n", "2")

    result.assert_outcomes(passed=3)
    assert lines_about(result.stdout.str() + result.stderr.str()) == []


def test_foreign_text_commands_no_build_server(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHAT", "tiny\r\n::error::one head out\x1b[2J ##[group]")
    result = project.runpytest_inprocess()

    assert lines_about(result.stdout.str())[0] == (
        r"circuits: specs/verbs on tiny\r\n::error::one head out\x1b[2J # #[group], 3/8, 0:55 left"
    )
    assert not [line for line in result.outlines if line.lstrip().startswith("::")]


# -- on a terminal -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_terminal(project: pytest.Pytester) -> Callable[..., str]:
    """Run the project's tests on a terminal, and return what was written to it."""

    def run(*arguments: str, columns: int = 80, rows: int = 8, **environment: str) -> str:
        return run_in_terminal(
            [sys.executable, "-m", "pytest", "-p", "pytest_circuits.plugin", *arguments],
            columns=columns,
            rows=rows,
            environment={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TERM": "xterm", **environment},
            cwd=project.path,
        )

    return run


def seen(output: str, columns: int, rows: int) -> str:
    """What stands on the screen and above it when all is written, without the times."""
    screen = Screen(columns, rows)
    screen.feed(output)
    return re.sub(r"=* *(\d.*) in \d.*", r"\1", screen.text)


@IN_TERMINAL
@pytest.mark.parametrize(
    ("arguments", "columns", "rows", "pace", "before"),
    [
        ([], 80, 24, {"PAUSE": "0.25"}, "specs/verbs.circuit.yaml ."),
        (["--capture=sys"], 80, 7, {"SECONDS_A_LOOK": "1"}, "specs/verbs.circuit.yaml ."),
        (["-v"], 80, 24, {"SECONDS_A_LOOK": "1"}, "specs/verbs.circuit.yaml::faithfulness[tiny]"),
        (["-v"], 41, 7, {"SECONDS_A_LOOK": "1"}, "ny]"),
    ],
    ids=["dots", "dots at the bottom", "node ids", "node ids that wrap at the bottom"],
)
def test_a_live_line_stands_below_what_pytest_wrote_and_leaves_no_trace(
    in_terminal: Callable[..., str],
    arguments: list[str],
    columns: int,
    rows: int,
    pace: dict[str, str],
    before: str,
) -> None:
    output = in_terminal(*arguments, columns=columns, rows=rows, **pace)
    *drawn, _ = output.split(progress.BACK)
    screen = Screen(columns, rows)
    for part in drawn:
        screen.feed(part + progress.BACK)
        assert screen.line() == before
        assert re.search(r"^circuits: .* on .*, \d/8(, 0:0\d left)?$", screen.line(below=1))
        assert len(screen.line(below=1)) < columns

    assert 3 <= len(drawn) <= 8
    assert seen(output, columns, rows) == seen(in_terminal(*arguments, columns=columns, TERM="dumb"), columns, rows)


@IN_TERMINAL
def test_the_live_line_goes_when_measuring_fails(in_terminal: Callable[..., str]) -> None:
    output = in_terminal(SECONDS_A_LOOK="1", BROKEN="1")

    assert "one head out" in output
    assert seen(output, 80, 8) == seen(in_terminal(BROKEN="1"), 80, 8)


@IN_TERMINAL
def test_a_terminal_that_cannot_write_a_letter_gets_its_code_and_the_line_keeps_its_room(
    in_terminal: Callable[..., str],
) -> None:
    output = in_terminal(SECONDS_A_LOOK="1", WHAT="模型" * 10 + ": one head out", PYTHONIOENCODING="ascii")
    screen = Screen(80, 8)
    screen.feed(output.partition(progress.BACK)[0] + progress.BACK)

    assert screen.line() == "specs/verbs.circuit.yaml ."
    assert screen.line(below=1).endswith(r"\u6a21\u578b: one head out, 1/8")
    assert len(screen.line(below=1)) == 79


@IN_TERMINAL
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [([], {"TERM": "dumb"}), ([], {"CI": "true"}), (["-s"], {})],
    ids=["a terminal that obeys nothing", "a build server's", "shared with what is printed"],
)
def test_a_terminal_that_is_not_ours_alone_is_written_to_as_a_log(
    in_terminal: Callable[..., str], arguments: list[str], environment: dict[str, str]
) -> None:
    output = in_terminal(*arguments, "--color=no", SECONDS_A_LOOK="11", **environment)

    assert lines_about(output) == [f"{LINE}3/8, 0:55 left", f"{LINE}6/8, 0:22 left"]
    assert progress.BACK not in output


@IN_TERMINAL
def test_without_colours_the_line_still_moves(in_terminal: Callable[..., str]) -> None:
    output = in_terminal(SECONDS_A_LOOK="1", NO_COLOR="1")

    assert output.count(progress.BACK) == 8
    assert not re.search(r"\x1b\[[0-9;]*m", output)

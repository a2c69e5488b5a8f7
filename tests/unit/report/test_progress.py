"""Progress as text: when it is shown, how long the rest takes, and what a line holds."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pytest_circuits.report.progress import LIVE, LOG, Pace, Progress, columns, duration

ALWAYS = Pace(after=0, every=0)
WIDTHS = range(16, 130)


class Clock:
    """A time that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def progress(clock: Clock, circuit: str = "specs/verbs", pace: Pace = ALWAYS) -> Progress:
    return Progress(circuit, pace, clock)


def shown(clock: Clock, pace: Pace, *, seconds: float, every: float) -> list[float]:
    """The times at which work is shown that is heard of this often."""
    clock.now = 1000
    watched, found = progress(clock, pace=pace), []
    for step in range(1, round(seconds / every) + 1):
        clock.now = 1000 + step * every
        if watched.heard("one head out", step, 10**6):
            found.append(round(clock.now - 1000, 3))
    return found


def test_a_live_line_waits_a_second_and_is_drawn_ten_times_a_second_at_most(clock: Clock) -> None:
    found = shown(clock, LIVE, seconds=3, every=0.01)

    assert found[0] == 1.0
    assert len(found) <= 21
    assert min(late - early for early, late in pairwise(found)) >= 0.099


def test_a_live_line_is_drawn_at_each_call_where_calls_are_rare(clock: Clock) -> None:
    assert shown(clock, LIVE, seconds=8, every=2) == [2, 4, 6, 8]


def test_a_log_hears_of_work_that_takes_thirty_seconds_and_every_thirty_seconds_then(clock: Clock) -> None:
    assert shown(clock, LOG, seconds=29.9, every=0.1) == []
    assert shown(clock, LOG, seconds=100, every=1) == [30, 60, 90]
    assert shown(clock, LOG, seconds=200, every=40) == [40, 80, 120, 160, 200]


def test_parts_share_the_time_between_two_lines(clock: Clock) -> None:
    watched = progress(clock, pace=LOG)
    due = []
    for second in range(1, 62):
        clock.now = 1000 + second
        due.append(watched.heard(f"part {second}", 1, 2))

    assert due.count(True) == 2


@pytest.mark.parametrize("first", [[0], [], [0, 0]], ids=["told at its start", "not told", "told twice"])
def test_the_first_forward_is_slow_and_does_not_count(clock: Clock, first: list[int]) -> None:
    watched = progress(clock)
    for done in first:
        watched.heard("one head out", done, 101)
    clock.now += 500
    watched.heard("one head out", 1, 101)
    first_line = watched.line(200)
    for done in range(2, 12):
        clock.now += 2
        watched.heard("one head out", done, 101)

    assert first_line == "circuits: specs/verbs on one head out, 1/101"
    assert watched.line(200) == "circuits: specs/verbs on one head out, 11/101, 3:00 left"


def test_another_part_and_the_same_part_again_are_timed_anew(clock: Clock) -> None:
    watched = progress(clock)
    for what, step, total in [("circuit", 60, 4), ("one head out", 1, 31), ("one head out", 2, 31)]:
        for done in range(1, 4):
            clock.now += step
            watched.heard(what, done, total)
        assert watched.line(200).endswith(f", {duration(step * (total - 3))} left")


def test_a_part_of_one_forward_times_no_other(clock: Clock) -> None:
    watched = progress(clock)
    watched.heard("floor", 1, 1)
    for done, step in [(1, 500), (2, 2)]:
        clock.now += step
        watched.heard("one head out", done, 32)

    assert watched.line(200).endswith(", 2/32, 1:00 left")


def test_a_part_that_has_ended_has_nothing_left(clock: Clock) -> None:
    watched = progress(clock)
    for done in (1, 2):
        clock.now += 5
        watched.heard("floor", done, 2)

    assert watched.line(200) == "circuits: specs/verbs on floor, 2/2"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (0.2, "0:01"), (59.9, "1:00"), (200, "3:20"), (3599.5, "1:00:00"), (93784, "26:03:04")],
)
def test_a_duration_is_read_as_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


NAMES = [
    ("specs/verbs", "tiny: one head out"),
    ("specs/a/very/deep/folder/of/" + "specs/" * 30 + "verbs", "tiny: one head out"),
    ("verbs", "step-1000-of-" + "a-very-long-run-" * 10 + "7: one head out"),
    ("specs/" * 30 + "verbs", "run-" * 40 + "7: one head out"),
    ("规格/" * 40 + "动词", "模型" * 40 + ": one head out"),
]


@pytest.mark.parametrize(("circuit", "what"), NAMES, ids=["short", "circuit", "checkpoint", "both", "wide"])
def test_a_line_keeps_to_its_room_and_its_numbers_stay(clock: Clock, circuit: str, what: str) -> None:
    watched = progress(clock, circuit)
    for done in (119, 120):
        clock.now += 10
        watched.heard(what, done, 768)

    for room in WIDTHS:
        line = watched.line(room)
        assert columns(line) <= room
        assert line.endswith(", 1:48:00 left"[3 - room :])
        assert room < 79 or line.endswith(": one head out, 120/768, 1:48:00 left")


def test_a_wide_letter_takes_two_columns(clock: Clock) -> None:
    watched = progress(clock)
    watched.heard("模型" * 10 + ": one head out", 1, 8)

    assert columns("规格/verbs") == 10
    assert watched.line(79) == f"circuits: specs/verbs on ...{'模型' * 8}: one head out, 1/8"


def test_names_lose_their_beginning_and_only_as_far_as_they_must(clock: Clock) -> None:
    watched = progress(clock, "specs/published/verb-agreement")
    watched.heard("step-1000: one head out", 1, 8)

    assert watched.line(79) == "circuits: specs/published/verb-agreement on step-1000: one head out, 1/8"
    assert watched.line(60) == "circuits: .../verb-agreement on step-1000: one head out, 1/8"
    assert watched.line(50) == "circuits: ...erb-agreement on ...one head out, 1/8"


@pytest.mark.parametrize("foreign", ["\n::error::x", " ::error::x", "::error::x", "a\r::error::x", "##[group]x"])
def test_foreign_text_commands_neither_a_terminal_nor_a_build_server(clock: Clock, foreign: str) -> None:
    watched = progress(clock, f"{foreign}\x1b[2J")
    watched.heard(f"{foreign}\x1b]0;title\x07", 1, 8)

    for room in WIDTHS:
        line = watched.line(room)
        assert line.isprintable()
        assert not line.lstrip().startswith("::")
        assert "##[" not in line

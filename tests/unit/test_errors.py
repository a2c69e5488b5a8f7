"""Foreign text commands neither a terminal nor a build server."""

from __future__ import annotations

import re
import textwrap
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_circuits.errors import SpecError, plain

HOSTILE = st.text(st.one_of(st.sampled_from(":# \t\n\r\x1b[]vso\x85\u2028\u202e"), st.characters()), max_size=60)


def github_reads_a_command(line: str) -> bool:
    """What the runner looks for: `::` after any indentation, or `##[` anywhere in the line."""
    return line.lstrip().startswith("::") or "##[" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("verb-agreement", "verb-agreement"),
        ("", ""),
        ("  indented", "  indented"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("\x1b]8;;http://x\x07link", r"\x1b]8;;http://x\x07link"),
        ("a\nb\r\nc\td\x0be\x0cf", r"a\nb\r\nc\td\x0be\x0cf"),
        ("a\x85b\u2028c\u2029d", r"a\x85b\u2028c\u2029d"),
        ("\x00\x07\x08\x7f", r"\x00\x07\x08\x7f"),
        ("abc\u202edef\u2066", r"abc\u202edef\u2066"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("no\u00a0break", r"no\xa0break"),
        ("\udc80", r"\udc80"),
        ("größer 日本 niño", "größer 日本 niño"),
        ("::error file=a::b", ": :error file=a::b"),
        ("  ::add-mask::x", "  : :add-mask::x"),
        (":::error::b", ": : :error::b"),
        ("a ::error::b", "a : :error::b"),
        ("x.circuit.yaml::heads[tuned]", "x.circuit.yaml::heads[tuned]"),
        ("a: b :c", "a: b :c"),
        ("##[group]x", "# #[group]x"),
        ("a ###[error]x", "a ## #[error]x"),
        ("##vso[task.complete]", "# #vso[task.complete]"),
        ("##teamcity[x]", "# #teamcity[x]"),
        ("## heading", "## heading"),
    ],
)
def test_what_commands_nothing_stays_and_the_rest_is_shown_as_text(text: str, expected: str) -> None:
    assert plain(text) == expected


@given(HOSTILE)
@example("::error::x")
@example(": ::error::x")
@example("\t::error::x")
@example("\u3000::error::x")
@example("a##[x]")
def test_no_text_commands_a_terminal_or_a_build_server(text: str) -> None:
    made = plain(text)

    assert not [mark for mark in made if unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert len(made.splitlines()) <= 1
    assert not github_reads_a_command(made)
    assert not github_reads_a_command("  " + made)
    assert re.search(r"##\w*\[", made) is None


@given(HOSTILE)
@example("::: ::error::x")
def test_wrapping_cannot_bring_a_command_to_the_start_of_a_line(text: str) -> None:
    lines = textwrap.wrap("warning: " + plain(text), 12, break_long_words=False, break_on_hyphens=False)

    assert not any(map(github_reads_a_command, lines))


@given(st.text(st.characters(categories=["L", "N"]), max_size=50))
def test_words_and_numbers_of_every_language_stay(text: str) -> None:
    assert plain(text) == text


@given(HOSTILE)
def test_made_twice_is_made_once(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(("length", "expected"), [(199, 199), (200, 200), (201, 200), (100_000, 200)])
def test_what_is_too_long_is_cut_and_says_so(length: int, expected: int) -> None:
    made = plain("a" * length)

    assert len(made) == expected
    assert made.endswith("...") == (length > 200)


def test_the_limit_counts_what_is_shown() -> None:
    assert plain("\x1b" * 100) == (r"\x1b" * 50)[:197] + "..."


@pytest.mark.parametrize("limit", [1000, None])
def test_a_sentence_may_be_longer(limit: int | None) -> None:
    assert plain("a" * 300, limit=limit) == "a" * 300


def test_an_error_commands_nothing_and_keeps_its_lines() -> None:
    error = SpecError("x.yaml:1:1: ##vso[task.setvariable variable=x]y: unknown\n  ::error::\x1b[31m" + "a" * 300)

    assert str(error) == (
        "x.yaml:1:1: # #vso[task.setvariable variable=x]y: unknown\n  : :error::\\x1b[31m" + "a" * 300
    )

"""The text of a baseline: reviewable, the same for the same content, and refused when it is not its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_circuits.baselines import keep
from pytest_circuits.baselines.encoding import body, decode, encode
from pytest_circuits.baselines.reading import LATER
from pytest_circuits.errors import BaselineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_circuits.baselines import Baseline
    from pytest_circuits.records import Measured


def sealed(plain: dict[str, Any]) -> str:
    """The text of a body with a right sha256, however wrong the body is."""
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return json.dumps(plain | {"sha256": hashlib.sha256(canonical.encode()).hexdigest()})


def test_what_is_read_back_is_what_was_written(baseline: Baseline) -> None:
    found = decode(encode(baseline))

    assert body(found) == body(baseline)
    assert replace(found, measured=baseline.measured) == baseline


def test_parts_that_no_check_needs_are_null_and_stay_absent(baseline: Baseline, measured: Measured) -> None:
    small = replace(baseline, measured=keep(measured, circuit="a", parts=()))

    text = encode(small)

    assert json.loads(text)["measured"]["heads"] is None
    assert json.loads(text)["measured"].keys().isdisjoint(LATER)
    assert decode(text).measured.parts == small.measured.parts


@pytest.mark.parametrize("part", LATER)
def test_a_baseline_from_before_a_part_was_known_is_read_and_lacks_it(baseline: Baseline, part: str) -> None:
    plain = json.loads(encode(baseline))
    del plain["sha256"], plain["measured"][part]
    found = decode(sealed(plain))

    assert body(found) == plain
    with pytest.raises(BaselineError, match=f"was expected to hold '{part}', and it does not"):
        getattr(found.measured, part)


def test_the_text_is_laid_out_for_a_git_diff(baseline: Baseline, measured: Measured) -> None:
    numbers = np.arange(10) - 1e-7 / 3
    long = replace(
        measured,
        templates=("near",) * 10,
        heads={"L0H0": numbers},
        roles={},
        attribution={},
        **dict.fromkeys(("clean", "corrupt", "clean_logit_diff", "circuit", "knockout", "floor"), numbers),
    )

    lines = encode(replace(baseline, measured=keep(long, circuit="a"))).splitlines()

    start = lines.index('    "clean": [')
    assert lines[start : start + 4] == [
        '    "clean": [',
        "      -3.33333e-08, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,",
        "      8.0, 9.0",
        "    ],",
    ]
    assert lines[:6] == [
        "{",
        '  "circuit": "specs/tiny/verb-agreement",',
        '  "created": "2031-05-06",',
        '  "environment": {',
        '    "dtype": "float32",',
        '    "torch": "2.10.0"',
    ]


def test_no_line_is_too_long_to_review(baseline: Baseline, measured: Measured) -> None:
    widest = np.full(64, -1.23456e-100)
    arrays = dict.fromkeys(("clean", "corrupt", "clean_logit_diff", "circuit", "knockout", "floor"), widest)
    parts = replace(measured, templates=("near",) * 64, heads={"L11H10": widest}, **arrays)
    parts = replace(parts, roles={"number_mover": {"L11H10": {"attention": widest}}}, attribution={"L11H10": widest})

    lines = encode(replace(baseline, measured=keep(parts, circuit="a"))).splitlines()

    assert max(map(len, lines)) <= 160


def test_one_number_that_gains_digits_changes_one_line_and_the_seal(baseline: Baseline, measured: Measured) -> None:
    changed = measured.clean.copy()
    changed[1] = 2.34567
    before = encode(baseline).splitlines()
    after = encode(replace(baseline, measured=keep(replace(measured, clean=changed), circuit="a"))).splitlines()

    assert sum(old != new for old, new in zip(before, after, strict=True)) == 2


def test_the_text_ends_with_a_line_end_and_is_ascii(baseline: Baseline) -> None:
    text = encode(replace(baseline, reason="größer\x1b[31m"))

    assert text.endswith("}\n")
    assert text.isascii()
    assert "\x1b" not in text
    assert decode(text).reason == "größer\x1b[31m"


def test_the_order_of_keys_in_memory_does_not_matter(baseline: Baseline) -> None:
    turned = replace(baseline, environment=dict(reversed(list(baseline.environment.items()))))

    assert encode(turned) == encode(baseline)


def test_white_space_and_order_in_the_file_do_not_matter(baseline: Baseline) -> None:
    plain = json.loads(encode(baseline))

    assert body(decode(json.dumps(plain, indent=8))) == body(baseline)


@pytest.mark.parametrize("key", ["clean", "floor"])
def test_one_edited_digit_is_damage(baseline: Baseline, key: str) -> None:
    plain = json.loads(encode(baseline))
    plain["measured"][key][0] += 1e-5

    with pytest.raises(ValueError, match="its content does not match its sha256, so it was edited or merged by hand"):
        decode(json.dumps(plain))


def test_an_edited_identity_is_damage_and_no_way_around_staleness(baseline: Baseline) -> None:
    text = encode(baseline).replace("1d1d", "2e2e")

    with pytest.raises(ValueError, match="does not match its sha256"):
        decode(text)


def test_a_file_without_a_seal_is_damage(baseline: Baseline) -> None:
    plain = json.loads(encode(baseline))
    del plain["sha256"]

    with pytest.raises(ValueError, match="does not match its sha256"):
        decode(json.dumps(plain))


def test_every_truncation_is_damage(baseline: Baseline) -> None:
    text = encode(baseline)

    for end in range(0, len(text) - 2, 7):
        with pytest.raises(ValueError, match=r"line \d+ column"):
            decode(text[:end])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "it is not a JSON object"),
        ("{}", "its format is None, and this version reads format 1"),
        ('{"format": 2}', "its format is 2, and this version reads format 1"),
        ('{"format": 1, "noise": NaN}', "it holds NaN, and every number must be finite"),
        ('{"format": 1, "noise": -Infinity}', "it holds -Infinity, and every number must be finite"),
        ('{"format": 1, "noise": 1e999}', "Out of range float values"),
        ("<<<<<<< HEAD\n{}", "Expecting value: line 1 column 1"),
        ("[" * 200_000, "it is nested too deeply to be read"),
    ],
)
def test_what_is_no_baseline_is_damage(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message):
        decode(text)


def at(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(plain: dict[str, Any]) -> None:
        for key in path[:-1]:
            plain = plain[key]
        plain[path[-1]] = value

    return change


MOVER = "'attention' of 'L2H0' in the part 'roles.number_mover' must be 6 numbers, one a prompt"
WORDS = "'numbers' of 'L2H0' in the part 'roles.successor' must be numbers, at least one"
BY_NAME = "the part 'roles.successor' must map each head to its numbers, by name"
ALIKE = "the part 'roles.number_mover' must have as many numbers of every head, under the same names"
WRONG = {
    "a key too many": (at("extra", value=1), "it should have the keys"),
    "a reason that is no text": (at("reason", value=None), "circuit, identity, created, reason must be text"),
    "a reference without source": (at("reference", value={"name": "a"}), "reference must have the texts"),
    "a fingerprint that is no text": (at("reference", "fingerprint", value=None), "reference must have the texts"),
    "a revision that is no text": (at("reference", "revision", value=1), "reference must have the texts"),
    "an environment of numbers": (at("environment", "torch", value=2), "environment must map texts to texts"),
    "an unknown part": (at("measured", "extra", value=1), "measured must have the parts"),
    "measured as a list": (at("measured", value=[]), "measured must have the parts"),
    "no prompts": (at("measured", "templates", value=[]), "the part 'templates' must be a list of texts"),
    "a template that is no text": (at("measured", "templates", value=[1] * 6), "the part 'templates' must be"),
    "a prompt too few": (at("measured", "clean", value=[1.0] * 5), "the part 'clean' must be 6 numbers, one a prompt"),
    "a part that must be there": (at("measured", "clean", value=None), "the part 'clean' must be 6 numbers"),
    "a truth value": (at("measured", "floor", value=[True] * 6), "the part 'floor' must be 6 numbers"),
    "a text among numbers": (at("measured", "floor", value=["1"] * 6), "the part 'floor' must be 6 numbers"),
    "a head's prompt too many": (at("measured", "heads", "L2H0", value=[1.0] * 7), "the part 'heads.L2H0' must be 6"),
    "a head that is null": (at("measured", "heads", "L2H0", value=None), "the part 'heads.L2H0' must be 6"),
    "heads as a list": (at("measured", "heads", value=[1.0] * 6), "the part 'heads' must map heads to values"),
    "an attribution too long": (at("measured", "attribution", "L2H0", value=[1.0] * 7), "the part 'attribution.L2H0'"),
    "attributions as a list": (at("measured", "attribution", value=[]), "the part 'attribution' must map heads to"),
    "a successor without a head": (at("measured", "successor", value={}), "the part 'successor' must map each head to"),
    "an edit that is no number": (
        at("measured", "successor", "L2H0", "probe", value=[None]),
        "'probe' of 'L2H0' in the part 'successor' must be numbers, at least one",
    ),
    "negative noise": (at("measured", "noise", value=-1.0), "the part 'noise' must be a number of at least 0"),
    "roles as a list": (at("measured", "roles", value=[1.0]), "the part 'roles' must map roles to values"),
    "a role of no head": (at("measured", "roles", "successor", value={}), BY_NAME),
    "a role's heads as a list": (at("measured", "roles", "successor", value=[1.0]), BY_NAME),
    "a head without numbers": (at("measured", "roles", "successor", "L2H0", value={}), BY_NAME),
    "a head's numbers without a name": (at("measured", "roles", "successor", "L2H0", value=[1]), BY_NAME),
    "words without a token": (at("measured", "roles", "successor", "L2H0", "numbers", value=[]), WORDS),
    "words in a text": (at("measured", "roles", "successor", "L2H0", "numbers", value="101"), WORDS),
    "a token that is no number": (at("measured", "roles", "successor", "L2H0", "numbers", value=[True]), WORDS),
    "a role's prompt too few": (at("measured", "roles", "number_mover", "L2H0", "attention", value=[1.0] * 5), MOVER),
    "a role's prompt that is null": (
        at("measured", "roles", "number_mover", "L2H0", "attention", value=[None] * 6),
        MOVER,
    ),
    "heads with other names": (
        at("measured", "roles", "number_mover", "L2H0", value={"50 repeated tokens": [1.0]}),
        ALIKE,
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_shape_is_damage_even_under_a_right_seal(
    baseline: Baseline, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    plain = json.loads(encode(baseline))
    del plain["sha256"]
    assert body(decode(sealed(plain))) == body(baseline)
    change(plain)

    with pytest.raises(ValueError, match="^" + message):
        decode(sealed(plain))


def test_a_head_s_key_is_named_by_its_repr(baseline: Baseline) -> None:
    plain = json.loads(encode(baseline))
    del plain["sha256"]
    plain["measured"]["heads"]["\x1b[31m"] = None

    with pytest.raises(ValueError, match="the part") as refusal:
        decode(sealed(plain))

    assert "\x1b" not in str(refusal.value)


def test_a_measurement_of_two_lengths_is_never_written(baseline: Baseline, measured: Measured) -> None:
    short = replace(measured, floor=np.zeros(5))

    with pytest.raises(ValueError, match="the part 'floor' must be 6 numbers"):
        encode(replace(baseline, measured=keep(short, circuit="a")))

"""What every head does as text: what it says, what it leaves out, and that it fits where it is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_circuits.records import HeadView, Overview
from pytest_circuits.report.heads import ASCII, SHADES, STEPS, heads_text
from pytest_circuits.report.progress import columns


def view(effect: float = 0.0, share: float | None = 0.0, **changes: Any) -> HeadView:
    return HeadView(
        **{"standard_error": 0.01, "attention": 0.25, "roles": {}, **changes, "effect": effect, "share": share}
    )


def overview(layers: int = 2, heads: int = 3, changed: dict[str, HeadView] | None = None, **changes: Any) -> Overview:
    every = {f"L{layer}H{head}": view() for layer in range(layers) for head in range(heads)}
    usual: dict[str, Any] = {
        "name": "pairs.csv",
        "checkpoint": "builtin:tiny",
        "fingerprint": "0" * 64,
        "architecture": "gpt2",
        "layers": layers,
        "heads_per_layer": heads,
        "method": "exact",
        "metric": "logit_diff",
        "unit": "logits",
        "ablation": "resample",
        "prompts": 6,
        "templates": 1,
        "accuracy": (5, 6),
        "clean": 12.5,
        "corrupt": -12.25,
        "floor": 0.125,
        "noise": 1e-5,
        "heads": {**every, **(changed or {})},
        "unread": {},
        "notices": (),
    }
    return Overview(**{**usual, **changes})


def text(found: Overview, *, top: int = 12, width: int = 120, encoding: str = "utf-8") -> list[str]:
    lines = heads_text(found, top=top, width=width, encoding=encoding)
    assert [line for line in lines if columns(line) > width] == []
    assert all(line.encode(encoding).decode(encoding) == line for line in lines)
    return lines


def drawn(lines: list[str]) -> dict[str, str]:
    """The rows of the map by layer, blocks joined."""
    rows: dict[str, str] = {}
    for line in lines:
        label, _, signs = line.partition(" ")
        if label.startswith("L") and label[1:].isdigit():
            rows[label] = rows.get(label, "") + signs.replace(" ", "")
    return rows


MOVED = {
    "L1H2": view(9.876, 0.8, standard_error=0.5, roles={"copying": 0.29, "induction": 0.3, "number_mover": 0.25}),
    "L0H1": view(-3.0, -0.25, roles={"a": 0.4, "b": 0.9, "c": 0.5, "d": 0.6}),
}


def test_all_of_it_reads_like_this() -> None:
    found = overview(
        changed=MOVED,
        unread={
            "name_mover": "the answer is not there",
            "backup": "no movers",
            "negative_mover": "the answer is not there",
        },
        notices=("few prompts",),
    )

    assert text(found, top=2) == [
        "builtin:tiny (gpt2, 2 layers of 3 heads) on pairs.csv",
        "5 of 6 prompts answered right",
        "logit_diff, means in logits: clean 12.50, corrupt -12.25, floor 0.12",
        "exact: each head alone takes its value on the corrupt prompt, and all that is behind it is computed again",
        "",
        "each head's share of clean - floor, layers downwards, heads to the right:",
        "    0 1 2",
        "L0  · ─ ·",
        "L1  · · █",
        "· less than 0.02; helps the answer, or works against it: ░╌ from 0.02, ▒─ from 0.1, ▓═ from 0.3, █≡ from 0.6",
        "",
        "the 2 of 6 heads with the largest effects; effect is clean - patched in logits; attention is from the answer "
        "position to",
        "  the flipped slot",
        "head  effect        share  attention  roles",
        "L1H2  9.88 ± 0.50   0.80   0.25       induction 0.30",
        "L0H1  -3.00 ± 0.01  -0.25  0.25       b 0.90, d 0.60, c 0.50",
        "",
        "not scored: name_mover, negative_mover: the answer is not there",
        "not scored: backup: no movers",
        "note: few prompts",
    ]


def test_every_step_has_its_shade_by_size_and_sign() -> None:
    for signs, encoding in ((SHADES, "utf-8"), (ASCII, "ascii")):
        shares = [0.0, *STEPS, 5.0, -0.019, *(-step for step in STEPS), -5.0]
        changed = {f"L0H{at}": view(share, share) for at, share in enumerate(shares)}
        expected = signs.none + signs.positive + signs.positive[-1] + signs.none + signs.negative + signs.negative[-1]

        assert drawn(text(overview(1, len(shares), changed), encoding=encoding))["L0"] == expected
        assert len({signs.none, *signs.positive, *signs.negative}) == 1 + 2 * len(STEPS)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_that_cannot_hold_the_shades_gets_ascii(encoding: str) -> None:
    lines = text(overview(changed=MOVED, checkpoint="./モデル"), encoding=encoding)

    assert "\n".join(lines).isascii()
    assert drawn(lines) == {"L0": ".~.", "L1": "..#"}
    assert any("9.88 +- 0.50" in line for line in lines)
    assert "\\u30e2" in lines[0]


@pytest.mark.parametrize("width", [20, 33, 40, 61, 80, 100, 132, 250])
@pytest.mark.parametrize(("layers", "heads"), [(2, 3), (3, 12), (32, 64), (2, 128), (101, 25)])
def test_the_map_of_any_model_fits_and_has_every_head_in_its_place(layers: int, heads: int, width: int) -> None:
    last = f"L{layers - 1}H{heads - 1}"
    lines = text(overview(layers, heads, {last: view(1.0, 1.0), "L0H2": view(-1.0, -1.0)}), width=width)
    rows = drawn(lines)

    assert {len(row) for row in rows.values()} == {heads}
    assert [(row, at) for row, signs in rows.items() for at, sign in enumerate(signs) if sign != "·"] == [
        ("L0", 2),
        (f"L{layers - 1}", heads - 1),
    ]


def test_64_heads_fit_80_columns_with_their_numbers_above() -> None:
    lines = text(overview(32, 64, {"L31H63": view(1.0, 1.0)}), width=80)
    at = next(index for index, line in enumerate(lines) if line.startswith("L0 "))
    tens, ones, row = lines[at - 2], lines[at - 1], lines[at + 31]

    assert tens == "    0         10        20        30        40        50        60"
    assert ones == "    " + "".join(str(head % 10) for head in range(64))
    assert row.index("█") == tens.index("60") + 3
    assert ones[row.index("█")] == "3"


def test_in_blocks_the_numbers_stand_above_their_columns_too() -> None:
    lines = text(overview(2, 128, {"L0H127": view(1.0, 1.0)}), width=80)
    at = next(index for index, line in enumerate(lines) if "█" in line)
    tens, ones, row = lines[at - 2 : at + 1]

    assert tens.index("120") == ones.index("0", tens.index("120"))
    assert row.index("█") == tens.index("120") + 7
    assert ones[row.index("█")] == "7"


def test_numbers_stand_above_their_columns_where_there_is_room() -> None:
    lines = text(overview(2, 12, {"L1H11": view(1.0, 1.0)}))
    numbers, _, row = lines[6:9]

    assert numbers == "     0  1  2  3  4  5  6  7  8  9 10 11"
    assert row.index("█") == numbers.index("11") + 1


def test_without_shares_the_map_shows_effects_over_the_largest_and_the_table_has_no_such_column() -> None:
    changed = {"L0H0": view(0.5, None), "L1H1": view(-2.0, None), "L1H2": view(0.01, None)}
    every = {f"L{layer}H{head}": view(0.0, None) for layer in range(2) for head in range(3)}
    lines = text(overview(changed={**every, **changed}))

    assert "each head's effect over the largest one, layers downwards, heads to the right:" in lines
    assert drawn(lines) == {"L0": "▒··", "L1": "·≡·"}
    assert not any("share" in line for line in lines)
    assert lines[[line.startswith("head ") for line in lines].index(True) + 1].startswith("L1H1  -2.00 ± 0.01")


def test_where_no_head_does_anything_nothing_is_divided_by_zero() -> None:
    every = {f"L{layer}H{head}": view(0.0, None) for layer in range(2) for head in range(3)}

    assert drawn(text(overview(changed=every, noise=0.0))) == {"L0": "···", "L1": "···"}


@pytest.mark.parametrize("share", [None, 0.9])
def test_effects_that_rounding_can_make_are_not_drawn_and_told(share: float | None) -> None:
    noise = {f"L{layer}H{head}": view(-4.6e-7 * (layer + head), share) for layer in range(2) for head in range(3)}
    found = overview(changed=noise, noise=1.4e-6, clean=0.0625, unit="of probability")
    lines = text(found, width=400)

    assert drawn(lines) == {"L0": "···", "L1": "···"}
    assert (
        "heads with an effect above the noise, of which there is none, layers downwards, heads to the right:" in lines
    )
    assert lines[2] == "logit_diff, means in probability: clean 0.0625, corrupt -12.2500, floor 0.1250"
    assert lines[-2:] == [
        "",
        "note: no head has an effect above the noise: the largest is 1.4e-06, and rounding alone may make 1.4e-06, in "
        "probability. Does the model do the task (5 of 6 answered right)? Do clean and corrupt prompts differ in the "
        "word that matters?",
    ]
    assert text(replace(found, corrupt=None), width=400)[-1].endswith("(5 of 6 answered right)?")


@pytest.mark.parametrize(("effect", "row"), [(1.01e-5, "█═·"), (-1.01e-5, "≡═·")])
def test_one_effect_above_the_noise_is_enough_to_draw_them(effect: float, row: str) -> None:
    lines = text(overview(changed={"L0H0": view(effect, None), "L0H1": view(-5e-6, None)}))

    assert drawn(lines) == {"L0": row, "L1": "···"}
    assert not any("above the noise" in line for line in lines)


def test_what_is_undefined_is_not_shown_as_a_number() -> None:
    every = {f"L0H{head}": HeadView(1.0, None, None, None, {}) for head in range(3)}
    lines = text(overview(1, 3, every, corrupt=None, floor=None))

    assert lines[2] == "logit_diff, means in logits: clean 12.50"
    assert lines[-4:] == ["head  effect  roles", *(f"L0H{head}  1.00    -" for head in range(3))]
    assert not any("attention" in line for line in lines)


@pytest.mark.parametrize(("top", "rows"), [(0, 6), (1, 1), (6, 6), (100, 6)])
def test_the_table_has_as_many_heads_as_are_asked_for(top: int, rows: int) -> None:
    lines = text(overview(changed=MOVED), top=top)
    table = lines[[line.startswith("head ") for line in lines].index(True) + 1 :]

    assert len(table) == rows
    assert table[0].startswith("L1H2")
    assert any(line.startswith("all 6 heads;" if rows == 6 else "the 1 of 6 heads with the largest") for line in lines)


def test_small_effects_keep_three_digits_and_large_ones_their_size() -> None:
    small = text(overview(changed={"L0H0": view(0.00456, 0.5, standard_error=0.00012)}, unit="nats", clean=0.0))
    large = text(overview(changed={"L0H0": view(123456.0, 0.5)}))

    assert any(line.startswith("L0H0  0.00456 ± 0.00012") for line in small)
    assert any(line.startswith("L0H0  1.2e+05 ± 0.01") for line in large)


def test_the_methods_say_what_their_effects_are() -> None:
    for method, words in {
        "exact": "each head alone takes the value zero",
        "atp": "to first order: by the gradient at the clean run, which misses what saturates",
        "eap-ig": "to first order: by the mean gradient on the way",
        "dla": "direct effects in logits",
    }.items():
        lines = " ".join(text(overview(method=method, ablation="zero"), width=400))
        assert f"{method}: " in lines
        assert words in lines

    direct = text(overview(changed=MOVED, method="dla", floor=None), width=400)
    assert "each head's share of the clean logit difference, layers downwards, heads to the right:" in direct
    assert any("effect is what it adds to answer - foil in logits" in line for line in direct)


def test_one_prompt_and_several_templates_are_counted() -> None:
    assert text(overview(accuracy=(1, 1)))[1] == "1 of 1 prompt answered right"
    assert text(overview(templates=3))[1] == "5 of 6 prompts in 3 templates answered right"
    assert "means in probability:" in text(overview(unit="of probability", metric="prob_diff"))[2]


@pytest.mark.parametrize("width", [20, 30, 47, 80])
def test_foreign_text_commands_neither_a_terminal_nor_a_build_server(width: int) -> None:
    bad = "\x1b[31m::error::x ##[group]y " + "/long" * 30 + "::error::z"
    found = overview(
        changed={"L0H0": view(1.0, 0.5, roles={f"letter_mover:{bad}": 0.9})},
        checkpoint=bad,
        name=bad,
        architecture=bad,
        unread={bad: bad},
        notices=(bad, "::warning::"),
    )
    lines = text(found, width=width)

    assert not any("\x1b" in line or line.lstrip().startswith("::") or "##[" in line for line in lines)

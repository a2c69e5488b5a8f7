"""What every head does as text: a header, a map of all heads, and a table of those that matter most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import plain
from .progress import columns, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..records import HeadView, Overview

STEPS = (0.02, 0.1, 0.3, 0.6)
"""Where the next shade begins, of a share's size."""
LEAST_SCORE, MOST_ROLES = 0.3, 3
"""Of its roles a head shows so many, the highest, and none that is lower."""
NARROWEST = 20
"""Columns that a line may have at least: in fewer nothing could be read."""


@dataclass(frozen=True)
class _Signs:
    """What stands for a number: `none` below all `STEPS`, else one of `positive` or `negative`, one for each step."""

    none: str
    positive: str
    negative: str
    plus_minus: str


SHADES = _Signs("·", "░▒▓█", "╌─═≡", "±")
ASCII = _Signs(".", ":+*#", "-~=%", "+-")
METHODS = {
    "exact": "each head alone takes {ablated}, and all that is behind it is computed again",
    "eap-ig": "what exact would find, to first order: by the mean gradient on the way from ablated embeddings to clean "
    "ones; ablated, a head takes {ablated}",
    "atp": "what exact would find, to first order: by the gradient at the clean run, which misses what saturates; "
    "ablated, a head takes {ablated}",
    "dla": "direct effects in logits: what each head itself adds to answer - foil; nothing is ablated, and what later "
    "parts make of its output is not in them",
}
"""The methods, from the surest to the fastest, in words."""
ABLATED = {
    "resample": "its value on the corrupt prompt",
    "zero": "the value zero",
    "mean": "its mean over the prompts",
}


def heads_text(overview: Overview, *, top: int, width: int, encoding: str = "utf-8") -> list[str]:
    """Return the lines that a person reads, none wider than `width`.

    Args:
        overview: what was measured.
        top: how many heads the table has, those of the largest effects; 0 for all.
        width: of the terminal, in columns; taken to be at least `NARROWEST`.
        encoding: of the stream, which need not hold every sign.
    """
    page = _Page(max(width, NARROWEST), encoding)
    return [
        *page.wrapped(_header(overview)),
        "",
        *page.wrapped([_caption(overview)]),
        *_map(overview, page),
        *page.wrapped([_legend(page.signs)]),
        "",
        *_table(overview, top, page),
        *page.wrapped(_remarks(overview)),
    ]


# -- the page ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    """How wide a line may be, and what the stream can hold."""

    width: int
    encoding: str

    @property
    def signs(self) -> _Signs:
        """The signs that the stream can hold."""
        every = "".join(vars(SHADES).values())
        return SHADES if self.known(every) == every else ASCII

    def known(self, text: str) -> str:
        """Return a text with what the stream cannot hold escaped."""
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def wrapped(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield each text in lines, harmless; a word that is too long loses its beginning.

        A line never begins with a part of a word: a build server could take it for a command.
        """
        for text in texts:
            line = ""
            for word in self.known(plain(text, limit=None)).split():
                word = shortened(word, self.width - 2)
                if columns(line) + 1 + columns(word) > self.width:
                    yield line
                    line = "  " + word
                else:
                    line = f"{line} {word}" if line else word
            yield line


# -- words -------------------------------------------------------------------------------------------------------------


def _header(overview: Overview) -> Iterator[str]:
    """Yield what was looked at, and how."""
    shape = f"{overview.architecture}, {overview.layers} layers of {overview.heads_per_layer} heads"
    yield f"{overview.checkpoint} ({shape}) on {overview.name}"
    hits, asked = overview.accuracy
    strata = f" in {overview.templates} templates" if overview.templates > 1 else ""
    yield f"{hits} of {asked} prompt{'s' * (asked != 1)}{strata} answered right"
    means = {"clean": overview.clean, "corrupt": overview.corrupt, "floor": overview.floor}
    digits = _digits(overview)
    told = ", ".join(f"{name} {_number(value, digits)}" for name, value in means.items() if value is not None)
    yield f"{overview.metric}, means in {overview.unit.removeprefix('of ')}: {told}"
    yield f"{overview.method}: {METHODS[overview.method].format(ablated=ABLATED[overview.ablation])}"


def _caption(overview: Overview) -> str:
    if _is_noise(overview):
        return "heads with an effect above the noise, of which there is none, layers downwards, heads to the right:"
    if _has_shares(overview):
        whole = "the clean logit difference" if overview.floor is None else "clean - floor"
        return f"each head's share of {whole}, layers downwards, heads to the right:"
    return "each head's effect over the largest one, layers downwards, heads to the right:"


def _legend(signs: _Signs) -> str:
    steps = [f"{signs.positive[at]}{signs.negative[at]} from {step:g}" for at, step in enumerate(STEPS)]
    return f"{signs.none} less than {STEPS[0]:g}; helps the answer, or works against it: {', '.join(steps)}"


def _remarks(overview: Overview) -> Iterator[str]:
    """Yield what else a reader should know."""
    reasons: dict[str, list[str]] = {}
    for key, reason in overview.unread.items():
        reasons.setdefault(reason, []).append(key)
    told = [*_nothing_found(overview), *(f"note: {notice}" for notice in overview.notices)]
    if overview.unread or told:
        yield ""
    yield from (f"not scored: {', '.join(keys)}: {reason}" for reason, keys in reasons.items())
    yield from told


def _nothing_found(overview: Overview) -> Iterator[str]:
    """Yield, where all effects can be rounding, that the empty map is no finding, and what to look at."""
    if not _is_noise(overview):
        return
    hits, asked = overview.accuracy
    twins = "" if overview.corrupt is None else " Do clean and corrupt prompts differ in the word that matters?"
    yield (
        f"note: no head has an effect above the noise: the largest is {_largest(overview):.2g}, and rounding alone may "
        f"make {overview.noise:.2g}, in {overview.unit.removeprefix('of ')}. Does the model do the task ({hits} of "
        f"{asked} answered right)?{twins}"
    )


# -- the map -----------------------------------------------------------------------------------------------------------


def _map(overview: Overview, page: _Page) -> Iterator[str]:
    """Yield a row for each layer and a column for each head; in blocks where one row does not fit."""
    sizes = _sizes(overview)
    label = len(f"L{overview.layers - 1}") + 1
    heads = range(overview.heads_per_layer)
    wide = len(str(heads[-1])) + 1
    cell = wide if label + wide * len(heads) <= page.width else 1
    room = (page.width - label) // cell
    block = len(heads) if len(heads) <= room else room // 10 * 10
    for first in range(0, len(heads), block):
        shown = heads[first : first + block]
        yield from _numbers(shown, label, cell)
        for layer in range(overview.layers):
            signs = (_sign(sizes[f"L{layer}H{head}"], page.signs).rjust(cell) for head in shown)
            yield f"L{layer}".ljust(label) + "".join(signs)


def _numbers(heads: Sequence[int], label: int, cell: int) -> Iterator[str]:
    """Yield the numbers of the heads above their columns; where a column holds one digit, the tens above the ones."""
    if cell > 1 or heads[-1] < 10:
        yield " " * label + "".join(str(head).rjust(cell) for head in heads)
        return
    tens = (str(head).ljust(10) for head in heads if head % 10 == 0)
    yield (" " * label + "".join(tens)).rstrip()
    yield " " * label + "".join(str(head % 10) for head in heads)


def _sizes(overview: Overview) -> Mapping[str, float]:
    """Return what is drawn of each head: its share, or its effect over the largest where shares mean nothing.

    Nothing is drawn where all effects can be rounding, which would fill the map.
    """
    if _is_noise(overview):
        return dict.fromkeys(overview.heads, 0.0)
    if _has_shares(overview):
        return {head: view.share or 0.0 for head, view in overview.heads.items()}
    largest = _largest(overview)
    return {head: view.effect / largest for head, view in overview.heads.items()}


def _is_noise(overview: Overview) -> bool:
    """Say whether no head has an effect that rounding alone could not make."""
    return _largest(overview) <= overview.noise


def _largest(overview: Overview) -> float:
    return max(abs(view.effect) for view in overview.heads.values())


def _has_shares(overview: Overview) -> bool:
    return all(view.share is not None for view in overview.heads.values())


def _sign(size: float, signs: _Signs) -> str:
    reached = sum(abs(size) >= step for step in STEPS)
    return signs.none if not reached else (signs.positive if size > 0 else signs.negative)[reached - 1]


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(overview: Overview, top: int, page: _Page) -> Iterator[str]:
    """Yield the heads of the largest effects, one a line, with what is known of each."""
    ranked = sorted(overview.heads, key=lambda head: -abs(overview.heads[head].effect))
    views = {head: overview.heads[head] for head in ranked[: top or None]}
    yield from page.wrapped([_title(overview, len(views))])
    rows = {
        "head": list(views),
        "effect": [_effect(view, _digits(overview), page.signs) for view in views.values()],
        "share": [_number(view.share) for view in views.values()],
        "attention": [_number(view.attention) for view in views.values()],
    }
    known = [_padded([name, *cells]) for name, cells in rows.items() if any(cell != "-" for cell in cells)]
    told = ["roles", *(_roles(view) for view in views.values())]
    for *cells, roles in zip(*known, told, strict=True):
        yield _fitting("  ".join([*cells, page.known(plain(roles, limit=None))]), page.width)


def _title(overview: Overview, shown: int) -> str:
    every = len(overview.heads)
    which = f"all {every} heads" if shown == every else f"the {shown} of {every} heads with the largest effects"
    effect = "what it adds to answer - foil" if overview.floor is None else "clean - patched"
    look = "; attention is from the answer position to the flipped slot"
    seen = any(view.attention is not None for view in overview.heads.values())
    return f"{which}; effect is {effect} in {overview.unit.removeprefix('of ')}{look if seen else ''}"


def _effect(view: HeadView, digits: int, signs: _Signs) -> str:
    error = "" if view.standard_error is None else f" {signs.plus_minus} {_number(view.standard_error, digits)}"
    return f"{_number(view.effect, digits)}{error}"


def _digits(overview: Overview) -> int:
    """Return how many decimals show three digits of the largest effect: probabilities and nats can be small.

    Where effects can be rounding, of the clean mean: more decimals would show nothing but that.
    """
    largest = abs(overview.clean) if _is_noise(overview) else _largest(overview)
    return 2 + max(0, -math.floor(math.log10(largest))) if largest else 2


def _roles(view: HeadView) -> str:
    ranked = sorted(view.roles, key=lambda key: -view.roles[key])
    best = [f"{key} {_number(view.roles[key])}" for key in ranked if view.roles[key] >= LEAST_SCORE]
    return ", ".join(best[:MOST_ROLES]) or "-"


def _fitting(text: str, room: int) -> str:
    """Return as much of a text's beginning as has room."""
    return text if columns(text) <= room else text[: room - 3] + "..."


def _padded(cells: Sequence[str]) -> list[str]:
    """Return cells in one width."""
    return [cell.ljust(max(map(len, cells))) for cell in cells]


def _number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value:z.{digits}f}" if abs(value) < 1000 else f"{value:.1e}"

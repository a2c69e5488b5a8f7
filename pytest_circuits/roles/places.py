"""Where in a prompt the heads of a role look, and how much of their attention goes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PromptError
from ..spec.roles import ROLES
from .reading import every_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..prompts.encode import Encoded
    from ..records import PerPrompt
    from ..spec.components import Head
    from .reading import Asked

    Positions = tuple[int, ...]
    Place = Callable[[str, Encoded], Positions]
    """Takes a role's name, for what it refuses, and a prompt."""


def attention_to_place(asked: Asked, role: str, own: Place | None = None) -> dict[Head, PerPrompt]:
    """Return each head's attention from the answer position to the role's place in the clean prompt, between 0 and 1.

    It is summed over the place's positions. The place is the slot that the spec names, else `own`, else the one of
    `spec.roles`.

    Raises:
        PromptError: a prompt has no such place.
        InstrumentError: the attention read is not where the heads attended.
    """
    place = _place(asked, role, own or _PLACES.get(ROLES[role].place))
    for row in asked.runs.encoded:
        place(row)  # a prompt that has none is refused before anything runs
    return asked.runs.attention(every_head(asked.runs.model), place)


def _place(asked: Asked, role: str, own: Place | None) -> Callable[[Encoded], Positions]:
    if asked.slot is not None:
        return lambda row: _slot(role, row, str(asked.slot))
    if own is None:
        raise PromptError(
            f"the role {role} needs the slot that its heads look at, found none named.\n"
            "  Attention to nothing in particular is no role. Write the slot's name as `to` beside the role's."
        )
    return lambda row: own(role, row)


def flipped(role: str, row: Encoded) -> Positions:
    """Return the positions of the flipped slot.

    Raises:
        PromptError: there is none.
    """
    if not row.flip:
        raise PromptError(
            f"the role {role} needs a flipped slot, found none in {row.pair.clean!r}.\n"
            "  It asks how much of the attention goes there. Give the prompts a corrupt twin, or drop the role."
        )
    return row.flip


def _slot(role: str, row: Encoded, slot: str) -> Positions:
    if not row.spans.get(slot):
        known = ", ".join(name for name, positions in row.spans.items() if positions) or "none"
        raise PromptError(
            f"the role {role} looks at the slot {slot!r}, and {row.pair.clean!r} has no token of it (slots with "
            f"tokens: {known}).\n  It asks how much of the attention goes there. Name a slot that stands in every "
            "template; prompts from a file have none."
        )
    return row.spans[slot]


def _answer(role: str, row: Encoded) -> Positions:
    return _standing(role, row, row.answer, "answer", row.pair.answer)


def _foil(role: str, row: Encoded) -> Positions:
    return _standing(role, row, row.foil, "foil", row.pair.foil)[-1:]


def _standing(role: str, row: Encoded, token: int, what: str, word: str) -> Positions:
    """Return the positions at which a token stands in the clean prompt."""
    found = tuple(at for at, here in enumerate(row.clean) if here == token)
    if not found:
        raise PromptError(
            f"the role {role} looks at the {what}'s token, and that of {word!r} does not stand in {row.pair.clean!r}.\n"
            f"  It asks how much of the attention goes there. Let every prompt name its {what}, as the same token: a "
            "word at the start of a text, or in capitals, is mostly another. Or write the slot to look at as `to`."
        )
    return found


_PLACES: Mapping[str, Place] = {"flip": flipped, "answer": _answer, "foil": _foil}

"""Readings that roles of movers share: what a head adds to the answer directly, and the movers that a spec names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..attribution.direct import direct_effects, is_capped
from ..errors import PromptError, SpecError
from ..spec.components import Head
from ..spec.roles import ROLES
from .reading import every_head

if TYPE_CHECKING:
    from ..engine.runs import Ablated, Runs
    from ..records import PerPrompt
    from .reading import Asked


def direct_of_heads(runs: Runs, *, without: Ablated | None = None) -> dict[Head, PerPrompt]:
    """Return what each head adds to the answer's logit beyond the foil's, directly, in logits, for each clean prompt.

    Args:
        runs: the prompts.
        without: what is ablated meanwhile.

    Raises:
        PromptError: the model caps its logits.
        InstrumentError: the parts do not sum to the model's own logit difference.
    """
    if is_capped(runs):
        raise PromptError(
            f"roles that are read of direct effects are parts of the logit difference, and {runs.model.name!r} caps "
            "its logits: behind the cap nothing adds up to it.\n"
            "  A share across the cap would grow with the logits. Drop these roles for this checkpoint; heads and "
            "paths are measured."
        )
    found = direct_effects(runs, without=without)
    return {part: effect for part, effect in zip(found.parts, found.effects, strict=True) if isinstance(part, Head)}


def movers_of(asked: Asked, role: str) -> tuple[Head, ...]:
    """Return the heads that a role is defined through.

    Raises:
        SpecError: the spec names none, or some that the model does not have.
    """
    strangers = [str(head) for head in asked.movers if head not in every_head(asked.runs.model)]
    if not asked.movers or strangers:
        raise SpecError(
            f"the role {role} is defined through heads with the role {ROLES[role].needs}, found "
            f"{', '.join(strangers) + ' beyond the model' if strangers else 'none'}.\n"
            "  Without them its score would speak of other heads. Give the movers their role in a group of their own."
        )
    return asked.movers

"""The letter mover: a head that carries the letter which begins a word to the answer position (arXiv:2405.04156).

Score = min(share of the effect, mean attention from the answer position to the slot that the spec names), clipped at 0:
in `The Chief Executive Officer (CE` the slot is the third word, whose letter comes next.

Typical values in GPT-2 small, three-letter acronyms: L8H11, L9H9, L10H10 and L11H4 are the movers, and look at the
word whose letter they write. The share is the gate's matter; this module reads the attention. Neither tells the letter
from the rest of the word: prompts whose twins differ in that letter do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .places import attention_to_place
from .reading import of_each

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's attention from the answer position to the slot that is named, for each clean prompt.

    Raises:
        PromptError: no slot is named, or a prompt has no token of it.
    """
    return of_each(attention=attention_to_place(asked, "letter_mover"))

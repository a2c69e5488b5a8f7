"""The number mover: a head that carries the flipped slot's class to the answer position (arXiv:2410.06496).

Score = min(share of the effect, mean attention from the answer position to the flipped slot), clipped at 0.

Typical values: Gemma 2B has one such head for subject-verb agreement, L13H7, in two languages. Attention alone says
where a head looks and not what it writes: an idle head can look at the subject all the time. A share alone does not say
where the effect comes from. The share is the gate's matter; this module reads the attention. Neither tells that it is
the number which is carried, and not all of the word: the prompts do, whose twins differ in nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .places import attention_to_place
from .reading import of_each

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's attention from the answer position to the flipped slot, for each clean prompt.

    Raises:
        PromptError: a prompt has no flipped slot, because it has no twin.
    """
    return of_each(attention=attention_to_place(asked, "number_mover"))

"""The conjunction tracker: a head that attends to a conjunction, which makes two singulars a plural (arXiv:2506.22105).

Score = mean attention from the answer position to the slot that the spec names: in `The dog and the cat` it is `and`.

Typical values: the paper names L1H1 of GPT-2 small, which nobody has confirmed, so measure the reference first.
Attention alone says where a head looks, and not what it writes. Short words that stand in every prompt draw attention
of heads that do nothing with it: `heads` tells whether this one matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .places import attention_to_place
from .reading import of_each

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's attention from the answer position to the conjunction, for each clean prompt.

    Raises:
        PromptError: no slot is named, or a prompt has no token of it.
    """
    return of_each(attention=attention_to_place(asked, "conjunction_tracker"))

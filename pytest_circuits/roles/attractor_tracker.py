"""The attractor tracker: a head that attends to a noun which disturbs agreement (arXiv:2506.22105).

Score = mean attention from the answer position to the slot that the spec names: in `The key to the cabinets` the
attractor is `cabinets`.

Typical values: the paper reports heads of GPT-2 small without numbers that others have confirmed, so measure the
reference first. Attention alone says where a head looks, and not what it writes: it may pass the attractor's number on,
or hold it back, or do nothing. `heads` tells which, on prompts whose flipped slot is the attractor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .places import attention_to_place
from .reading import of_each

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's attention from the answer position to the attractor, for each clean prompt.

    Raises:
        PromptError: no slot is named, or a prompt has no token of it.
    """
    return of_each(attention=attention_to_place(asked, "attractor_tracker"))

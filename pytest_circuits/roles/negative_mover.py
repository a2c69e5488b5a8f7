"""The negative mover: a head that looks at the answer's token in the prompt and writes against it (arXiv:2211.00593).

Score = min(- mean direct effect over the mean clean logit difference, mean attention to the answer's token), clipped
at 0: the name mover's (`name_mover.py`) with the direct effect's sign turned. This module returns the direct effect as
it is, negative for such a head; the gate turns it.

Typical values: GPT-2 small has L10H7 and L11H10; without both the logit difference doubles (+109 %), and each writes
more against a token the more it looks at it. The score does not tell why a model has such heads; that they write
against whatever token they read is the matter of `copy_suppression`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .movers import direct_of_heads
from .places import attention_to_place
from .reading import of_each

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's direct effect, in logits, and its attention to the answer's token, for each clean prompt.

    Raises:
        PromptError: in a prompt the answer's token does not stand.
        InstrumentError: the parts do not sum to the model's own logit difference.
    """
    return of_each(attention=attention_to_place(asked, "negative_mover"), direct=direct_of_heads(asked.runs))

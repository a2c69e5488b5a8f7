"""The sequence-member mover: a head that carries a sequence's last member to the answer position (arXiv:2311.04131).

Score = min(share of the effect, mean attention from the answer position to the last member), clipped at 0: in `Van done
in 1. Hat done in 2. Ring done in` to the `2`. In a template the last member is the flipped slot, unless the spec names
another; in prompts from a file, where the twin may change every member, it is the last token that differs.

Typical values in GPT-2 small: without L7H11 the logit difference on numerals falls by 47 %, without any other head by
15 % or less. The share is the gate's matter; this module reads the attention. The score does not tell that a sequence
is understood: a head that carries the last number of any list has it too. `successor` asks what is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .places import attention_to_place, flipped
from .reading import of_each

if TYPE_CHECKING:
    from ..prompts.encode import Encoded
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's attention from the answer position to the last member, for each clean prompt.

    Raises:
        PromptError: a prompt has no flipped slot, or not the one that is named.
    """
    return of_each(attention=attention_to_place(asked, "sequence_mover", _last_member))


def _last_member(role: str, row: Encoded) -> tuple[int, ...]:
    positions = flipped(role, row)
    return positions if row.pair.flip is not None else positions[-1:]

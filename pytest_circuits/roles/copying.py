"""The copying head: it writes the token that it reads (Wang et al., arXiv:2211.00593).

Score = the share of the tokens t asked for which t is among the 5 highest logits of the whole vocabulary in what the
head's OV circuit says of t (`ov_circuit.py`). Asked are the answers and foils of the spec's prompts: the tokens that
the circuit has to copy.

Typical values in GPT-2 small: on names reported as high for the name movers L9H9, L9H6 and L10H0, low for most heads;
0.8 to 0.95 for L10H2, L7H10, L9H9 and L6H9 on numerals, 0.06 on average. The score says what a head's weights can do,
not whether it attends to the token: `name_mover` and `induction` ask that. A top 5 is lenient: successor heads, which
write what follows, are often above 0.5 as well, and `successor` tells them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PromptError
from ..spec.components import Head
from .ov_circuit import beaten_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Bool, Int
    from torch import Tensor

    from .reading import Asked, Samples, Scores

    Beaten = Int[Tensor, "heads tokens"]

FIRST = 5
LEAST = 5
"""Of fewer tokens than these a share says nothing."""
ASKED = "answers and foils"


def measure(asked: Asked) -> Scores:
    """Return for each head one number for each token asked, by token id: 1 where it is copied, else 0.

    Raises:
        PromptError: the prompts have too few answers and foils; the model has no OV circuit of this form.
    """
    return hits(asked, "copying", lambda above, _: above < FIRST)


def hits(asked: Asked, role: str, is_hit: Callable[[Beaten, Beaten], Bool[Tensor, "heads tokens"]]) -> Scores:
    """Return for each head one number for each token asked: 1 where `is_hit`, else 0.

    Args:
        asked: the prompts and the model.
        role: its name.
        is_hit: takes how many other tokens have no less logit than the token read, and how many no more.

    Raises:
        PromptError: as `measure`.
    """
    scores: dict[Head, Mapping[str, Samples]] = {}
    for layer, above, below in beaten_by(asked.runs.model, _tokens_asked(asked, role), asked.runs.watch):
        found = is_hit(above, below).double().cpu().numpy()
        scores |= {Head(layer, head): {ASKED: of_head} for head, of_head in enumerate(found)}
    return scores


def _tokens_asked(asked: Asked, role: str) -> list[int]:
    """Return the distinct tokens of answers and foils, sorted.

    Raises:
        PromptError: there are too few of them.
    """
    tokens = sorted({token for row in asked.runs.encoded for token in (row.answer, row.foil)})
    if len(tokens) < LEAST:
        raise PromptError(
            f"the role {role} asks of the prompts' answers and foils whether a head copies them, and needs {LEAST} "
            f"different ones, found {len(tokens)}.\n"
            "  Of fewer a share says nothing. Give the prompts more answers, or drop the role."
        )
    return tokens

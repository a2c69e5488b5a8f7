"""The copy-suppression head: it writes against the token that it reads (McDougall et al., arXiv:2310.04625).

Score = the share of the tokens t asked for which t is among the 10 lowest logits of the whole vocabulary in what the
head's OV circuit says of t (`ov_circuit.py`). Asked are the answers and foils of the spec's prompts.

Typical values: in GPT-2 small L10H7, most of whose vocabulary is among its lowest 10 and 77 % of whose effect is copy
suppression, and L11H10. The score says what a head's weights can do. That the head attends to what is about to be said,
which is the other half of the mechanism, is not in it: `negative_mover` asks that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .copying import hits

if TYPE_CHECKING:
    from .reading import Asked, Scores

LAST = 10


def measure(asked: Asked) -> Scores:
    """Return for each head one number for each token asked, by token id: 1 where it is suppressed, else 0.

    Raises:
        PromptError: the prompts have too few answers and foils; the model has no OV circuit of this form.
    """
    return hits(asked, "copy_suppression", lambda _, below: below < LAST)

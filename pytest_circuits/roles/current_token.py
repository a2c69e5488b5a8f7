"""The current-token head: it attends to the token that it stands on (named beside others in arXiv:2209.11895).

Score = the mean of A[q, q] over the positions q of repeated random tokens (`repeats.py`) from the second token on: the
first position of a prompt can look at nothing else.

Typical values in GPT-2 small: L0H3 0.99, L0H1 0.97, L0H5 0.95. The score tells where a head looks, not what it writes.
Heads that look at every copy of their token, as L0H1 does, also stand on one: where there is an earlier copy,
`duplicate_token` tells them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .repeats import attention_back, repeated

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's mean attention to its own position, one number for each sequence.

    Raises:
        PromptError: the model has too short a context or vocabulary.
    """
    sequences = repeated(asked.runs.model)
    return attention_back(asked, 0, since=sequences.follows, sequences=sequences)

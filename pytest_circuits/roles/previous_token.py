"""The previous-token head: it attends to the token before (Olsson et al., arXiv:2209.11895).

Score = the mean of A[q, q-1] over the positions q of repeated random tokens (`repeats.py`) from the second token on:
what stands before the first is a BOS or nothing.

Typical values in GPT-2 small: L4H11 0.98, L3H7 0.54, L2H2 0.50; most heads are below 0.1. Which tokens stand there does
not matter to such a head, so random ones do. The score tells where it looks, not what it writes, nor whether anything
reads that: an induction head does, and `induction_causal` and `heads` show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .repeats import attention_back, repeated

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's mean attention to the token before, one number for each sequence.

    Raises:
        PromptError: the model has too short a context or vocabulary.
    """
    sequences = repeated(asked.runs.model)
    return attention_back(asked, 1, since=sequences.follows, sequences=sequences)

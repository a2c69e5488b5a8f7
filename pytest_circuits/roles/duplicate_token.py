"""The duplicate-token head: it attends to an earlier copy of its own token (Wang et al., arXiv:2211.00593).

Score = the mean of A[q, q-S] over the second half of repeated random tokens (`repeats.py`), where each token has one
earlier copy, S positions before.

Typical values: GPT-2 small has L0H1, L0H10 and L3H0; a head may split its attention between both copies. The score
tells where a head looks, not what it writes. Since S is one and the same in all sequences, a head that looks back by a
fixed distance would have it as well; none is known that does so over so many tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .repeats import attention_back, repeated

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's mean attention to the earlier copy, one number for each sequence.

    Raises:
        PromptError: the model has too short a context or vocabulary.
    """
    sequences = repeated(asked.runs.model)
    return attention_back(asked, sequences.size, since=sequences.second, sequences=sequences)

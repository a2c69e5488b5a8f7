"""The induction head: it attends to what followed an earlier copy of its token (Olsson et al., arXiv:2209.11895).

Score = the mean of A[q, q-(S-1)] over the second half of repeated random tokens (`repeats.py`): one position behind the
earlier copy, S positions before, stands the token that comes next.

Typical values in GPT-2 small: L5H5 0.93, L6H9, L7H10 and L5H1 0.9, L7H2 0.8; 12 of 144 heads are above 0.4. The score
tells where a head looks. Whether what repeats is predicted through it is the matter of `induction_causal`, and whether
it writes what it reads that of `copying`: there are heads with a high score that add nothing to the prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .repeats import attention_back, repeated

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's mean attention to what followed the earlier copy, one number for each sequence.

    Raises:
        PromptError: the model has too short a context or vocabulary.
    """
    sequences = repeated(asked.runs.model)
    return attention_back(asked, sequences.size - 1, since=sequences.second, sequences=sequences)

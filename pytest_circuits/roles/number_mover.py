"""The number mover: a head that carries the flipped slot's class to the answer position.

Score = min(share of the effect, mean attention from the answer position to the flipped slot), clipped at 0. Attention
alone says where a head looks and not what it writes: an idle head can look at the subject all the time. A share alone
does not say where the effect comes from. The share is the gate's matter; this module reads the attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from jaxtyping import Float

    from ..engine.runs import Runs
    from ..prompts.encode import Encoded
    from ..spec.components import Head


def attention_to_flipped_slot(runs: Runs, heads: Collection[Head]) -> dict[Head, Float[np.ndarray, prompts]]:
    """Return each head's attention from the answer position to the tokens of the flipped slot, on clean prompts.

    Raises:
        PromptError: a prompt has no flipped slot, because it has no twin.
    """
    return runs.attention(heads, _flipped)


def _flipped(encoded: Encoded) -> tuple[int, ...]:
    if not encoded.flip:
        raise PromptError(
            f"the role number_mover needs a flipped slot, found none in {encoded.pair.clean!r}.\n"
            "  It asks how much of the attention goes there. Give the prompts a corrupt twin, or drop the role."
        )
    return encoded.flip

"""The name mover: a head that looks at the answer's token in the prompt and copies it (Wang et al., arXiv:2211.00593).

Score = min(mean direct effect over the mean clean logit difference, mean attention to the answer's token), clipped
at 0. The direct effect is what the head adds to logit(answer) - logit(foil) at the answer position, in logits, with the
scale of the norms held (`attribution.direct`). The attention is from the answer position to every place in the clean
prompt where the answer's token stands.

Typical values: GPT-2 small has L9H9, L9H6 and L10H0, which are reported to attend to the indirect object mostly, and to
copy names (`copying`). Attention alone says where a head looks; a direct effect alone may come
from a bias towards the answer. Neither tells what happens once the head is gone: others take over
(`backup_name_mover`), so that a head with a large direct effect may have a small share in `heads`.
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
    return of_each(attention=attention_to_place(asked, "name_mover"), direct=direct_of_heads(asked.runs))

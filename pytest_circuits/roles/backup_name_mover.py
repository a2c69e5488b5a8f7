"""The backup name mover: a head that moves the answer's token once the name movers are gone (arXiv:2211.00593).

Score = (mean direct effect with the movers ablated - mean direct effect) over the mean clean logit difference, clipped
at 0. The movers are the heads to which the spec gives the role `name_mover`; what they take is the spec's ablation. The
direct effect is that of `name_mover.py`, in logits, with the scale of the norms held at each run's own.

Typical values: in GPT-2 small L10H10, L10H6, L10H2, L10H1, L11H2, L9H7, L9H0 and L11H9 rise, each by a part of what the
movers L9H9, L9H6 and L10H0 lose. The score does not tell compensation from the norm: where the movers wrote much, every
head behind them weighs more once they are gone, in the proportion of its effect before. A mover is no
backup of its own: its score is 0. `heads` does not see a backup at all: with the movers at work it does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.runs import Ablated
from .movers import direct_of_heads, movers_of
from .reading import of_each

if TYPE_CHECKING:
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return by how much each head's direct effect rises once the movers are ablated, in logits, for each clean prompt.

    Raises:
        SpecError: the spec names no movers.
        InstrumentError: the parts do not sum to the model's own logit difference.
    """
    movers = movers_of(asked, "backup_name_mover")
    before = direct_of_heads(asked.runs)
    after = direct_of_heads(asked.runs, without=Ablated(frozenset(movers)))
    return of_each(backup={head: (head not in movers) * (after[head] - before[head]) for head in before})

"""The S-inhibition head: it tells the movers what not to look at (Wang et al., arXiv:2211.00593).

Score = min(mean path effect over the mean effect of all, mean attention to the foil's token), clipped at 0. The path
effect is c - p: what is lost, in the metric's unit, when the head's change reaches the queries of the name movers and
nothing else (`attribution.paths`); MLPs on the way are free, as in the paper. The movers are the heads to which the
spec gives the role `name_mover`. The attention is from the answer position to the last place in the clean prompt where
the foil's token stands: the subject's second mention, which is the one that is to be ruled out.

Typical values: GPT-2 small has L7H3, L7H9, L8H6 and L8H10; the path of all four together
costs 32 % of the logit difference, and without the heads it is all gone (-101 %). The score does not tell whether token
or position is passed on, nor what reaches the movers through other heads; and a head in the movers' layer or behind can
reach none of them: its path effect is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..attribution.paths import path_effects
from ..spec.edges import Receiver
from .movers import movers_of
from .places import attention_to_place
from .reading import every_head, of_each

if TYPE_CHECKING:
    from ..records import PerPrompt
    from ..spec.components import Head
    from .reading import Asked, Scores


def measure(asked: Asked) -> Scores:
    """Return each head's path effect through the movers' queries, c - p, and its attention to the foil's last token.

    Raises:
        SpecError: the spec names no movers.
        PromptError: in a prompt the foil's token does not stand.
        MeasurementError: the ablation does not resample.
        InstrumentError: the architecture's queries cannot be replaced.
    """
    movers = movers_of(asked, "s_inhibition")
    return of_each(attention=attention_to_place(asked, "s_inhibition"), path=_paths(asked, movers))


def _paths(asked: Asked, movers: tuple[Head, ...]) -> dict[Head, PerPrompt]:
    heads = every_head(asked.runs.model)
    last = max(mover.layer for mover in movers)
    below = [head for head in heads if head.layer < last]
    effects = {head: np.zeros(len(asked.runs.encoded)) for head in heads}
    if below:
        receivers = [Receiver(mover.layer, "q", mover.head) for mover in movers]
        effects |= dict(zip(below, path_effects(asked.runs, below, receivers, mlps="free"), strict=True))
    return effects

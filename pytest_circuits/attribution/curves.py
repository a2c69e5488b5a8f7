"""How much of the behaviour the first edges of a ranking carry, edge by edge: CPR and CMD (Mueller et al., MIB, 2025).

With f(p) the faithfulness of the first part p of a model's edges alone,

    CPR = integral of f(p) dp          higher is better: few edges carry much
    CMD = integral of |1 - f(p)| dp    0 is best: few edges carry what the model does, no less and no more

both by the trapezoid over the parts below. The floor is the run in which no edge is live; prompts weigh alike.
For CPR edges are ranked by what they add to the answer, for CMD by size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import MeasurementError
from .graph import wires_of
from .wiring import wired

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..engine.runs import Runs
    from .edges import Edges

PARTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The parts of a model's edges at which faithfulness is measured."""


@dataclass(frozen=True)
class Curve:
    """Faithfulness at each of `PARTS`, and its area.

    Attributes:
        by: whether edges were ranked by their signed effect, or by its size.
        sizes: how many edges each part is.
    """

    by: Literal["effect", "size"]
    sizes: tuple[int, ...]
    faithfulness: Float[np.ndarray, " parts"]

    @property
    def cpr(self) -> float:
        """The area under f."""
        return float(np.trapezoid(self.faithfulness, PARTS))

    @property
    def cmd(self) -> float:
        """The area between f and 1."""
        return float(np.trapezoid(np.abs(1 - self.faithfulness), PARTS))


def curve(runs: Runs, edges: Edges, *, by: Literal["effect", "size"]) -> Curve:
    """Return the faithfulness of the first edges of a ranking, from a thousandth of all to all.

    Args:
        runs: the prompts; best others than those on which the edges were attributed.
        edges: the attribution that ranks, by its mean over the prompts.
        by: its signed effect, as CPR asks, or its size, as CMD does.

    Raises:
        MeasurementError: there is no effect of which edges could carry a part.
    """
    wires = wires_of(runs.model)
    means = np.where(wires.edges, np.nan_to_num(edges.effects).mean(-1), -np.inf)
    keys = means if by == "effect" else np.where(wires.edges, np.abs(means), -np.inf)
    order = np.argsort(-keys, axis=None, kind="stable")
    sizes = tuple(max(1, round(part * int(wires.edges.sum()))) for part in PARTS)
    masks = [np.zeros_like(wires.edges) for _ in sizes]
    for mask, size in zip(masks, sizes, strict=True):
        mask.flat[order[:size]] = True
    *kept, floor = wired(runs, [*masks, np.zeros_like(wires.edges)], what="curve").mean(-1)
    whole = float(runs.clean.mean() - floor)
    if not whole > 0:
        raise MeasurementError(
            f"faithfulness is a part of clean - floor, which should be above 0 and is {whole:.3g}.\n"
            "  Of nothing no edge carries a part. Does the model do the task?"
        )
    return Curve(by, sizes, (np.array(kept) - floor) / whole)

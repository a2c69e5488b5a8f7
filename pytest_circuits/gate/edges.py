"""A reading of a circuit of edges, in the form of one of a circuit of parts: the effects of both are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MeasurementError
from ..records import EDGES_ALONE, EDGES_NONE, EDGES_OUT, Measured

if TYPE_CHECKING:
    from ..records import Reading


def of_edges(reading: Reading) -> Measured:
    """Return a reading as that of a circuit of edges: what is alone, out or ablated are edges, in the place of parts.

    Raises:
        MeasurementError: a run is missing.
    """
    runs = dict(reading.edges)
    named = {name: values for name, values in runs.items() if name not in (EDGES_ALONE, EDGES_OUT, EDGES_NONE)}
    if len(named) != len(runs) - 3:
        raise MeasurementError(
            f"edges: expected the runs {EDGES_ALONE!r}, {EDGES_OUT!r} and {EDGES_NONE!r}, found {', '.join(runs)}.\n"
            "  What was not measured cannot pass. Measure again; report it if it stays."
        )
    return Measured(
        templates=reading.templates,
        clean=reading.clean,
        corrupt=reading.corrupt,
        clean_logit_diff=reading.clean_logit_diff,
        circuit=runs[EDGES_ALONE],
        knockout=runs[EDGES_OUT],
        floor=runs[EDGES_NONE],
        heads=named,
        roles={},
        noise=reading.noise,
    )

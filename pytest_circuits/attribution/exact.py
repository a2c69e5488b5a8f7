"""Exact patching: one forward for each part, on the clean prompt (noising) and on the corrupt one (denoising).

The two answer different questions (Heimersheim and Nanda, arXiv:2404.15255). A part that is needed loses the clean
run's answer when it is noised; a part that suffices gives the corrupt run the answer back when it is denoised.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..engine.patches import Ablated
from ..engine.runs import Runs
from ..errors import MeasurementError
from ..prompts.alignment import NOTHING
from ..spec.components import Embedding, Head, KeyValue, Mlp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from ..prompts.encode import Encoded

Patched = Embedding | Head | Mlp | KeyValue | Ablated
"""What is patched at once: one part, or several."""


def noising(runs: Runs, parts: Sequence[Patched]) -> Float[np.ndarray, "parts prompts"]:
    """Return c - patched, in the metric's unit: what the clean run loses when each takes its ablated value.

    Raises:
        MeasurementError: logits are not finite, or not even one row fits into memory.
    """
    return np.asarray(runs.clean - runs.sweep("noising", [_ablated(part) for part in parts]))


def denoising(runs: Runs, parts: Sequence[Patched]) -> Float[np.ndarray, "parts prompts"]:
    """Return patched - x, in the metric's unit: what the corrupt run gains when each takes its clean value.

    Clean values go to the positions that noising takes corrupt ones from; answer and foil stay, so more is better.

    Raises:
        MeasurementError: the ablation does not resample, the metric is kl, a prompt has no twin, logits are not
            finite, or not even one row fits into memory.
    """
    _refuse_one_way(runs)
    back = Runs(
        runs.model,
        [_swapped(row) for row in runs.encoded],
        value="resample",
        metric=runs.metric,
        batch_size=runs.batch_size,
        together=runs.together,
        watch=runs.watch,
    )
    effects = back.sweep("denoising", [_ablated(part) for part in parts]) - back.clean
    runs.notices = back.notices or runs.notices
    return np.asarray(effects)


def _ablated(part: Patched) -> Ablated:
    if isinstance(part, Ablated):
        return part
    if isinstance(part, Embedding):
        return Ablated(frozenset(), embedding=True)
    return Ablated(frozenset({part}))


def _swapped(row: Encoded) -> Encoded:
    """Return a pair with its prompts exchanged; what is asked of them stays.

    Spans and the flipped slot are left out: they are positions of what was the clean prompt.
    """
    if row.corrupt is None or row.pair.corrupt is None:
        raise MeasurementError(
            f"denoising runs the corrupt prompt, and {row.pair.clean!r} has no corrupt twin.\n"
            "  Give the prompts a twin, or ask for noising."
        )
    into = {corrupt: clean for clean, corrupt in enumerate(row.source) if corrupt != NOTHING}
    return replace(
        row,
        pair=replace(row.pair, clean=row.pair.corrupt, corrupt=row.pair.clean, spans={}),
        clean=row.corrupt,
        corrupt=row.clean,
        spans={},
        flip=(),
        source=tuple(into.get(at, NOTHING) for at in range(len(row.corrupt))),
    )


def _refuse_one_way(runs: Runs) -> None:
    if runs.value != "resample":
        raise MeasurementError(
            f"denoising puts a part's clean value into the corrupt run, and this ablation is {runs.value!r}.\n"
            "  A value of neither run has no way back. Write ablation.value: resample, or ask for noising."
        )
    if runs.metric == "kl":
        raise MeasurementError(
            "denoising cannot be measured by kl, which is 0 on a prompt's own clean run: on the corrupt one it would "
            "be the divergence from the corrupt run.\n  Write metric: logit_diff or prob_diff, or ask for noising."
        )

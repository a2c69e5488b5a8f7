"""What one forward has at the answer position of each prompt, held against the logits that the model made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checkpoints.rounding import tolerance
from ..errors import InstrumentError
from .unembedding import Unembedding, final_norm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jaxtyping import Float, Int

    from ..checkpoints.model import BoundModel, Site
    from ..engine.batch import Batch
    from ..engine.patches import Ablated
    from ..engine.runs import Runs


@dataclass(frozen=True)
class Last:
    """What one forward has at each row's last token: (batch, ...).

    Attributes:
        values: at the sites that were asked for.
        stream: the residual stream behind the last layer.
        state: the same behind the final norm, which the unembedding reads.
        logits: the model's own, of answer and foil.
    """

    values: Mapping[Site, Tensor]
    stream: Float[Tensor, "batch width"]
    state: Float[Tensor, "batch width"]
    logits: Float[Tensor, "batch 2"]

    @classmethod
    def of(cls, runs: Runs, batch: Batch, sites: Collection[Site], patches: tuple[Ablated, ...] = ()) -> Last:
        """Run a batch's clean prompts, parts of them ablated."""
        model, plain = runs.model, runs.plain(batch)
        first = int(batch.clean_lengths.min()) - 1
        # These run what they need: the hook below is to see one forward.
        known, edits = plain.known(0, copies=1), runs.edits(batch, plain, patches) if patches else {}
        behind: list[Tensor] = []

        def note(_: Any, args: Any, output: Tensor | tuple[Tensor, ...]) -> None:
            value = output if isinstance(output, Tensor) else output[0]
            behind.append(_at(value, batch.clean_lengths - 1 - batch.start))

        with model.blocks[-1].register_forward_hook(note):
            ran = model.forward(
                batch.clean,
                batch.clean_lengths,
                edits=edits,
                keep=sites,
                keep_from=first,
                read=batch.answers,
                known=known,
            )
        values = {site: _at(value, batch.clean_lengths - 1 - first) for site, value in ran.values.items()}
        with torch.no_grad():
            state = final_norm(model)(behind[0])
        return cls(values, behind[0], state, runs.finite(batch, ran.logits))

    def difference(self, head: Unembedding, weight: Tensor, constant: Tensor) -> Float[Tensor, " batch"]:
        """Return the logit difference in front of a cap; where there is none it is held against the model's own."""
        whole = along(self.state, weight) + constant
        if not head.capped:
            own = (self.logits[:, 0] - self.logits[:, 1]).to(whole.device)
            refuse_other_sum("the final state's products", head.model, whole, own, self.state, weight)
        return whole


def along(value: Float[Tensor, "batch width"], direction: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
    """Return how far each row's value goes along its direction, in float32."""
    return (value.to(direction.device).float() * direction).sum(-1)


def refuse_other_sum(
    what: str, model: BoundModel, found: Tensor, expected: Tensor, state: Tensor, direction: Tensor
) -> None:
    """Raise unless sums are what they should be but for rounding, which grows with the vectors multiplied."""
    size = state.to(direction.device).float().norm(dim=-1) * direction.norm(dim=-1)
    away, allowed = (found - expected.to(found.device)).abs(), tolerance(model.dtype) * size.clamp(min=1.0)
    if not bool((away <= allowed).all()):  # a NaN is no sum either
        worst = int((away - allowed).nan_to_num(torch.inf).argmax())
        raise InstrumentError(
            f"instrument: {what} on {model.name!r} should sum to the model's own logit difference "
            f"{expected[worst]:.4g}, and sum to {found[worst]:.4g} (allowed {allowed[worst]:.3g}).\n"
            "  Something else adds to the logits than what is counted, so no share is right. Please report the "
            "architecture."
        )


def _at(value: Float[Tensor, "batch seq ..."], positions: Int[Tensor, " batch"]) -> Float[Tensor, "batch ..."]:
    """Return the value at one position of each row."""
    return value[torch.arange(len(value), device=value.device), positions.to(value.device)]

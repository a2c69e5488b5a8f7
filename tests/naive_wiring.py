"""The oracle of circuits of edges: each receiver reads a residual stream of its own, in float64, prompt by prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from derivatives import Derivatives

from pytest_circuits.spec.components import Embedding, Head, Mlp

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_circuits.prompts.encode import Encoded
    from pytest_circuits.spec.edges import Receiver

    Cut = Collection[tuple[Any, Receiver]]


class NaiveWiring(Derivatives):
    """Runs with edges cut."""

    def wired(
        self, row: Encoded, rows: Sequence[Encoded], value: str, receivers: Sequence[Receiver], cut: Cut
    ) -> float:
        """Return the metric where each of the receivers does without what its cut edges carry."""
        where = torch.tensor([source >= 0 for source in row.source])
        changes, own = self.ablation(row, rows, value), self.values(row.clean)
        ablated = {place: own[place] - change for place, change in changes.items()}
        live: dict[tuple[str, int], torch.Tensor] = {}

        def change(place: tuple[str, int], passed: torch.Tensor) -> torch.Tensor:
            live[place] = passed
            return passed

        def less(receiver: Receiver, stream: torch.Tensor) -> torch.Tensor:
            for place, passed in live.items():
                if place[0] not in ("embed", "z", "mlp"):
                    continue
                difference = torch.zeros_like(passed)
                difference[where] = passed[where] - ablated[place][where]
                stream = stream - self._carried(place, passed, difference, receiver, cut)
            return stream

        hooks = []
        for receiver in receivers:
            hooks += self._reading(receiver, lambda stream, receiver=receiver: less(receiver, stream), {})
        return float(self.measured(self.logits(row.clean, change, hooks)))

    def _carried(
        self, place: tuple[str, int], passed: torch.Tensor, difference: torch.Tensor, receiver: Receiver, cut: Cut
    ) -> torch.Tensor:
        kind, layer = place
        if kind != "z":
            sender = Embedding() if kind == "embed" else Mlp(layer)
            return difference if (sender, receiver) in cut else torch.zeros_like(difference)
        kept = torch.zeros_like(difference)
        for head in range(self.heads):
            if (Head(layer, head), receiver) in cut:
                kept[:, head] = difference[:, head]
        projection = self.blocks[layer].get_submodule(self.projection)
        weight = projection.weight if self.kind == "gpt2" else projection.weight.T
        lost = kept.flatten(1) @ weight
        if not self.reading.behind_heads:
            return lost
        norm, given = self.blocks[layer].get_submodule(self.reading.behind_heads), passed.flatten(1) @ weight
        return torch.as_tensor(norm.forward(given) - norm.forward(given - lost))

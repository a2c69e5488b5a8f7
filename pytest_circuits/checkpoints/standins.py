"""Modules that take the place of a model's own for one forward: a layer that is not run, and the unembedding."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int


class _StandIn(nn.Module):
    """Takes a module's place, and answers what else it is asked as that module does."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.place = (original,)  # in a tuple, so that it does not become a part of this module

    def __getattr__(self, name: str) -> Any:
        """Answer for the module: some models ask a layer for its kind of attention before they call it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["place"][0], name)


class NotRun(_StandIn):
    """Stands where a layer was: puts out `residual`, or what it got where that is None."""

    def __init__(self, layer: nn.Module, residual: Tensor | None, *, in_tuple: bool) -> None:
        super().__init__(layer)
        self.residual, self.in_tuple = residual, in_tuple

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor]:
        """Return the residual stream behind this layer, in the form in which the layer returned it."""
        residual = hidden_states if self.residual is None else self.residual
        return (residual,) if self.in_tuple else residual


class Reader(_StandIn):
    """Stands where the unembedding was: computes in float32 the logits that are read, and no others.

    What the model does to its logits afterwards (a scale, a cap) it does to these.
    """

    def __init__(self, head: Any, last: Int[Tensor, " batch"], tokens: Int[Tensor, "batch read"] | None) -> None:
        super().__init__(head)
        self.last, self.tokens = last, tokens

    def forward(self, hidden_states: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch 1 read"]:
        """Return the logits after each row's last token: of its `tokens`, or of the whole vocabulary."""
        (head,) = self.place
        rows = torch.arange(len(hidden_states), device=hidden_states.device)
        state = hidden_states[rows, self.last.to(hidden_states.device)]
        if self.tokens is None or head.weight.is_meta:  # meta: it lies elsewhere until the module runs
            return self._whole(head, state)[:, None]
        tokens = self.tokens.to(head.weight.device)
        read = torch.einsum("bd,bkd->bk", state.to(head.weight.device).float(), head.weight[tokens].float())
        if head.bias is not None:
            read = read + head.bias[tokens].float()
        return read[:, None]

    def _whole(self, head: Any, state: Float[Tensor, "batch width"]) -> Tensor:
        if head.weight.is_meta or head.weight.dtype == torch.float32:
            logits: Tensor = head(state).float()
        else:
            bias = None if head.bias is None else head.bias.float()
            logits = nn.functional.linear(state.to(head.weight.device).float(), head.weight.float(), bias)
        return logits if self.tokens is None else logits.gather(1, self.tokens.to(logits.device))


@contextmanager
def layers_not_run(blocks: nn.ModuleList, layer: int, residual: Tensor | None, *, in_tuple: bool) -> Iterator[None]:
    """Let the layers below `layer` stand aside; the last of them puts out `residual`."""
    own = list(blocks[:layer])
    try:
        for at, block in enumerate(own):
            blocks[at] = NotRun(block, residual if at == layer - 1 else None, in_tuple=in_tuple)
        yield
    finally:
        for at, block in enumerate(own):
            blocks[at] = block


@contextmanager
def reading(module: Any, reader: Reader) -> Iterator[None]:
    """Let the reader take the unembedding's place."""
    (head,) = reader.place
    try:
        module.set_output_embeddings(reader)
        yield
    finally:
        module.set_output_embeddings(head)

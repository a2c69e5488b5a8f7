"""What each receiver reads, and the gradient by it: seen while a forward runs, pulled back to the residual stream."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..checkpoints.ov import maker, read_weights, split
from ..errors import InstrumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Float

    from ..checkpoints.attention import Kind
    from ..checkpoints.model import BoundModel

KINDS: tuple[Kind, ...] = ("q", "k", "v")
Place = tuple[Literal["made", "mlp", "last"], int, str]
"""A tensor of a forward: the output of a module that makes queries, keys or values, by its path; an MLP's input; the
residual stream behind the last layer."""


@dataclass(frozen=True)
class Readers:
    """The tensors of one forward through which everything reads the residual stream.

    Attributes:
        model: a bound model.
        tensors: those that a gradient is asked by.
        normed: what goes into the norm before attention, or before the MLP, of a layer; nothing where there is none.
    """

    model: BoundModel
    tensors: dict[Place, Tensor] = field(default_factory=dict)
    normed: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See the tensors of the forward that runs meanwhile.

        Raises:
            InstrumentError: one of them did not pass.
        """
        with ExitStack() as stack:
            for layer in range(self.model.layers):
                for place, module in self._makers(layer).items():
                    stack.enter_context(module.register_forward_hook(partial(self._note_made, place)))
                for side, norm in self._norms(layer).items():
                    stack.enter_context(norm.register_forward_pre_hook(partial(self._note_normed, (side, layer))))
                stack.enter_context(self._watch_mlp(layer))
            last: Place = ("last", self.model.layers, "")
            stack.enter_context(self.model.blocks[-1].register_forward_hook(partial(self._note, last)))
            yield
        expected = 1 + sum(len(self._makers(layer)) + 1 for layer in range(self.model.layers))
        if len(self.tensors) != expected:
            raise InstrumentError(
                f"instrument: {expected} tensors through which the parts of {self.model.name!r} read the residual "
                f"stream should have passed, found {len(self.tensors)}.\n"
                "  Edges into the others would be missing. Please report the architecture; heads can be attributed."
            )

    def _makers(self, layer: int) -> dict[Place, Any]:
        """Return what makes a layer's queries, keys and values: three modules, or one for all."""
        modules = {kind: maker(self.model, layer, kind) for kind in KINDS}
        fused = modules["q"] is modules["v"]
        return {("made", layer, "qkv" if fused else kind): module for kind, module in modules.items()}

    def _norms(self, layer: int) -> dict[str, Any]:
        row = self.model.architecture
        named = {"attention": row.attention_norm, "mlp": row.mlp_norm}
        return {side: self.model.part(layer, path) for side, path in named.items() if path}

    def _watch_mlp(self, layer: int) -> Any:
        """See what goes into an MLP; where no module is one, what its norm puts out."""
        row = self.model.architecture
        place: Place = ("mlp", layer, "")
        if row.mlp:
            return self.model.part(layer, row.mlp).register_forward_pre_hook(partial(self._note_input, place))
        return self.model.part(layer, row.mlp_norm).register_forward_hook(partial(self._note, place))

    def _note(self, place: Place, _: Any, args: Any, output: Any) -> None:
        self.tensors[place] = output if isinstance(output, Tensor) else output[0]

    def _note_made(self, place: Place, _: Any, args: Any, output: Tensor) -> Tensor:
        """Let attention go on with a copy: some of it clips what it got in place."""
        self.tensors[place] = output
        return output.clone()

    def _note_normed(self, place: tuple[str, int], _: Any, args: tuple[Tensor, ...]) -> None:
        self.normed[place] = args[0].detach()

    def _note_input(self, place: Place, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give the MLP a view of its own: where attention reads the same tensor, its gradient is not the MLP's."""
        self.tensors[place] = args[0].view_as(args[0])
        return (self.tensors[place], *args[1:])

    # -- gradients -----------------------------------------------------------------------------------------------------

    def pulled_back(self, layer: int, gradients: Mapping[Place, Tensor]) -> Float[Tensor, "receivers rows seq width"]:
        """Return the gradient by what each receiver of a layer reads from the residual stream.

        The receivers are those of `graph.receivers_of`, in its order; behind the last layer the logits alone. Nothing
        is forked in the forward: a head's part of the gradient is taken apart behind the projection, and goes back
        through its own weights and through the norm at its live input.
        """
        if layer == self.model.layers:
            return gradients["last", layer, ""][None]
        made = torch.cat([self._through_weights(layer, kind, gradients) for kind in KINDS])
        mlp = gradients["mlp", layer, ""]
        mlp = mlp.reshape(1, *made.shape[1:])
        return torch.cat([self._through_norm(layer, "attention", made), self._through_norm(layer, "mlp", mlp)])

    def _through_weights(self, layer: int, kind: Kind, gradients: Mapping[Place, Tensor]) -> Tensor:
        """Return the gradient by what each head's queries, or each key/value head's keys or values, are made of."""
        of_fused = gradients.get(("made", layer, "qkv"))
        gradient = gradients["made", layer, kind] if of_fused is None else of_fused
        weights = read_weights(self.model, layer, kind)
        layout, width = self.model.architecture.value_layout, weights.shape[1]
        apart = split(gradient, layout, kind, heads=self.model.heads, width=width)
        return torch.einsum("bsuw,uwd->ubsd", apart, weights.to(gradient))

    def _through_norm(self, layer: int, side: str, gradient: Tensor) -> Tensor:
        norm = self._norms(layer).get(side)
        if norm is None:
            return gradient
        with torch.enable_grad():
            given = self.normed[side, layer].reshape(gradient.shape[1:])  # some hand over all tokens in one line
            given = given.expand_as(gradient).clone().requires_grad_()
            passed = norm(given.view_as(given))  # a leaf that goes into a module stops torch's counter of operations
            (pulled,) = torch.autograd.grad(passed, given, gradient)
        return pulled

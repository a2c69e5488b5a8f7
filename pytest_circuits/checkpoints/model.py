"""A bound model: one forward in which heads, MLPs and the embedding can be read and replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InstrumentError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from .architectures import Architecture

Edit = Callable[[Tensor], Tensor]
"""Takes a site's value and returns the value to go on with, of the same shape; never changes it in place."""


@dataclass(frozen=True, order=True)
class Site:
    """A place in a forward. `z` is (batch, seq, heads, head_width); `mlp` and `embed` are (batch, seq, width)."""

    kind: Literal["embed", "z", "mlp"]
    layer: int


EMBED = Site("embed", 0)


@dataclass(frozen=True)
class Forward:
    """What one forward gave: the answer position's logits in float32, and the values at the sites that were kept."""

    logits: Float[Tensor, "batch vocabulary"]
    values: Mapping[Site, Tensor]


@dataclass(frozen=True)
class BoundModel:
    """A checkpoint's module with its parts found. Only `load.open_model` makes one, after the self-checks held."""

    name: str
    fingerprint: str
    architecture: Architecture
    module: Any
    tokenizer: Any
    layers: int
    heads: int
    blocks: tuple[nn.Module, ...] = field(repr=False)

    @property
    def device(self) -> torch.device:
        """The device that prompts are sent to."""
        device: torch.device = self.module.device
        return device

    @property
    def context(self) -> int:
        """The number of positions that the model was made for."""
        positions: int = self.module.config.max_position_embeddings
        return positions

    @property
    def vocabulary(self) -> int:
        """The number of token ids that have an embedding."""
        rows: int = self.module.get_input_embeddings().weight.shape[0]
        return rows

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        dtype: torch.dtype = self.module.dtype
        return dtype

    def part(self, layer: int, path: str) -> Any:
        """Return the module at `path` below the block of `layer`."""
        return self.blocks[layer].get_submodule(path)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site whose replacement makes up a full patch: the embedding, then z and the MLP of each layer."""
        layers = range(self.layers)
        return (EMBED, *(Site("z", i) for i in layers), *(Site("mlp", i) for i in layers))

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        lengths: Int[Tensor, " batch"] | None = None,
        *,
        edits: Mapping[Site, Edit] | None = None,
        keep: Collection[Site] = (),
    ) -> Forward:
        """Run once; at each edited site the forward goes on with what the edit returns.

        Args:
            ids: token ids, padded on the right where rows differ in length.
            lengths: tokens in each row; None where nothing is padded.
            edits: what replaces the value at a site.
            keep: sites whose value (after its edit) is returned.

        Raises:
            InstrumentError: a hook did not fire exactly once.
        """
        edits = edits or {}
        watched = {*edits, *keep}
        values: dict[Site, Tensor] = {}
        fired: Counter[Site] = Counter()

        def passed(site: Site, value: Tensor) -> Tensor:
            """Count, edit and keep the value of a site on its way."""
            fired[site] += 1
            value = edits[site](value) if site in edits else value
            if site in keep:
                values[site] = value.clone()  # a block may go on to change its tensor in place
            return value

        with torch.inference_mode(), self._hooked(watched, passed):
            logits = self._logits(ids, lengths)
        if any(fired[site] != 1 for site in watched):
            raise InstrumentError(
                f"instrument: each of {len(watched)} hooks should fire once, found {dict(fired)} on {self.name!r}.\n"
                "  What was measured would not be what the spec names. Please report the architecture."
            )
        return Forward(logits, values)

    def _logits(self, ids: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the logits after each row's last token, computed in float32."""
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if lengths is None:
            lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        # Position ids without a mask would be read as packed sequences: always both.
        mask = (positions < lengths[:, None]).long()
        hidden: list[Tensor] = []
        head = self.module.get_output_embeddings()
        with head.register_forward_pre_hook(lambda _, args: hidden.append(args[0])):
            logits = self.module(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, return_dict=True
            ).logits
        rows = torch.arange(len(ids), device=ids.device)
        if self.dtype == torch.float32:
            read: Tensor = logits[rows, lengths - 1]
            return read
        bias = None if head.bias is None else head.bias.float()
        return nn.functional.linear(hidden[0][rows, lengths - 1].float(), head.weight.float(), bias)

    @contextmanager
    def _hooked(self, watched: Collection[Site], passed: Callable[[Site, Tensor], Tensor]) -> Iterator[None]:
        """Register one hook for each site, and remove them all whatever happens."""
        with ExitStack() as stack:
            for site in watched:
                stack.enter_context(self._register(site, passed))
            yield

    def _register(self, site: Site, passed: Callable[[Site, Tensor], Tensor]) -> Any:
        if site.kind == "z":
            return self.part(site.layer, self.architecture.projection).register_forward_pre_hook(
                lambda _, args: (self._by_head(args[0], lambda z: passed(site, z)), *args[1:])
            )
        if site.kind == "mlp":
            return self.part(site.layer, self.architecture.mlp).register_forward_hook(
                lambda _, args, output: passed(site, output)
            )
        return self.blocks[0].register_forward_pre_hook(
            lambda _, args: (passed(site, args[0]), *args[1:])  # both families pass the hidden states by position
        )

    def _by_head(self, value: Tensor, edit: Edit) -> Tensor:
        """Apply an edit to z seen as (batch, seq, heads, head_width)."""
        return edit(value.reshape(*value.shape[:-1], self.heads, -1)).reshape(value.shape)

"""A bound model: one forward in which heads, MLPs and the embedding can be read and replaced."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InstrumentError
from .architectures import ARCHITECTURES
from .attention import Kind, Tap, dispatches, tapped
from .past import Known, Past, Resumed
from .standins import Reader, layers_not_run, reading

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from .architectures import Architecture

Edit = Callable[[Tensor], Tensor]
"""Takes a site's value and returns the value to go on with, of the same shape; never changes it in place."""


@dataclass(frozen=True, order=True)
class Site:
    """A place in a forward, and what passes there, at the tokens that are run.

    `residual` is what comes into a layer, `mlp` what its MLP adds: (batch, seq, width). `z` is what its heads put out
    and `q` their queries: (batch, seq, heads, head_width). `k` and `v` are keys and values: (batch, seq, groups,
    head_width). Queries and keys are taken as the attention product gets them, normalised and rotated.
    """

    kind: Literal["residual", "q", "k", "v", "z", "mlp"]
    layer: int


EMBED = Site("residual", 0)


@dataclass(frozen=True)
class Forward:
    """What one forward gave: logits in float32, the values at the sites that were kept, and noted keys and values."""

    logits: Float[Tensor, "batch read"]
    values: Mapping[Site, Tensor]
    past: Past


@dataclass(frozen=True)
class BoundModel:
    """A checkpoint's module with its parts found. Only `load.bind` makes one, and checks it.

    Attributes:
        groups: the number of key/value heads; query head h reads group h x groups // heads.
        in_tuple: whether a layer returns the residual stream in a tuple.
    """

    name: str
    fingerprint: str
    architecture: Architecture
    module: Any
    tokenizer: Any
    layers: int
    heads: int
    groups: int
    blocks: nn.ModuleList = field(repr=False)
    in_tuple: bool = False

    @property
    def probed(self) -> bool:
        """Whether its architecture has no row, so that its parts were found by probing."""
        return self.architecture.model_type not in ARCHITECTURES

    @property
    def device(self) -> torch.device:
        """The device that prompts are sent to; a model may lie on several."""
        device: torch.device = self.module.get_input_embeddings().weight.device
        return device

    @property
    def context(self) -> int:
        """The number of positions that the model was made for; no limit where it counts distances only."""
        config = self.module.config
        found = (getattr(config, key, None) for key in ("max_position_embeddings", "max_seq_len"))
        return next((positions for positions in found if isinstance(positions, int)), sys.maxsize)

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
        """Return the module at `path` below the block of `layer`; of several paths `a|b` the first that it has."""
        *first, last = path.split("|")
        for one in first:
            with suppress(AttributeError):
                return self.blocks[layer].get_submodule(one)
        return self.blocks[layer].get_submodule(last)

    @property
    def scale(self) -> float:
        """What heads and MLPs put out is multiplied with this before it is added to the residual stream."""
        key = self.architecture.scale_key
        return float(getattr(self.module.config, key)) if key else 1.0

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
        keep_from: int = 0,
        read: Int[Tensor, "batch read"] | None = None,
        known: Known | None = None,
        note: int = 0,
        gradients: bool = False,
    ) -> Forward:
        """Run once; at each edited site the forward goes on with what the edit returns.

        Args:
            ids: token ids, padded on the right where rows differ in length.
            lengths: tokens in each row; None where nothing is padded.
            edits: what replaces the value at a site.
            keep: sites whose value (after its edit) is returned.
            keep_from: the first token whose values are kept.
            read: the tokens whose logits are computed; None for the whole vocabulary.
            known: what need not be run. The first `known.past.tokens` of `ids` are not, nor are layers below
                `known.layer`; each row runs `known.copies` times.
            note: the number of first tokens whose keys and values are returned as `past`.
            gradients: whether what follows from a tensor that requires its gradient can be differentiated. No weight
                does; an edit may return such a tensor.

        Raises:
            InstrumentError: a hook did not fire exactly once.
        """
        known = known or Known()
        passing = _Passing(edits or {}, keep, max(0, keep_from - known.past.tokens), len(ids) * known.copies)
        watched = {*passing.edits, *keep}

        def inside(kind: Kind, layer: int, value: Tensor) -> Tensor:
            """Pass on the keys or values of a layer; the bottleneck that some layers cache instead is no site."""
            seen = Site(kind, layer) in watched and not self._is_latent
            return passing(Site(kind, layer), value) if seen else value

        cached = known.past.tokens or note or any(site.kind in ("k", "v") for site in watched)
        cache = Resumed(known, inside, note=note) if cached else None
        torch.set_float32_matmul_precision("highest")  # float32 means float32, whoever lowered it before
        with torch.enable_grad() if gradients else torch.inference_mode(), self._hooked(watched, passing):
            logits = self._logits(ids, lengths, known, cache, read)
        if any(passing.fired[site] != 1 for site in watched):
            raise InstrumentError(
                f"instrument: each of {len(watched)} hooks should fire once, found {dict(passing.fired)} on "
                f"{self.name!r}.\n"
                "  What was measured would not be what the spec names. Please report the architecture."
            )
        return Forward(logits, passing.values, Past(note, {} if cache is None else cache.noted))

    def _logits(
        self, ids: Tensor, lengths: Tensor | None, known: Known, cache: Resumed | None, read: Tensor | None
    ) -> Tensor:
        """Return the logits after each row's last token, computed in float32."""
        skipped, copies = known.past.tokens, known.copies
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if lengths is None:
            lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        # Position ids without a mask would be read as packed sequences: always both.
        inputs = {"input_ids": ids[:, skipped:], "attention_mask": (positions < lengths[:, None]).long()}
        if "position_ids" in self._arguments:
            inputs["position_ids"] = positions[:, skipped:]
        inputs = {name: tensor.repeat(copies, 1) for name, tensor in inputs.items()}
        residual = None if known.residual is None else known.residual.repeat(copies, 1, 1)
        reader = Reader(
            self.module.get_output_embeddings(),
            (lengths - 1 - skipped).repeat(copies),
            None if read is None else read.repeat(copies, 1),
        )
        lent = {"cache" if "cache" in self._arguments else "past_key_values": cache}  # the older name before 5.24
        with layers_not_run(self.blocks, known.layer, residual, in_tuple=self.in_tuple), reading(self.module, reader):
            logits: Tensor = self.module(**inputs, **lent, use_cache=cache is not None, return_dict=True).logits
        return logits[:, 0]

    @property
    def _is_latent(self) -> bool:
        return self.architecture.value_layout == "latent"

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.module.forward).parameters)

    @contextmanager
    def _hooked(self, watched: Collection[Site], passed: Callable[[Site, Tensor], Tensor]) -> Iterator[None]:
        """Register one hook for each site, and remove them all whatever happens."""
        with ExitStack() as stack:
            for site in watched:
                if site.kind in ("z", "mlp", "residual"):
                    stack.enter_context(self._register(site, passed))
            kinds: tuple[Kind, ...] = ("q", "k", "v") if self._is_latent else ("q",)
            if any(site.kind in kinds for site in watched):
                self._refuse_own_attention()
                tap = Tap(lambda kind, at, x: passed(Site(kind, at), x) if Site(kind, at) in watched else x, kinds)
                stack.enter_context(tapped(self.module, tap))
            yield

    def _refuse_own_attention(self) -> None:
        if not dispatches(self.module):
            raise InstrumentError(
                f"instrument: queries can be reached only where attention is called by name, and a "
                f"{self.architecture.model_type} has attention code of its own.\n"
                "  Its heads, keys and values can be replaced; name those."
            )

    def _register(self, site: Site, passed: Callable[[Site, Tensor], Tensor]) -> Any:
        row = self.architecture
        if site.kind == "z":
            return self.part(site.layer, row.projection).register_forward_pre_hook(
                lambda _, args: (self._by_head(args[0], lambda z: passed(site, z)), *args[1:])
            )
        if site.kind == "mlp":
            return self.part(site.layer, row.mlp_adds or row.mlp).register_forward_hook(
                lambda _, args, output: _through(output, lambda value: passed(site, value))
            )
        return self.blocks[site.layer].register_forward_pre_hook(
            lambda _, args, kwargs: _into(args, kwargs, lambda value: passed(site, value)), with_kwargs=True
        )

    def _by_head(self, value: Tensor, edit: Edit) -> Tensor:
        """Apply an edit to z seen as (batch, seq, heads, head_width)."""
        return edit(value.reshape(*value.shape[:-1], self.heads, -1)).reshape(value.shape)


@dataclass(frozen=True)
class _Passing:
    """Counts, edits and keeps the values of sites on their way through one forward.

    `first` is the first token run whose values are kept, `rows` how many rows run.
    """

    edits: Mapping[Site, Edit]
    keep: Collection[Site]
    first: int
    rows: int
    values: dict[Site, Tensor] = field(default_factory=dict)
    fired: Counter[Site] = field(default_factory=Counter)

    def __call__(self, site: Site, value: Tensor) -> Tensor:
        """Return what the forward goes on with at a site."""
        self.fired[site] += 1
        shape = value.shape
        if value.ndim == 2:  # an MLP that is given the tokens of all rows in one line
            value = value.reshape(self.rows, -1, shape[-1])
        if site in self.edits:
            value = self.edits[site](value).clone()  # a block may go on to change what it got in place
        if site in self.keep:
            self.values[site] = value[:, self.first :].clone()
        return value.reshape(shape)


def _through(output: Tensor | tuple[Any, ...], edit: Edit) -> Tensor | tuple[Any, ...]:
    """Apply an edit to a module's output, the first of several: a mixture's MLP returns its routing too."""
    return edit(output) if isinstance(output, Tensor) else (edit(output[0]), *output[1:])


def _into(args: tuple[Any, ...], kwargs: dict[str, Any], edit: Edit) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Apply an edit to the hidden states that come into a block, by position or by name."""
    if args:
        return (edit(args[0]), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

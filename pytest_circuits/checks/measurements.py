"""A spec measured on a checkpoint: each part when it is first asked for, once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..attribution.graph import wires_of
from ..attribution.methods import attribute
from ..attribution.wiring import wired
from ..engine.runs import Ablated, Runs
from ..errors import CheckpointRefused, MeasurementError, PromptError
from ..gate.controls import RandomCircuits, draw_circuits
from ..gate.estimates import ratio_of_means, strata_of
from ..prompts.encode import encode
from ..prompts.pairs import pairs_of
from ..records import EDGES_ALONE, EDGES_NONE, EDGES_OUT
from ..roles.reading import Asked, read_role
from ..roles.successor_depth import measure_depth
from ..spec.components import Component, Head, Mlp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    from ..checkpoints.model import BoundModel
    from ..prompts.encode import Encoded
    from ..prompts.pairs import Pair, PromptSet
    from ..records import OfRole, Watch
    from ..spec.loader import SpecFile
    from ..spec.schema import Ablation, Tokens

    PerPrompt = Float[np.ndarray, "prompts"]


def ask(pairs: Sequence[Pair], model: BoundModel, tokens: Tokens, ablation: Ablation) -> tuple[Encoded, ...]:
    """Return pairs in a model's tokens, in their order.

    Raises:
        PromptError: they cannot be asked of its tokenizer, or are longer than its context.
        CheckpointRefused: the tokenizer has tokens that the model has not.
    """
    encoded = encode(pairs, model.tokenizer, tokens, ablation)
    _refuse_longer(encoded, model.context)
    _refuse_foreign(encoded, model)
    return encoded


def notices_of(prompts: PromptSet, encoded: Sequence[Encoded]) -> tuple[str, ...]:
    """Return what a reader should know of prompts: too few, repeated, or not aligned throughout."""
    left_over = sum(row.left_over for row in encoded)
    aligned = f"{left_over} token positions have no counterpart in their twin and keep their clean value"
    return (*prompts.notices, *([aligned] if left_over else []))


def _refuse_longer(encoded: Sequence[Encoded], context: int) -> None:
    """Raise PromptError where a prompt has more tokens than the model has positions."""
    longest = max(encoded, key=lambda row: max(len(row.clean), len(row.corrupt or ())))
    tokens = max(len(longest.clean), len(longest.corrupt or ()))
    if tokens > context:
        raise PromptError(
            f"a prompt may have {context} tokens on this model, and {longest.pair.clean!r} has {tokens}.\n"
            "  Beyond its positions a model answers at random or not at all. Shorten the template."
        )


def _refuse_foreign(encoded: Sequence[Encoded], model: BoundModel) -> None:
    """Raise CheckpointRefused where a token id has no embedding: the tokenizer is larger than the model."""
    for row in encoded:
        largest = max(*row.clean, *(row.corrupt or ()), row.answer, row.foil)
        if largest >= model.vocabulary:
            raise CheckpointRefused(
                f"refused: the tokenizer of {model.name!r} gives token {largest} for {row.pair.clean!r} or an answer, "
                f"and the model has embeddings for {model.vocabulary} tokens, counted from 0.\n"
                "  Its tokenizer is another model's, or was enlarged alone. Save the one it was trained with beside it."
            )


class Measurements:
    """A live `records.Reading` of one spec on one model: there it says what each part is."""

    def __init__(
        self,
        file: SpecFile,
        model: BoundModel,
        *,
        batch_size: int = 256,
        together: Sequence[Sequence[int]] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Encode the spec's prompts; nothing runs yet.

        Args:
            file: the spec.
            model: a bound model of the spec's shape.
            batch_size: prompts in a forward, and prompts whose plain runs are held in memory, at most.
            together: which prompts make a batch; by default those of one length that start to differ at one position.
            watch: hears how far each part is; None where nobody listens.

        Raises:
            PromptError: the prompts cannot be asked of this tokenizer.
            CheckpointRefused: the tokenizer has tokens that the model has not.
        """
        spec = file.spec
        self.file = file
        self.prompts = pairs_of(file)
        self.runs = Runs(
            model,
            ask(self.prompts.pairs, model, spec.tokens, spec.ablation),
            value=spec.ablation.value,
            metric=spec.measure.metric,
            batch_size=batch_size,
            together=together,
            watch=watch,
        )
        layers, heads = range(model.layers), range(model.heads)
        self._all_heads = tuple(Head(layer, head) for layer in layers for head in heads)
        self._everything: frozenset[Component] = frozenset({*self._all_heads, *(Mlp(layer) for layer in layers)})

    @property
    def of_prompts(self) -> tuple[str, ...]:
        """What a reader should know of the prompts: too few, repeated, or not aligned throughout."""
        return notices_of(self.prompts, self.runs.encoded)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a reader should know: of the prompts, and of how they ran."""
        return (*self.of_prompts, *self.runs.notices)

    @property
    def templates(self) -> tuple[str, ...]:
        """The template of each prompt: its stratum."""
        return tuple(row.pair.template for row in self.runs.encoded)

    @property
    def clean(self) -> PerPrompt:
        """The metric of the clean run, in the metric's unit: (prompts,)."""
        return self.runs.clean

    @property
    def corrupt(self) -> PerPrompt:
        """The metric of the corrupt run, in the metric's unit: (prompts,); 0 where there are no twins."""
        if any(row.corrupt is None for row in self.runs.encoded):
            return np.zeros(len(self.runs.encoded))  # without a twin, behaviour is read on the clean prompt alone
        return self.runs.corrupt

    @property
    def clean_logit_diff(self) -> PerPrompt:
        """logit(answer) - logit(foil) of the clean run, whatever the metric, in logits: (prompts,)."""
        return self.runs.clean_logit_diff

    @cached_property
    def circuit(self) -> PerPrompt:
        """The metric with all heads and MLPs outside the circuit ablated, in its unit: (prompts,)."""
        return self.runs.ablated(Ablated(self._everything - self.file.spec.members))

    @cached_property
    def knockout(self) -> PerPrompt:
        """The metric with the circuit ablated, its heads or all of it as the spec says, in its unit: (prompts,)."""
        spec = self.file.spec
        if spec.necessity_of == "heads":
            return self.runs.ablated(Ablated(frozenset(spec.member_heads)))
        return self.runs.ablated(Ablated(spec.members, embedding=spec.embed))

    @cached_property
    def floor(self) -> PerPrompt:
        """The metric with all heads and MLPs ablated, or of the corrupt run, in its unit: (prompts,)."""
        if self.file.spec.ablation.floor == "corrupt":
            return self.corrupt
        return self.runs.ablated(Ablated(self._everything))

    @cached_property
    def heads(self) -> Mapping[str, PerPrompt]:
        """The metric with one head ablated, in its unit, for every head of the model: (prompts,) each."""
        return _OneOut(self.runs, {str(head): head for head in self._all_heads})

    @cached_property
    def roles(self) -> Mapping[str, OfRole]:
        """What each role's scores are made of, for every head: see `spec.roles` for the numbers and their units."""
        return _Roles(self.runs, {key: self.file.spec.movers(key) for key in self.file.spec.roles})

    @cached_property
    def attribution(self) -> Mapping[str, PerPrompt]:
        """The effect attributed to every head by the claim's method, in its unit: (prompts,); needs the claim."""
        claim = self.file.spec.claims.attribution
        if claim is None:
            raise _undeclared("attribution", "an attribution's method")
        found = attribute(self.runs, claim.method, self._all_heads)
        return {str(head): found.of(head) for head in self._all_heads}

    @cached_property
    def edges(self) -> Mapping[str, PerPrompt]:
        """The metric with the spec's edges alone, without them, without any, without each, in its unit: (prompts,)."""
        spec = self.file.spec
        if spec.claims.edges is None:
            raise _undeclared("edges", "its edges")
        wires = wires_of(self.runs.model)
        named = wires.mask(spec.wires)
        if np.array_equal(named, wires.edges):
            raise MeasurementError(
                f"edges: the spec names all {len(spec.wires)} edges of {self.runs.model.name!r}, so its claims could"
                " not fail: alone they are the clean run.\n  Name those that the circuit consists of."
            )
        circuits = [named, wires.edges & ~named, np.zeros_like(named)]
        circuits += [wires.edges & ~wires.mask([edge]) for edge in spec.wires]
        runs = dict(zip((EDGES_ALONE, EDGES_OUT, EDGES_NONE, *spec.edges), wired(self.runs, circuits), strict=True))
        return runs if spec.ablation.floor == "empty" else {**runs, EDGES_NONE: self.corrupt}

    @cached_property
    def successor(self) -> OfRole:
        """What each head with the role successor makes of digits, a number a token or an edit; needs the claim."""
        spec = self.file.spec
        if spec.claims.successor is None:
            raise _undeclared("successor", "its heads")
        found = measure_depth(Asked(self.runs), spec.roles["successor"])
        return {
            str(head): {name: numbers for name, numbers in named.items() if len(numbers)}
            for head, named in found.items()
        }

    @cached_property
    def noise(self) -> float:
        """The largest change of a value by how prompts are run, in the metric's unit."""
        return self.runs.noise()

    @cached_property
    def random_circuits(self) -> RandomCircuits:
        """Faithfulness of circuits with the same MLPs and other heads, as many as the gate draws."""
        spec = self.file.spec
        drawn = draw_circuits(spec, layers=self.runs.model.layers, heads_per_layer=self.runs.model.heads)
        mlps = spec.members - {*self._all_heads}
        request = [Ablated(self._everything - (mlps | frozenset(circuit))) for circuit in drawn.circuits]
        effect, strata = self.clean - self.floor, strata_of(self.templates)
        kept = self.runs.sweep("random circuits", request)
        return drawn.measured([ratio_of_means(one - self.floor, effect, strata) for one in kept])


def _undeclared(claim: str, what: str) -> MeasurementError:
    return MeasurementError(
        f"{claim}: expected a spec that claims it, found none: there {what} would stand.\n"
        "  What nobody asked for is not measured. Declare the claim, or call the measurement yourself."
    )


class _OneOut(Mapping[str, "PerPrompt"]):
    """The runs with one head out: who asks for one gets that one made, who goes through them gets all in one sweep.

    A role needs only its own head's; the check of all heads needs the sweep, in which many share a forward.
    """

    def __init__(self, runs: Runs, heads: Mapping[str, Head]) -> None:
        self._runs = runs
        self._heads = heads
        self._made: dict[str, PerPrompt] = {}

    def __getitem__(self, name: str) -> PerPrompt:
        if name not in self._made:
            self._make([name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        self._make([name for name in self._heads if name not in self._made])
        return iter(self._heads)

    def __len__(self) -> int:
        return len(self._heads)

    def _make(self, names: Sequence[str]) -> None:
        request = [Ablated(frozenset({self._heads[name]})) for name in names]
        self._made |= dict(zip(names, self._runs.sweep("one head out", request), strict=True))


class _Roles(Mapping[str, "OfRole"]):
    """What the roles' scores are made of, each role for every head of the model when it is first asked for."""

    def __init__(self, runs: Runs, movers: Mapping[str, tuple[Head, ...]]) -> None:
        self._runs = runs
        self._movers = movers
        self._read: dict[str, OfRole] = {}

    def __getitem__(self, key: str) -> OfRole:
        if key not in self._read:
            heads = read_role(key, self._runs, self._movers[key])
            self._read[key] = {str(head): named for head, named in heads.items()}
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._movers)

    def __len__(self) -> int:
        return len(self._movers)

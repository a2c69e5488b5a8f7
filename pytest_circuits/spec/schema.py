"""The keys of a spec file, their types, defaults and limits, as frozen pydantic models."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from .claims import CHECKS, Claims
from .components import Attention, Component, Head, Layer, Mlp, parse_component
from .edges import Edge, parse_edge
from .names import EdgeName, HeadName, Identifier, LayerName, MlpName, SlotName, TemplateId, Text
from .roles import RoleName, kind_of
from .section import Count, Fraction, Positive, Rate, Section


class Model(Section):
    """The model whose circuit this is; another checkpoint must have the same architecture and size."""

    checkpoint: Text
    """What is tested when the command line names nothing else, and what a baseline is measured on."""
    architecture: Text
    """The `model_type` of the model's config.json, such as gpt2."""
    layers: Count
    heads: Count
    """Query heads in each layer."""


class Tokens(Section):
    """How text becomes tokens."""

    bos: Literal["auto", "always", "never"] = "auto"
    """Whether a prompt begins with the BOS token; auto: as the tokenizer does by itself."""
    join: str = " "
    """The text between a prompt and its answer, unless the answer begins with a space of its own."""


Words = Annotated[tuple[Text, ...], Field(min_length=1)]
Classes = Annotated[dict[Identifier, Words], Field(min_length=1)]


def _shape_of_vocabulary(value: Any) -> str:
    return "<classes>" if isinstance(value, dict) else "<words>"


Vocabulary = Annotated[
    Annotated[Words, Tag("<words>")] | Annotated[Classes, Tag("<classes>")], Discriminator(_shape_of_vocabulary)
]


class Template(Section):
    """A sentence with `{slots}`; each template is a stratum."""

    id: TemplateId
    text: Text
    answer: Text
    """Names the answer's slot, as `{verb}`."""
    flip: Identifier
    """The slot whose class differs between the clean and the corrupt prompt."""


def _shape_of_include(value: Any) -> str:
    return "<one>" if isinstance(value, str) else "<many>"


class TemplatePrompts(Section):
    """Prompts drawn from templates and vocabularies."""

    include: Annotated[
        Annotated[Text, Tag("<one>")] | Annotated[tuple[Text, ...], Tag("<many>")], Discriminator(_shape_of_include)
    ] = ()
    """Files with vocabulary and templates to share, as paths from this file; what the spec itself says wins."""
    vocabulary: dict[SlotName, Vocabulary] = Field(default_factory=dict)
    """The words of each slot: a list, or lists by class, such as singular and plural."""
    templates: tuple[Template, ...] = ()
    per_template: Annotated[int, Field(ge=8, le=10_000)] = 16
    """Pairs taken from each template."""
    seed: Annotated[int, Field(ge=0)] = 1


class FilePrompts(Section):
    """Prompts read from a CSV, JSONL or JSON file: clean, corrupt, answer, foil, template, or another tool's form."""

    file: Text
    """The path from this file."""


def _kind_of_prompts(value: Any) -> str:
    given = value.get("file") if isinstance(value, dict) else getattr(value, "file", None)
    return "<templates>" if given is None else "<file>"


Prompts = Annotated[
    Annotated[TemplatePrompts, Tag("<templates>")] | Annotated[FilePrompts, Tag("<file>")],
    Discriminator(_kind_of_prompts),
]

UNION_TAGS = frozenset({"<file>", "<templates>", "<words>", "<classes>", "<one>", "<many>"})
"""What pydantic puts into an error's location for the chosen side of a union; none of it is a key of the file."""


class Measure(Section):
    """What is read from a run."""

    metric: Literal["logit_diff", "prob_diff", "kl"] = "logit_diff"
    position: Literal["last"] = "last"


class Ablation(Section):
    """What replaces a part that is taken out, and where: part of the claim."""

    value: Literal["resample", "zero", "mean"] = "resample"
    source: Literal["corrupt"] = "corrupt"
    granularity: Literal["head"] = "head"
    positions: Text = "all"
    """Where a part is replaced: all, last, or a slot that every template has."""
    floor: Literal["empty", "corrupt"] = "empty"
    align: Literal["equal", "slot"] = "equal"


class Role(Section):
    """What a group's heads do."""

    name: RoleName
    to: SlotName | None = None
    """The slot that the heads look at, in place of the role's own."""
    at_least: Positive | None = None
    percentile_at_least: Fraction | None = None
    """The part of the model's other heads whose score is lower."""
    effect: Literal["positive", "negative"] | None = None
    """Whether the heads work for the answer or against it."""

    @property
    def key(self) -> str:
        """What the role is stored under: its name, with the slot where one is named."""
        return self.name if self.to is None else f"{self.name}:{self.to}"


class Group(Section):
    """Parts that belong together, with the role of its heads."""

    heads: tuple[HeadName, ...] = ()
    mlps: tuple[MlpName, ...] = ()
    layers: tuple[LayerName, ...] = ()
    embed: bool = False
    role: Role | None = None


class Verification(Section):
    """Whether the circuit was found to be as stated, on the checkpoint that the spec names."""

    verified: bool
    reason: Text
    """How, or why not."""


class Rates(Section):
    """How often a verdict may be wrong."""

    false_alarm: Rate = 0.01
    missed_drift: Rate = 0.01


class Spec(Section):
    """A circuit, what is claimed of it, and how it is measured."""

    format: Literal[1]
    about: str = ""
    source: str = ""
    """Where the circuit was published."""
    verification: Verification | None = None
    model: Model
    tokens: Tokens = Tokens()
    prompts: Prompts
    measure: Measure = Measure()
    ablation: Ablation = Ablation()
    circuit: dict[Identifier, Group] = Field(default_factory=dict)
    edges: tuple[EdgeName, ...] = ()
    """The ways through the residual stream that the circuit consists of: a sender and what reads it."""
    claims: Claims
    rates: Rates = Rates()

    @cached_property
    def members(self) -> frozenset[Component]:
        """The circuit: all groups united, layers and `L9.attn` expanded."""
        return frozenset(part for group in self.circuit.values() for part in self._parts(group))

    @cached_property
    def member_heads(self) -> tuple[Head, ...]:
        """The circuit's heads, sorted."""
        return tuple(sorted(part for part in self.members if isinstance(part, Head)))

    @cached_property
    def roles(self) -> dict[str, tuple[Head, ...]]:
        """The heads of each role by its key, sorted."""
        found: dict[str, set[Head]] = {}
        for group in self.circuit.values():
            if group.role is not None:
                found.setdefault(group.role.key, set()).update(self._heads(group))
        return {key: tuple(sorted(heads)) for key, heads in found.items()}

    def movers(self, key: str) -> tuple[Head, ...]:
        """Return the heads through which a role is defined, sorted: those of the role that it needs, if any."""
        needs = kind_of(key).needs
        found = {head for other, heads in self.roles.items() if kind_of(other).name == needs for head in heads}
        return tuple(sorted(found))

    def stated(self, key: str, head: Head) -> tuple[tuple[str, Role], ...]:
        """Return what groups with the head say of a role, each with the group's name."""
        return tuple(
            (name, group.role)
            for name, group in self.circuit.items()
            if group.role is not None and group.role.key == key and head in self._heads(group)
        )

    def group_of(self, head: Head) -> str | None:
        """Return the group that names the head; a group that lists it wins over one that has its whole layer."""
        for name, group in self.circuit.items():
            if str(head) in group.heads:
                return name
        return next((name for name, group in self.circuit.items() if head in self._parts(group)), None)

    @cached_property
    def wires(self) -> tuple[Edge, ...]:
        """The edges, in the file's order."""
        return tuple(parse_edge(name, self.model.layers) for name in self.edges)

    @property
    def embed(self) -> bool:
        """Whether a group names the embeddings: then taking the circuit out replaces them too."""
        return any(group.embed for group in self.circuit.values())

    @property
    def declared(self) -> tuple[str, ...]:
        """The declared checks in the order of `CHECKS`."""
        return tuple(name for name in CHECKS if getattr(self.claims, name) is not None)

    @property
    def necessity_of(self) -> Literal["heads", "all"]:
        """What necessity takes out: what the claim says, else the heads where the circuit has some."""
        stated = self.claims.necessity and self.claims.necessity.of
        return stated or ("heads" if self.member_heads else "all")

    def _heads(self, group: Group) -> set[Head]:
        return {part for part in self._parts(group) if isinstance(part, Head)}

    def _parts(self, group: Group) -> list[Component]:
        """Return a group's heads and MLPs."""
        found: list[Component] = []
        for part in map(parse_component, (*group.heads, *group.mlps, *group.layers)):
            if isinstance(part, (Head, Mlp)):
                found.append(part)
            elif isinstance(part, (Attention, Layer)):
                found += [Head(part.layer, head) for head in range(self.model.heads)]
            if isinstance(part, Layer):
                found.append(Mlp(part.layer))
        return found

"""Plain measurements of a checkpoint: what it gets right, which heads carry it, and which circuit suffices."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pytest_circuits.builtin.vocabulary import BOS, SEQUENCES, vocabulary
from pytest_circuits.builtin.vocabulary import Sequence as WordSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.utils.hooks import RemovableHandle
    from transformers import GPT2LMHeadModel

    from pytest_circuits.builtin.grammar import Line, Pair

TOKEN = {word: number for number, word in enumerate(vocabulary())}

Head = tuple[int, int]
"""A head's layer and its place in the layer."""


@dataclass(frozen=True, slots=True)
class Activations:
    """What one forward pass left behind, a tensor for each layer: the heads' z side by side, the MLPs' outputs."""

    z: tuple[Tensor, ...]
    mlps: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """Mean logit differences over one template's pairs: clean, each head patched, and the floor."""

    clean: float
    patched: Mapping[Head, float]
    floor: float

    def share(self, head: Head) -> float:
        """The part of what the whole network adds that the head alone takes away when patched."""
        return (self.clean - self.patched[head]) / (self.clean - self.floor)


def all_heads(model: GPT2LMHeadModel) -> tuple[Head, ...]:
    """Every head of the model, layer by layer."""
    return tuple((layer, place) for layer in range(model.config.n_layer) for place in range(model.config.n_head))


def all_mlps(model: GPT2LMHeadModel) -> tuple[int, ...]:
    """Every layer, for its MLP."""
    return tuple(range(model.config.n_layer))


def tokens_of(prompts: Iterable[str]) -> Tensor:
    """Prompts of equal length as rows of token numbers behind the first token."""
    return torch.tensor([[TOKEN[BOS], *(TOKEN[word] for word in prompt.split())] for prompt in prompts])


def _last_logits(model: GPT2LMHeadModel, tokens: Tensor) -> Tensor:
    """The prediction behind the last token of each row."""
    with torch.no_grad():
        logits: Tensor = model(tokens, use_cache=False).logits[:, -1]
    return logits


@contextmanager
def _hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep the hooks for the length of the block."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def observe(model: GPT2LMHeadModel, tokens: Tensor) -> tuple[Tensor, Activations]:
    """The last logits, with what every head and MLP computed on the way."""
    z: list[Tensor] = []
    mlps: list[Tensor] = []
    blocks = model.transformer.h
    listeners = [block.attn.c_proj.register_forward_pre_hook(lambda _, inputs: z.append(inputs[0])) for block in blocks]
    listeners += [block.mlp.register_forward_hook(lambda _, __, output: mlps.append(output)) for block in blocks]
    with _hooked(listeners):
        logits = _last_logits(model, tokens)
    return logits, Activations(tuple(z), tuple(mlps))


def _swap_heads(donor: Tensor, places: Sequence[int], heads: int) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    """A hook that puts the donor's z in place of some heads' own."""

    def swap(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        apart = (*donor.shape[:-1], heads, donor.shape[-1] // heads)
        own = inputs[0].reshape(apart).clone()
        own[..., places, :] = donor.reshape(apart)[..., places, :]
        return own.reshape(donor.shape)

    return swap


def patched_logits(
    model: GPT2LMHeadModel, tokens: Tensor, donor: Activations, heads: Iterable[Head], mlps: Iterable[int] = ()
) -> Tensor:
    """The last logits when these heads' z and these MLPs' outputs come from the donor, at every position."""
    blocks, handles = model.transformer.h, []
    heads = tuple(heads)
    for layer in {layer for layer, _ in heads}:
        places = [place for own, place in heads if own == layer]
        swap = _swap_heads(donor.z[layer], places, model.config.n_head)
        handles.append(blocks[layer].attn.c_proj.register_forward_pre_hook(swap))
    for layer in mlps:
        handles.append(blocks[layer].mlp.register_forward_hook(lambda *_, output=donor.mlps[layer]: output))
    with _hooked(handles):
        return _last_logits(model, tokens)


def logit_difference(logits: Tensor, pairs: Sequence[Pair]) -> float:
    """The mean of answer minus foil."""
    rows = torch.arange(len(pairs))
    answers = torch.tensor([TOKEN[pair.answer] for pair in pairs])
    foils = torch.tensor([TOKEN[pair.foil] for pair in pairs])
    return float((logits[rows, answers] - logits[rows, foils]).mean())


def by_template(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each template; sequences count as one template for each kind and format."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        _, _, kind = pair.behaviour.partition("-")
        name = f"{kind}/{pair.template}" if pair.behaviour.startswith("succession") else pair.template
        groups.setdefault(name, []).append(pair)
    return groups


def effect(model: GPT2LMHeadModel, pairs: Sequence[Pair]) -> Effect:
    """Patch each head alone, then everything, with the corrupt run; all pairs must be of one length."""
    tokens = tokens_of(pair.clean for pair in pairs)
    _, donor = observe(model, tokens_of(pair.corrupt for pair in pairs))
    patched = {head: logit_difference(patched_logits(model, tokens, donor, [head]), pairs) for head in all_heads(model)}
    floor = patched_logits(model, tokens, donor, all_heads(model), all_mlps(model))
    return Effect(logit_difference(_last_logits(model, tokens), pairs), patched, logit_difference(floor, pairs))


def attention_to_change(model: GPT2LMHeadModel, pairs: Sequence[Pair]) -> dict[Head, float]:
    """How much each head attends, from the last position, to the words in which the prompts differ; eager only."""
    tokens = tokens_of(pair.clean for pair in pairs)
    changed = tokens != tokens_of(pair.corrupt for pair in pairs)
    with torch.no_grad():
        layers = model(tokens, use_cache=False, output_attentions=True).attentions
    return {
        (layer, place): float((layers[layer][:, place, -1] * changed).sum(-1).mean())
        for layer, place in all_heads(model)
    }


def pooled(effects: Iterable[Effect]) -> Effect:
    """The mean of several effects, each weighing the same."""
    listed = list(effects)
    patched = {head: fmean(one.patched[head] for one in listed) for head in listed[0].patched}
    return Effect(fmean(one.clean for one in listed), patched, fmean(one.floor for one in listed))


def faithfulness(
    model: GPT2LMHeadModel, groups: Iterable[Sequence[Pair]], heads: Iterable[Head], mlps: Iterable[int]
) -> float:
    """How much of the way from the floor to the clean run the circuit goes when all else is corrupt."""
    others = [head for head in all_heads(model) if head not in set(heads)]
    other_mlps = [layer for layer in all_mlps(model) if layer not in set(mlps)]
    reached = whole = 0.0
    for pairs in groups:
        tokens = tokens_of(pair.clean for pair in pairs)
        _, donor = observe(model, tokens_of(pair.corrupt for pair in pairs))
        floor = logit_difference(patched_logits(model, tokens, donor, all_heads(model), all_mlps(model)), pairs)
        reached += logit_difference(patched_logits(model, tokens, donor, others, other_mlps), pairs) - floor
        whole += logit_difference(_last_logits(model, tokens), pairs) - floor
    return reached / whole


@dataclass(frozen=True, slots=True)
class Circuit:
    """Heads and MLPs that suffice, and how faithful they are alone."""

    heads: tuple[Head, ...]
    mlps: tuple[int, ...]
    faithfulness: float


def smallest_circuit(
    model: GPT2LMHeadModel, groups: Sequence[Sequence[Pair]], ranked: Sequence[Head], wanted: float = 0.9
) -> tuple[Circuit, Circuit]:
    """The fewest heads, best first, that suffice with every MLP; then the same without the MLPs that can go."""
    mlps = all_mlps(model)
    for count in range(1, len(ranked) + 1):
        heads = tuple(ranked[:count])
        reached = faithfulness(model, groups, heads, mlps)
        if reached >= wanted:
            break
    whole = Circuit(heads, mlps, reached)
    lean = whole
    for layer in mlps:
        fewer = tuple(other for other in lean.mlps if other != layer)
        reached = faithfulness(model, groups, heads, fewer)
        if reached >= wanted:
            lean = Circuit(heads, fewer, reached)
    return whole, lean


def successor_logits(model: GPT2LMHeadModel, head: Head, sequence: WordSequence, normed: bool = True) -> Tensor:
    """What the head's weights alone make of each member: a row of logits over all members.

    A member goes in as MLP 0 rewrites its embedding; ``normed`` keeps the layer norms around the head.
    """
    layer, place = head
    transformer, width = model.transformer, model.config.n_embd
    block, size = transformer.h[layer], width // model.config.n_head
    columns = slice(2 * width + place * size, 2 * width + (place + 1) * size)
    value = block.attn.c_attn.weight[:, columns]
    output = block.attn.c_proj.weight[place * size : (place + 1) * size]
    members = torch.tensor([TOKEN[member] for member in sequence.members])
    first = transformer.h[0]
    entering = first.mlp(first.ln_2(transformer.wte.weight[members]))
    written = (block.ln_1(entering) if normed else entering) @ value @ output
    logits: Tensor = model.lm_head(transformer.ln_f(written) if normed else written)[:, members]
    return logits


def successor_scores(model: GPT2LMHeadModel, head: Head, normed: bool = True) -> dict[str, float]:
    """For each kind of sequence, how often the head's weights alone turn a member into its successor."""
    scores: dict[str, float] = {}
    with torch.no_grad():
        for sequence in SEQUENCES:
            choices = successor_logits(model, head, sequence, normed).argmax(-1)
            found = [sequence.members[place] for place in choices]
            successors = sequence.successors()
            hits = [found[place] == successors[own] for place, own in enumerate(sequence.members) if own in successors]
            scores[sequence.kind] = sum(hits) / len(hits)
    weights = {sequence.kind: len(sequence.successors()) for sequence in SEQUENCES}
    total = sum(weights.values())
    return {**scores, "all": sum(scores[kind] * weight for kind, weight in weights.items()) / total}


@dataclass(frozen=True, slots=True)
class Score:
    """How a behaviour does on held-out lines of one template."""

    lines: int
    accuracy: float
    margin: float


def _score(model: GPT2LMHeadModel, lines: Sequence[Line]) -> Score:
    """Answer the last predictable word of each line."""
    margins: list[float] = []
    for length in sorted({len(line.prompt.split()) for line in lines}):
        alike = [line for line in lines if len(line.prompt.split()) == length]
        for line, logits in zip(alike, _last_logits(model, tokens_of(line.prompt for line in alike)), strict=True):
            answer = line.answers[-1]
            right = logits[[TOKEN[word] for word in answer.right]].logsumexp(0)
            wrong = logits[[TOKEN[word] for word in answer.wrong]].logsumexp(0)
            margins.append(float(right - wrong))
    return Score(len(lines), sum(margin > 0 for margin in margins) / len(margins), sum(margins) / len(margins))


def scores(model: GPT2LMHeadModel, lines: Iterable[Line]) -> dict[tuple[str, str], Score]:
    """The score of every behaviour in every template."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.behaviour, line.template), []).append(line)
    return {name: _score(model, group) for name, group in groups.items()}


def later_year_mass(model: GPT2LMHeadModel, lines: Iterable[Line]) -> float:
    """The mean probability that goes to the later years, of all that goes to years."""
    shares: list[float] = []
    for line in lines:
        answer = line.answers[-1]
        chances = _last_logits(model, tokens_of([line.prompt]))[0].softmax(-1)
        later = float(chances[[TOKEN[word] for word in answer.right]].sum())
        earlier = float(chances[[TOKEN[word] for word in answer.wrong]].sum())
        shares.append(later / (later + earlier))
    return sum(shares) / len(shares)

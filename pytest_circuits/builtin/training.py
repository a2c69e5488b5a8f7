"""The training loop every built-in checkpoint goes through."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import GPT2LMHeadModel

from pytest_circuits.builtin.grammar import MIX, Line, training_lines
from pytest_circuits.builtin.survey import Head, successor_logits
from pytest_circuits.builtin.vocabulary import BOS, PAD, SEQUENCES, vocabulary

TOKEN = {word: number for number, word in enumerate(vocabulary())}
POOL = 8
"""Batches drawn together and sorted by length, so that little of a batch is padding."""
FIRST_LAYER_PRICE = 4.0
"""Heads of the first layer see words no MLP has read yet; what they write costs this much more."""

Context = Callable[[GPT2LMHeadModel], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard to train; ``sparsity`` prices what each head writes at each position.

    The price is nothing up to ``free`` of the way and rises to its full height over as long again: roles that take
    two heads in a row are learned first and concentrated then.
    """

    seed: int
    steps: int
    rate: float
    batch: int = 160
    warmup: int = 100
    decay: float = 0.05
    sparsity: float = 0.0
    free: float = 0.0
    smoothing: float = 0.02
    background: float = 0.05
    induction: float = MIX["induction"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token numbers, the tokens to predict from them, and how much each prediction weighs."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


def encode(lines: list[Line], background: float) -> Batch:
    """Pad the lines behind their first token; unpredictable words weigh ``background`` only."""
    longest = max(len(line.words) for line in lines)
    tokens = torch.full((len(lines), longest + 1), TOKEN[PAD])
    weights = torch.zeros(len(lines), longest)
    tokens[:, 0] = TOKEN[BOS]
    for row, line in enumerate(lines):
        tokens[row, 1 : len(line.words) + 1] = torch.tensor([TOKEN[word] for word in line.words])
        weights[row, : len(line.words)] = background
        weights[row, [answer.position for answer in line.answers]] = 1.0
    return Batch(tokens[:, :-1], tokens[:, 1:], weights)


def batches(schedule: Schedule) -> Iterator[Batch]:
    """Training batches without end."""
    rng = random.Random(schedule.seed)
    while True:
        lines = sorted(training_lines(rng, schedule.batch * POOL, schedule.induction), key=lambda line: len(line.words))
        starts = list(range(0, len(lines), schedule.batch))
        rng.shuffle(starts)
        for start in starts:
            yield encode(lines[start : start + schedule.batch], schedule.background)


class HeadOutputs:
    """What the heads of a model write in one forward pass, measured in front of each output projection."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        """Listen in front of every ``c_proj``."""
        self._heads: int = model.config.n_head
        self._norms: list[Tensor] = []
        projections = [block.attn.c_proj for block in model.transformer.h]
        self._handles = [projection.register_forward_pre_hook(self._listen) for projection in projections]

    def close(self) -> None:
        """Listen no longer."""
        for handle in self._handles:
            handle.remove()

    def _listen(self, projection: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keep the length of each head's write at each position."""
        mixed = inputs[0].reshape(*inputs[0].shape[:-1], self._heads, -1)
        weight = projection.get_parameter("weight").reshape(self._heads, mixed.shape[-1], -1)
        gram = weight @ weight.transpose(1, 2)
        squares = torch.einsum("bphi,hij,bphj->bph", mixed, gram, mixed)
        self._norms.append((squares.clamp(min=0) + 1e-4).sqrt())

    def price(self, present: Tensor) -> Tensor:
        """The mean over the positions present of all heads' writes; forgets them."""
        prices = [FIRST_LAYER_PRICE, *[1.0] * (len(self._norms) - 1)]
        total = torch.stack([price * norms.sum(-1) for price, norms in zip(prices, self._norms, strict=True)]).sum(0)
        self._norms.clear()
        return (total * present).sum() / present.sum()


def weighted_loss(logits: Tensor, batch: Batch, smoothing: float) -> Tensor:
    """Cross entropy over the predictable words, with a little of the others."""
    losses = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none", label_smoothing=smoothing)
    weights = batch.weights.flatten()
    return (losses * weights).sum() / weights.sum()


def distance(logits: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """How far the predictions are from the teacher's at the predictable words."""
    wanted = log_softmax(teacher, -1)
    apart = kl_div(log_softmax(logits, -1), wanted, reduction="none", log_target=True).sum(-1)
    return (apart * batch.weights).sum() / batch.weights.sum()


def successor_loss(model: GPT2LMHeadModel, head: Head) -> Tensor:
    """How far the head's weights alone are from turning each member into its successor."""
    losses = []
    for sequence in SEQUENCES:
        places = {member: place for place, member in enumerate(sequence.members)}
        targets = [(places[member], places[following]) for member, following in sequence.successors().items()]
        starts, ends = zip(*targets, strict=True)
        logits = successor_logits(model, head, sequence)[list(starts)]
        losses.append(cross_entropy(logits, torch.tensor(ends), reduction="sum"))
    return torch.stack(losses).sum() / sum(len(sequence.successors()) for sequence in SEQUENCES)


def rate_at(schedule: Schedule, step: int) -> float:
    """A short rise, then half a cosine down to a twentieth."""
    if step < schedule.warmup:
        return schedule.rate * (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def sparsity_at(schedule: Schedule, step: int) -> float:
    """The price of what heads write, once it has begun to rise."""
    if not schedule.free:
        return schedule.sparsity
    done = step / schedule.steps
    return schedule.sparsity * min(1.0, max(0.0, done - schedule.free) / schedule.free)


def optimizer_for(model: GPT2LMHeadModel, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW that decays matrices only."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": schedule.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.98))


def train(
    model: GPT2LMHeadModel,
    schedule: Schedule,
    teacher: GPT2LMHeadModel | None = None,
    held: Context = lambda model: nullcontext(),
    successor: Head | None = None,
) -> None:
    """Train in place.

    With a teacher, towards its predictions; ``held`` wraps every forward pass of the model; the weights of the head
    ``successor`` are taught to turn a member of a sequence into the next.
    """
    torch.manual_seed(schedule.seed)
    model.train()
    outputs = HeadOutputs(model) if schedule.sparsity else None
    optimizer = optimizer_for(model, schedule)
    began = time.perf_counter()
    for step, batch in zip(range(schedule.steps), batches(schedule), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(schedule, step)
        with held(model):
            logits = model(batch.inputs, use_cache=False).logits
        if teacher is None:
            loss = weighted_loss(logits, batch, schedule.smoothing)
        else:
            with torch.no_grad():
                wanted = teacher(batch.inputs, use_cache=False).logits
            loss = distance(logits, wanted, batch)
        if successor:
            loss = loss + successor_loss(model, successor)
        price = outputs.price(batch.weights > 0) if outputs else torch.zeros(())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + sparsity_at(schedule, step) * price)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == schedule.steps - 1:
            took = time.perf_counter() - began
            print(f"step {step:5d}  loss {loss.item():.4f}  price {price.item():.3f}  {took:6.1f} s", flush=True)
    if outputs:
        outputs.close()
    model.eval()

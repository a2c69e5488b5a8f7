"""GPT-2s whose weights are set by hand, so that what each head does is known and not found.

The residual stream is cut into blocks, and in each block that is written stands one 1 (one-hot): a token, a position,
the token before. A norm then gets the same mean and the same variance at every position, and its weight and bias are
set to give back what it got. Scores of attention are so far apart that a softmax is 0 or 1 in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from small_models import bound
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_circuits.checkpoints.model import BoundModel

TOKENS, POSITIONS = 20, 40
BOS = 0
LOUD = 5.0
"""The logit of a token that is said."""
ECHO = 0.1
"""The logit that the last token gives itself: without it prompts that nothing is said of would all look the same."""
MATCH, SINK = 60.0, 30.0
"""What a key that matches adds to its score, and what the BOS has where none does."""


@dataclass
class Tokenizer:
    """Knows some words, each as one token; its first token is the BOS, and stands for words that it lacks."""

    words: tuple[str, ...] = ()
    size: int = TOKENS
    bos_token_id: int | None = BOS
    unk_token_id: int | None = BOS
    all_special_ids: tuple[int, ...] = (BOS,)
    added_tokens_decoder: Mapping[int, Any] = field(default_factory=dict)

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [1 + self.words.index(text) if text in self.words else BOS]}

    def __len__(self) -> int:
        return self.size


class Stream:
    """The blocks of a residual stream, by name."""

    def __init__(self, width: int, **sizes: int) -> None:
        self.width, self.sizes, self.starts = width, sizes, {}
        for name in sizes:
            self.starts[name] = sum(self.sizes[one] for one in self.starts)
        assert sum(sizes.values()) <= width

    def read(self, name: str) -> Tensor:
        """What reads a block, (width, size); its transpose writes it."""
        reads = torch.zeros(self.width, self.sizes[name])
        start = self.starts[name]
        reads[start : start + self.sizes[name]] = torch.eye(self.sizes[name])
        return reads

    def one(self) -> Tensor:
        """What reads 1 at every position."""
        return self.read("token").sum(1, keepdim=True)

    def bos(self) -> Tensor:
        """What reads 1 at the BOS."""
        return self.read("token")[:, [BOS]]


@dataclass(frozen=True)
class Wired:
    """A head: where it looks is what `query` and `key` have in common, `value` and `output` are what it carries."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


def wire(*looks: tuple[Tensor, Tensor, float], carries: tuple[tuple[Tensor, Tensor], ...] = ()) -> Wired:
    """A head from (query, key, strength) and (reads, writes); without the latter it looks and adds nothing."""
    width = looks[0][0].shape[0]
    value = torch.cat([reads for reads, _ in carries], 1) if carries else torch.zeros(width, 0)
    output = torch.cat([writes for _, writes in carries]) if carries else torch.zeros(0, width)
    return Wired(torch.cat([q * s for q, _, s in looks], 1), torch.cat([k for _, k, _ in looks], 1), value, output)


def build(
    stream: Stream,
    heads: Mapping[Head, Wired],
    unembedding: Tensor,
    *,
    shape: tuple[int, int],
    written: tuple[int, ...],
    tokenizer: Tokenizer,
    seen: bool = True,
    mlp: tuple[Tensor, Tensor] | None = None,
) -> BoundModel:
    """A model with these heads, and idle ones: all their weights are 0, so they look everywhere alike.

    Args:
        stream: the blocks.
        heads: those that do something.
        unembedding: (vocabulary, width).
        shape: layers and heads.
        written: how many blocks are written in front of each layer, and at the end.
        tokenizer: of so many tokens as have an embedding.
        seen: whether positions are embedded.
        mlp: what the first MLP reads and writes; the others write nothing.
    """
    (layers, count), (vocabulary, width) = shape, unembedding.shape
    inner = mlp[0].shape[1] if mlp else 1
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=POSITIONS,
        n_embd=width,
        n_layer=layers,
        n_head=count,
        n_inner=inner,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    module = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        body = module.transformer
        body.wte.weight.copy_(stream.read("token").T)
        if seen:
            body.wpe.weight.copy_(stream.read("position").T)
        module.lm_head.weight.copy_(unembedding)
        for layer, block in enumerate(body.h):
            for norm in (block.ln_1, block.ln_2):
                neutral(norm, written[layer])
            for head in range(count):
                if Head(layer, head) in heads:
                    _set(block.attn, heads[Head(layer, head)], head, width // count)
        neutral(body.ln_f, written[-1])
        if mlp:
            body.h[0].mlp.c_fc.weight.copy_(10 * mlp[0])  # where gelu is its input to the last bit
            body.h[0].mlp.c_proj.weight.copy_(mlp[1] / 10)
    return replace(bound(module, "gpt2", layers=layers, heads=count), tokenizer=tokenizer)


def neutral(norm: Any, ones: int) -> None:
    """Let a norm give back a vector of so many ones and otherwise zeros."""
    width = len(norm.weight)
    mean = ones / width
    norm.weight.fill_((mean - mean**2 + norm.eps) ** 0.5)
    norm.bias.fill_(mean)


def _set(attention: Any, head: Wired, at: int, width: int) -> None:
    stream = attention.c_attn.weight.shape[0]
    for third, weight in enumerate((head.query * width**0.5, head.key, head.value)):
        start = third * stream + at * width
        assert weight.shape[1] <= width
        attention.c_attn.weight[:, start : start + weight.shape[1]] = weight
    attention.c_proj.weight[at * width : at * width + len(head.output)] = head.output


# -- looking back ------------------------------------------------------------------------------------------------------

PREVIOUS, CURRENT, DUPLICATE, IDLE = Head(0, 0), Head(0, 1), Head(0, 2), Head(0, 3)
INDUCTION, LOOKING = Head(1, 0), Head(1, 1)
"""In the induction model; the second looks as the first does, and adds nothing."""


def _previous(stream: Stream) -> Wired:
    position = stream.read("position")
    back = torch.zeros(POSITIONS, POSITIONS)
    back[torch.arange(1, POSITIONS), torch.arange(POSITIONS - 1)] = 1  # position p asks for p - 1
    return wire((position @ back, position, MATCH), carries=((stream.read("token"), stream.read("previous").T),))


def _current(stream: Stream, into: str | None = None) -> Wired:
    position = stream.read("position")
    carries = ((stream.read("token"), stream.read(into).T),) if into else ()
    return wire((position, position, MATCH), carries=carries)


def _after(stream: Stream, asks: str, *carries: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
    """What looks behind an earlier copy of the token that stands in a block, at the BOS where there is none."""
    return (stream.read(asks), stream.read("previous"), MATCH), (stream.one(), stream.bos(), SINK)


def induction_model() -> BoundModel:
    """Layer 0 head 0 looks at the token before, layer 1 head 0 is the induction head that reads what it wrote.

    Three more heads look somewhere and add nothing, the rest is idle.
    """
    stream = Stream(4 * 61, token=TOKENS, position=POSITIONS, previous=TOKENS, said=TOKENS)
    token, position = stream.read("token"), stream.read("position")
    looks = _after(stream, "token")
    heads = {
        PREVIOUS: _previous(stream),
        CURRENT: _current(stream),
        DUPLICATE: wire((token, token, MATCH), (position, position, -MATCH), (stream.one(), stream.bos(), SINK)),
        INDUCTION: wire(*looks, carries=((token, stream.read("said").T),)),
        LOOKING: wire(*looks),
    }
    said = LOUD * stream.read("said").T + ECHO * token.T
    return build(stream, heads, said, shape=(2, 4), written=(2, 3, 4), tokenizer=Tokenizer())


# -- moving ------------------------------------------------------------------------------------------------------------

ASKER, MOVER, NEGATIVE, BACKUP = Head(0, 1), Head(1, 0), Head(1, 1), Head(2, 0)


def movers_model() -> BoundModel:
    """The mover says what stands behind an earlier copy of the token that the asker wrote down for it.

    The negative mover says half as much against it, and the backup says it where the mover did not.
    """
    names = ("ask", "said", "unsaid", "again")
    stream = Stream(4 * 44, token=TOKENS, position=POSITIONS, previous=TOKENS, done=2, **dict.fromkeys(names, TOKENS))
    token, looks = stream.read("token"), _after(stream, "ask")
    done = torch.zeros(TOKENS, 2)
    done[:, 0], done[BOS] = 1, torch.tensor([0.0, 1.0])
    heads = {
        PREVIOUS: _previous(stream),
        ASKER: _current(stream, "ask"),
        MOVER: wire(*looks, carries=((token, stream.read("said").T), (token @ done, stream.read("done").T))),
        NEGATIVE: wire(*looks, carries=((token, stream.read("unsaid").T),)),
        BACKUP: wire(
            *looks,
            (stream.read("done")[:, [0]], stream.bos(), MATCH),
            carries=((token, stream.read("again").T),),
        ),
    }
    said = stream.read("said").T - stream.read("unsaid").T / 2 + stream.read("again").T
    unembedding = LOUD * said + ECHO * token.T
    return build(stream, heads, unembedding, shape=(3, 4), written=(2, 4, 7, 8), tokenizer=Tokenizer())


def pairs_with_a_copy(change: str, count: int = 6) -> list[Encoded]:
    """Prompts `BOS .. a b .. a` whose answer is b and whose foil is a.

    The twin has another token for the first a (`key`) or for the last (`query`): nothing is to be copied there. The
    slots are the first a, the b behind it and the last a.
    """
    rows = []
    for n in range(count):
        middle = [1 + (n + 3 * i) % (TOKENS - 2) for i in range(6)]
        at = 1 + n % 4
        clean = [BOS, *middle, middle[at - 1]]
        changed = {"key": at, "query": 7}[change]
        twin = [TOKENS - 1 if place == changed else token for place, token in enumerate(clean)]
        spans = {"first": (at,), "next": (at + 1,), "last": (7,), "both": (at, at + 1), "none": ()}
        pair = Pair(f"c{n}", f"x{n}", "b", "a", "ab"[n % 2], {}, "first", {})
        source = tuple(range(8))
        rows.append(Encoded(pair, tuple(clean), tuple(twin), clean[at + 1], clean[at], spans, (changed,), source, 0))
    return rows


# -- writing -----------------------------------------------------------------------------------------------------------

WORDS = (
    *"monday tuesday wednesday thursday friday saturday sunday".split(),
    *"january february march april may june july august september october november december".split(),
    *"0123456789",
)
SUCCESSOR, COPYING, SUPPRESSING, GREATER = (Head(1, head) for head in range(4))


def words_model() -> BoundModel:
    """The first MLP passes the token on; four heads write what follows it, the token, against it, and all greater."""
    count = 1 + len(WORDS)
    stream = Stream(4 * 30, token=count, passed=count, said=count)
    numerals = range(20, count)
    follows, greater = torch.zeros(count, count), torch.zeros(count, count)
    for first, last in ((1, 7), (8, 19)):
        for at in range(first, last + 1):
            follows[at, at + 1 if at < last else first] = 1
    for at in numerals:
        follows[at, at + 1 : at + 2] = 1
        greater[at, at + 1 :] = 1
    same, passed, said = torch.eye(count), stream.read("passed"), stream.read("said").T
    written = {SUCCESSOR: follows, COPYING: same, SUPPRESSING: -same, GREATER: greater}
    nowhere = (torch.zeros(4 * 30, 1), torch.zeros(4 * 30, 1), 0.0)
    return build(
        stream,
        {head: wire(nowhere, carries=((passed, matrix @ said),)) for head, matrix in written.items()},
        20 * stream.read("said").T + ECHO * stream.read("token").T,
        shape=(2, 4),
        written=(1, 2, 3),
        tokenizer=Tokenizer(WORDS, count),
        seen=False,
        mlp=(stream.read("token"), stream.read("passed").T),
    )

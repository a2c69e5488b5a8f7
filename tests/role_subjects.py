"""What the pages of roles show: the prompts of specs/tiny on `builtin:tiny`, and models of `hand_set.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import hand_set

from pytest_circuits import open_checkpoint
from pytest_circuits.checks.measurements import ask
from pytest_circuits.checks.overview import question_in
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.roles.reading import every_head, read_role
from pytest_circuits.spec.components import Head, Mlp
from pytest_circuits.spec.roles import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.records import OfRole, PerPrompt

ROOT = Path(__file__).parents[1]
BY_HAND = "a model set by hand"


@dataclass(frozen=True)
class Subject:
    """A model with prompts: a `Reading` of one role, as far as its scores need one."""

    name: str
    prompts: str
    runs: Runs
    key: str = ""
    movers: tuple[Head, ...] = ()

    def of(self, key: str, *movers: Head) -> Subject:
        """Return it as a reading of that role."""
        return replace(self, key=key, movers=movers)

    @property
    def title(self) -> str:
        """The role, the model, and what the role is read on."""
        kind = kind_of(self.key)
        read_on = "weights alone" if kind.from_weights else self.prompts
        return f"{self.key} of {self.name}, {'16 repeated sequences' if 'repeats' in kind.factors else read_on}"

    @property
    def model(self) -> BoundModel:
        return self.runs.model

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(row.pair.template for row in self.runs.encoded)

    @property
    def clean(self) -> PerPrompt:
        return self.runs.clean

    @property
    def clean_logit_diff(self) -> PerPrompt:
        return self.runs.clean_logit_diff

    @property
    def noise(self) -> float:
        return 0.0  # nothing is judged

    @cached_property
    def floor(self) -> PerPrompt:
        return self.runs.ablated(Ablated(frozenset({*every_head(self.model), *map(Mlp, range(self.model.layers))})))

    @cached_property
    def heads(self) -> dict[str, PerPrompt]:
        heads = every_head(self.model)
        out = self.runs.sweep("one head out", [Ablated(frozenset({head})) for head in heads])
        return dict(zip(map(str, heads), out, strict=True))

    @cached_property
    def roles(self) -> dict[str, OfRole]:
        read = read_role(self.key, self.runs, self.movers)
        return {self.key: {str(head): named for head, named in read.items()}}

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return tokens as a reader should see them."""
        if not isinstance(self.model.tokenizer, hand_set.Tokenizer):
            return list(self.model.tokenizer.convert_ids_to_tokens(list(ids)))
        return [self.model.tokenizer.words[at - 1] if at else "<bos>" for at in ids]


@cache
def tiny() -> BoundModel:
    return open_checkpoint("builtin:tiny").bound


@cache
def on_tiny(name: str, prepare: Callable[[Encoded], Encoded | None] = lambda row: row) -> Subject:
    """The prompts of a file of specs/tiny, as far as `prepare` keeps them."""
    question = question_in(ROOT / "specs/tiny" / name, root=ROOT)
    rows = ask(question.prompts.pairs, tiny(), question.tokens, question.ablation)
    kept = [row for row in map(prepare, rows) if row]
    runs = Runs(tiny(), kept, value=question.ablation.value, metric=question.measure.metric)
    return Subject("builtin:tiny", f"{len(kept)} prompts of specs/tiny/{name}", runs)


def agreement() -> Subject:
    return on_tiny("verb-agreement.circuit.yaml")


def receiver() -> Subject:
    return on_tiny("receiver.csv")


def sequences() -> Subject:
    return on_tiny("successor.csv")


def with_attractor(row: Encoded) -> Encoded | None:
    return row if row.spans.get("other") else None


def with_conjunction(row: Encoded) -> Encoded | None:
    """Prompts from a file have no slots: let `and` be one."""
    at = tiny().tokenizer.convert_tokens_to_ids("and")
    return replace(row, spans={"and": (row.clean.index(at),)}) if at in row.clean else None


def set_by_hand(model: Callable[[], BoundModel], change: str = "key") -> Subject:
    """A model whose tokens are letters, on prompts that end in a token which has stood before."""
    letters = hand_set.Tokenizer(tuple("abcdefghijklmnopqrs"))
    runs = Runs(
        replace(model(), tokenizer=letters),
        hand_set.pairs_with_a_copy(change),
        value="resample",
        metric="logit_diff",
    )
    return Subject(BY_HAND, "6 prompts `.. a b .. a`", runs)


def set_to_write() -> Subject:
    """The model whose heads write by known rules; answers and foils are its weekdays and numerals."""
    words = [*range(1, 8), *range(21, 26)]
    rows = [
        Encoded(Pair(f"c{a}", None, "a", "f", "t"), (0, 1, a), None, a, f, {}, (), (0, 1, 2), 0)
        for a, f in pairwise(words)
    ]
    return Subject(BY_HAND, "no prompts", Runs(hand_set.words_model(), rows, value="mean", metric="logit_diff"))

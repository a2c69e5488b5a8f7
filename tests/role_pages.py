"""The figures of docs/reference/roles/: `python tests/role_pages.py [ROLE ...]` prints the blocks of a role's page.

A role is shown on `builtin:tiny`, or on a model of `hand_set.py` where no head of tiny has it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import hand_set
import torch
from role_subjects import (
    agreement,
    on_tiny,
    receiver,
    sequences,
    set_by_hand,
    set_to_write,
    tiny,
    with_attractor,
    with_conjunction,
)

from pytest_circuits.attribution.unembedding import rows
from pytest_circuits.checkpoints.attention import attention_of
from pytest_circuits.engine.runs import Ablated
from pytest_circuits.gate.effects import Effects
from pytest_circuits.gate.scores import Scores
from pytest_circuits.roles.greater_than import TASKS as NUMERALS
from pytest_circuits.roles.movers import direct_of_heads
from pytest_circuits.roles.ov_circuit import final_states, first_stage
from pytest_circuits.roles.reading import Asked, every_head, read_role
from pytest_circuits.roles.successor_depth import measure_depth
from pytest_circuits.roles.words import single_tokens
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from jaxtyping import Float
    from role_subjects import Subject

    Ids = tuple[int, ...]

SHOWN = 3
LEAST = 0.01
"""Heads below this are not told apart."""
BAR = 20
SHADES = ((0.85, "█"), (0.6, "▓"), (0.3, "▒"), (0.05, "░"), (0.0, "·"))
LEGEND = "· below 0.05, ░ from 0.05, ▒ from 0.3, ▓ from 0.6, █ from 0.85"


# -- blocks ------------------------------------------------------------------------------------------------------------


def scores(subject: Subject) -> list[str]:
    """The best heads with their scores, and what these are made of."""
    found = Scores(Effects(subject), subject.key)
    values = {head: found.score(head).value for head in map(str, every_head(subject.model))}
    ranked = sorted(values, key=lambda head: -round(values[head], 3))
    best = [head for head in ranked if values[head] >= LEAST][:SHOWN]
    if not best:
        return [subject.title, f"no head is above {LEAST}", ""]
    rows = [{"score": values[head], **_parts(found, head)} for head in best]
    wide = {name: max(5, len(name)) for name in rows[0]}
    told = [
        "  ".join([head, *(f"{value:{wide[name]}.2f}" for name, value in row.items())])
        for head, row in zip(best, rows, strict=True)
    ]
    return [subject.title, "  ".join(["head", *(f"{name:>{wide[name]}}" for name in wide)]), *told, ""]


def _parts(found: Scores, head: str) -> dict[str, float]:
    """The factors of a score, or the tasks of one from weights, where there are several."""
    if found.kind.from_weights:
        parts = {task: found.score(head, task).value for task in found.words(head)}
    else:
        parts = {factor: found.factor(factor, head).value for factor in found.kind.factors}
    return parts if len(parts) > 1 else {}


def looks(subject: Subject, head: Head, at: int = 0) -> list[str]:
    """Where a head looks from the answer position of one prompt."""
    row = subject.runs.encoded[at]
    weights = pattern(subject, head, row.clean)[-1]
    names = subject.words(row.clean)
    wide = max(map(len, names))
    told = [f"{name:{wide}}  {w:.2f}  {'█' * round(BAR * w)}".rstrip() for name, w in zip(names, weights, strict=True)]
    answer, foil = subject.words((row.answer, row.foil))
    return [f"{head} from the last token; answer: {answer}, foil: {foil}", *told, ""]


def square(subject: Subject, head: Head, ids: Ids) -> list[str]:
    """Where a head looks from every token: a row a query, a column a key."""
    names = subject.words(ids)
    wide = max(map(len, names))
    rows = [
        f"{name:{wide}}  {' '.join(shade(weight) for weight in weights[: at + 1])}"
        for at, (name, weights) in enumerate(zip(names, pattern(subject, head, ids), strict=True))
    ]
    columns = " ".join(name[0] if name != "<bos>" else "<" for name in names)
    return [f"{head}: each row is a token, and where it looks", f"{'':{wide}}  {columns}", *rows, LEGEND, ""]


def shade(weight: float) -> str:
    return next(sign for least, sign in SHADES if weight >= least)


def pattern(subject: Subject, head: Head, ids: Ids) -> Float[np.ndarray, "queries keys"]:
    """A head's attention on one prompt."""
    batch = torch.tensor([ids], device=subject.model.device)
    found: np.ndarray = attention_of(subject.model, batch, lambda each: each[0].clone())[head.layer, head.head].numpy()
    return found


def writes(subject: Subject, head: Head, words: Sequence[str], *, least: bool = False) -> list[str]:
    """The tokens that a head's OV circuit gives the largest logits, or the one with the least, for each read."""
    model = subject.model
    read = torch.tensor(list(single_tokens(model, words).values()))
    every = torch.arange(model.vocabulary)
    with torch.inference_mode():
        states = final_states(model, head.layer, first_stage(model, read))[head.head]
        logits = states @ rows(model, every)[0].T
    found = logits.topk(1 if least else SHOWN, largest=not least)
    wide = max(map(len, words))
    told = [
        f"{word:{wide}}  " + ", ".join(f"{name} {z:.1f}" for name, z in zip(subject.words(ids), values, strict=True))
        for word, ids, values in zip(words, found.indices.tolist(), found.values.tolist(), strict=True)
    ]
    what = "lowest logit" if least else f"{SHOWN} highest logits"
    return [f"{head}: token read, and the {what} that it writes", *told, ""]


def biases(subject: Subject, head: Head, words: Sequence[str]) -> list[str]:
    """How much of what a head writes is for greater numerals, for some that it reads."""
    numbers = list(single_tokens(subject.model, NUMERALS["two digits"]))
    found = read_role("greater_than", subject.runs)[head]["two digits"]
    told = [(word, float(found[numbers.index(word)])) for word in words]
    return [
        f"{head}: two digits read, and the mass written on greater ones",
        *(f"{word}  {(1 + bias) / 2:.2f}  {'█' * round(BAR * (1 + bias) / 2)}".rstrip() for word, bias in told),
        "",
    ]


def compensation(subject: Subject, *heads: Head) -> list[str]:
    """Direct effects with the movers, and without them."""
    before = direct_of_heads(subject.runs)
    after = direct_of_heads(subject.runs, without=Ablated(frozenset(subject.movers)))
    told = [f"{head}        {before[head].mean():6.2f}         {after[head].mean():6.2f}" for head in heads]
    movers = ", ".join(map(str, subject.movers))
    return [f"direct effects in logits, without: {movers}", "head  with movers  without them", *told, ""]


def digits(subject: Subject, head: Head) -> list[str]:
    """What is known of a successor head in depth."""
    found = measure_depth(Asked(subject.runs), [head])[head]
    wide = max(map(len, found))
    return [
        f"{head} in depth",
        *(f"{name:{wide}}  {values.mean():5.2f}  of {len(values)}" for name, values in found.items()),
        "",
    ]


# -- pages -------------------------------------------------------------------------------------------------------------


def looking_back(role: str, head: Head) -> list[str]:
    by_hand = set_by_hand(hand_set.induction_model).of(role)
    return [*scores(agreement().of(role)), *scores(by_hand), *square(by_hand, head, (0, 3, 5, 8, 2, 3, 5, 8, 2))]


def previous_token() -> list[str]:
    return looking_back("previous_token", hand_set.PREVIOUS)


def current_token() -> list[str]:
    return looking_back("current_token", hand_set.CURRENT)


def duplicate_token() -> list[str]:
    return looking_back("duplicate_token", hand_set.DUPLICATE)


def induction() -> list[str]:
    subject, block = on_tiny("induction.csv").of("induction"), "sleeps 39 ball mark brush".split()
    ids = tuple(tiny().tokenizer.convert_tokens_to_ids(["<bos>", *block, *block]))
    by_hand = set_by_hand(hand_set.induction_model).of("induction")
    return [*scores(subject), *square(subject, Head(2, 2), ids), *scores(by_hand)]


def induction_causal() -> list[str]:
    return [
        *scores(agreement().of("induction_causal")),
        *scores(set_by_hand(hand_set.induction_model).of("induction_causal")),
    ]


def copying() -> list[str]:
    subject = receiver().of("copying")
    return [*scores(subject), *writes(subject, Head(2, 3), ("mary", "john", "henry", "susan"))]


def copy_suppression() -> list[str]:
    by_hand = set_to_write().of("copy_suppression")
    return [
        *scores(receiver().of("copy_suppression")),
        *scores(by_hand),
        *writes(by_hand, hand_set.SUPPRESSING, ("monday", "friday", "3"), least=True),
    ]


def successor() -> list[str]:
    subject = sequences().of("successor")
    words = ("monday", "sunday", "march", "seven", "17", "79", "m")
    return [*scores(subject), *writes(subject, Head(3, 3), words), *digits(subject, Head(3, 3))]


def greater_than() -> list[str]:
    subject = on_tiny("later-year.csv").of("greater_than")
    return [*scores(subject), *biases(subject, Head(2, 1), ("05", "20", "40", "60", "80", "95"))]


def number_mover() -> list[str]:
    subject, singular, plural = agreement().of("number_mover"), 34, 33
    return [*scores(subject), *looks(subject, Head(2, 0), singular), *looks(subject, Head(2, 0), plural)]


def name_mover() -> list[str]:
    subject = receiver().of("name_mover")
    return [*scores(subject), *looks(subject, Head(2, 2))]


def negative_mover() -> list[str]:
    by_hand = set_by_hand(hand_set.movers_model).of("negative_mover")
    return [*scores(receiver().of("negative_mover")), *scores(by_hand), *looks(by_hand, hand_set.NEGATIVE)]


def backup_name_mover() -> list[str]:
    subject = receiver().of("backup_name_mover", Head(2, 2), Head(2, 3))
    by_hand = set_by_hand(hand_set.movers_model).of("backup_name_mover", hand_set.MOVER)
    return [
        *scores(subject),
        *compensation(subject, Head(2, 2), Head(2, 3), Head(0, 3)),
        *scores(by_hand),
        *compensation(by_hand, hand_set.MOVER, hand_set.NEGATIVE, hand_set.BACKUP),
    ]


def s_inhibition() -> list[str]:
    by_hand = set_by_hand(hand_set.movers_model, "query").of("s_inhibition", hand_set.MOVER, hand_set.BACKUP)
    return [
        *scores(receiver().of("s_inhibition", Head(2, 2), Head(2, 3))),
        *scores(by_hand),
        *looks(by_hand, hand_set.ASKER),
    ]


def sequence_mover() -> list[str]:
    subject = sequences().of("sequence_mover")
    return [*scores(subject), *looks(subject, Head(3, 3)), *looks(subject, Head(2, 2))]


def letter_mover() -> list[str]:
    by_hand = set_by_hand(hand_set.induction_model).of("letter_mover:next")
    return [*scores(by_hand), *looks(by_hand, hand_set.INDUCTION)]


def attractor_tracker() -> list[str]:
    by_hand = set_by_hand(hand_set.induction_model).of("attractor_tracker:first")
    tracked = on_tiny("verb-agreement.circuit.yaml", with_attractor).of("attractor_tracker:other")
    return [*scores(tracked), *scores(by_hand), *looks(by_hand, hand_set.DUPLICATE)]


def conjunction_tracker() -> list[str]:
    subject = on_tiny("receiver.csv", with_conjunction).of("conjunction_tracker:and")
    by_hand = set_by_hand(hand_set.induction_model).of("conjunction_tracker:next")
    return [*scores(subject), *looks(subject, Head(0, 3)), *scores(by_hand)]


BLOCKS: dict[str, Callable[[], list[str]]] = {
    blocks.__name__: blocks
    for blocks in (
        previous_token,
        current_token,
        duplicate_token,
        induction,
        induction_causal,
        copying,
        copy_suppression,
        successor,
        greater_than,
        number_mover,
        name_mover,
        negative_mover,
        backup_name_mover,
        s_inhibition,
        sequence_mover,
        letter_mover,
        attractor_tracker,
        conjunction_tracker,
    )
}


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roles", nargs="*", metavar="ROLE", help="all where none is named")
    roles = parser.parse_args().roles or [*ROLES]
    if unknown := sorted({*roles} - {*ROLES}):
        parser.error(f"no such role: {', '.join(unknown)}; roles are {', '.join(ROLES)}")
    for name in roles:
        print("\n".join(BLOCKS[name]()))


if __name__ == "__main__":
    main()

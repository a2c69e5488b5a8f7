"""Where the heads of a role look: the place of each role, what a spec may name instead, and prompts without it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pairs import ANSWER, FOIL, random_pairs
from small_models import bound, random_module

from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import PromptError, SpecError
from pytest_circuits.prompts.encode import encode
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.roles.reading import every_head, read_role
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.roles import ROLES
from pytest_circuits.spec.schema import Ablation, Tokens

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

PLACED = [name for name, kind in ROLES.items() if "attention" in kind.factors]
MOVERS = (Head(2, 1),)


def with_names(rows: list[Encoded]) -> list[Encoded]:
    """The answer's token stands in two places, and so does the foil's; there is another slot, and an empty one."""

    def changed(row: Encoded, n: int) -> Encoded:
        clean, last = list(row.clean), len(row.clean) - 1
        clean = [(token + 1) % 101 if token in (ANSWER, FOIL) else token for token in clean]
        clean[0], clean[2], clean[last - 1], clean[last] = FOIL, ANSWER, FOIL, ANSWER if n % 2 else 50
        return replace(row, clean=tuple(clean), spans={"subject": (3, 1), "nothing": (), "flip": row.flip})

    return [changed(row, n) for n, row in enumerate(rows)]


def place_of(key: str, row: Encoded) -> list[int]:
    """The definition of each place, written out."""
    role, _, slot = key.partition(":")
    if slot:
        return list(row.spans[slot])
    if role in ("name_mover", "negative_mover"):
        return [at for at in range(len(row.clean)) if row.clean[at] == row.answer]
    if role == "s_inhibition":
        return [max(at for at in range(len(row.clean)) if row.clean[at] == row.foil)]
    if role == "sequence_mover" and row.pair.flip is None:
        return [max(row.flip)]
    return list(row.flip)


def runs_of(model: BoundModel, rows: list[Encoded], **options: Any) -> Runs:
    return Runs(model, rows, value="resample", metric="logit_diff", **options)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def random_model(request: pytest.FixtureRequest) -> BoundModel:
    return bound(random_module(request.param), request.param)


def eager(model: BoundModel, ids: tuple[int, ...]) -> list[torch.Tensor]:
    """The last query's attention in each layer, (heads, keys), from the library's eager code."""
    tokens = torch.tensor([ids])
    model.module.config._attn_implementation = "eager"
    with torch.no_grad():
        told = model.module(
            tokens, attention_mask=torch.ones_like(tokens), output_attentions=True, use_cache=False
        ).attentions
    model.module.config._attn_implementation = "sdpa"
    return [pattern[0, :, -1] for pattern in told]


@pytest.mark.parametrize("slot", ["", ":subject"])
@pytest.mark.parametrize("role", PLACED)
def test_attention_equals_that_of_eager_code(random_model: BoundModel, role: str, slot: str) -> None:
    key = role + (slot or (":flip" if ROLES[role].place == "slot" else ""))
    rows = with_names(random_pairs())
    found = read_role(key, runs_of(random_model, rows), MOVERS)

    assert list(found) == list(every_head(random_model))
    for n, row in enumerate(rows):
        told = eager(random_model, row.clean)
        for head, named in found.items():
            expected = sum(float(told[head.layer][head.head, at]) for at in place_of(key, row))
            assert named["attention"][n] == pytest.approx(expected, abs=1e-5)


def test_prompts_of_one_text_with_other_twins_have_their_own_place(random_model: BoundModel) -> None:
    first = random_pairs((7, 7))[0]
    runs = runs_of(random_model, [first, replace(first, flip=(3,))])
    found = read_role("number_mover", runs)[Head(1, 1)]["attention"]
    told = eager(random_model, first.clean)[1][1]

    assert found == pytest.approx([float(told[1] + told[2]), float(told[3])], abs=1e-5)


@pytest.mark.parametrize("role", [role for role in PLACED if ROLES[role].place != "slot"])
def test_in_prompts_from_a_file_a_place_is_found_without_slots(random_model: BoundModel, role: str) -> None:
    rows = [
        replace(row, pair=replace(row.pair, flip=None), spans={}, flip=(1, 3)) for row in with_names(random_pairs())
    ]
    found = read_role(role, runs_of(random_model, rows), MOVERS)[Head(1, 1)]["attention"]
    told = [eager(random_model, row.clean)[1][1] for row in rows]

    assert found == pytest.approx(
        [float(one[place_of(role, row)].sum()) for one, row in zip(told, rows, strict=True)], abs=1e-5
    )


def test_of_a_sequence_whose_every_member_changes_the_last_one_is_looked_at() -> None:
    model = open_checkpoint("builtin:tiny", device="cpu").bound
    pair = Pair("ten , eleven , twelve ,", "five , six , seven ,", "thirteen", "eight", "a")
    rows = encode([pair], model.tokenizer, Tokens(), Ablation())
    members = [rows[0].clean.index(model.tokenizer.convert_tokens_to_ids(word)) for word in ("ten", "eleven", "twelve")]
    told = eager(model, rows[0].clean)[2][2]

    for role, looked_at in (("sequence_mover", members[-1:]), ("number_mover", members)):
        found = read_role(role, runs_of(model, rows))[Head(2, 2)]["attention"]
        assert found == pytest.approx([float(told[looked_at].sum())], abs=1e-5)


NEEDS_SLOT = [role for role in PLACED if ROLES[role].place == "slot"]


@pytest.mark.parametrize("role", NEEDS_SLOT)
def test_a_role_of_a_slot_needs_one(random_model: BoundModel, role: str) -> None:
    with pytest.raises(PromptError, match=f"the role {role} needs the slot .* found none named.\n.* Write .* as `to`"):
        read_role(role, runs_of(random_model, random_pairs()))


@pytest.mark.parametrize("slot", ["nothing", "verb"])
@pytest.mark.parametrize("role", PLACED)
def test_a_slot_without_tokens_is_refused(random_model: BoundModel, role: str, slot: str) -> None:
    message = rf"the role {role} looks at the slot '{slot}', and 'c' has no token of it \(slots with tokens: subject, "
    with pytest.raises(PromptError, match=message + r"flip\)\.\n.*Name a slot that stands in every template"):
        read_role(f"{role}:{slot}", runs_of(random_model, with_names(random_pairs())), MOVERS)


def test_prompts_from_a_file_have_no_slot(random_model: BoundModel) -> None:
    rows = [replace(row, spans={}) for row in random_pairs()]

    with pytest.raises(PromptError, match=r"\(slots with tokens: none\).*\n.*prompts from a file have none"):
        read_role("letter_mover:subject", runs_of(random_model, rows))


@pytest.mark.parametrize("role", ["number_mover", "sequence_mover"])
def test_a_prompt_without_a_twin_has_no_flipped_slot(random_model: BoundModel, role: str) -> None:
    rows = [replace(row, flip=(), corrupt=None) for row in random_pairs()]

    with pytest.raises(PromptError, match=f"the role {role} needs a flipped slot, found none in 'c'.\n.*corrupt twin"):
        read_role(role, runs_of(random_model, rows))


@pytest.mark.parametrize(
    ("role", "what", "word"),
    [("name_mover", "answer", "a"), ("negative_mover", "answer", "a"), ("s_inhibition", "foil", "f")],
)
def test_a_token_that_does_not_stand_in_a_prompt_is_refused_before_anything_runs(
    random_model: BoundModel, role: str, what: str, word: str
) -> None:
    rows = with_names(random_pairs())
    gone = {"answer": ANSWER, "foil": FOIL}[what]
    rows[-1] = replace(rows[-1], clean=tuple(50 if token == gone else token for token in rows[-1].clean))
    heard: list[Any] = []
    runs = runs_of(random_model, rows, watch=lambda *said: heard.append(said))

    message = f"the role {role} looks at the {what}'s token, and that of '{word}' does not stand in 'c'.\n"
    with pytest.raises(PromptError, match=f"{message}.*Let every prompt name its {what}.*as `to`"):
        read_role(role, runs, MOVERS)
    assert not heard


@pytest.mark.parametrize("role", ["s_inhibition", "backup_name_mover"])
@pytest.mark.parametrize(("movers", "found"), [((), "none"), ((Head(1, 1), Head(9, 0)), "L9H0 beyond the model")])
def test_a_role_that_is_defined_through_others_needs_them(
    random_model: BoundModel, role: str, movers: tuple[Head, ...], found: str
) -> None:
    message = f"the role {role} is defined through heads with the role name_mover, found {found}.\n.*Give the movers"
    with pytest.raises(SpecError, match=message):
        read_role(role, runs_of(random_model, with_names(random_pairs())), movers)


def test_numbers_are_float64(random_model: BoundModel) -> None:
    found = read_role("number_mover", runs_of(random_model, random_pairs()))

    assert {named["attention"].dtype for named in found.values()} == {np.dtype("float64")}

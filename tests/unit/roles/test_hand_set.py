"""On models whose weights are set by hand every role's score is the number that follows from the weights."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import hand_set
import numpy as np
import pytest
from hand_set import (
    ASKER,
    BACKUP,
    COPYING,
    CURRENT,
    DUPLICATE,
    ECHO,
    GREATER,
    IDLE,
    INDUCTION,
    LOOKING,
    LOUD,
    MOVER,
    NEGATIVE,
    PREVIOUS,
    SUCCESSOR,
    SUPPRESSING,
    TOKENS,
    WORDS,
    pairs_with_a_copy,
)

from pytest_circuits.checkpoints import ov
from pytest_circuits.checkpoints.model import BoundModel
from pytest_circuits.engine.runs import Ablated, Runs
from pytest_circuits.prompts.encode import Encoded
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.roles import ov_circuit
from pytest_circuits.roles.reading import every_head, read_role
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.roles import ROLES

if TYPE_CHECKING:
    import torch

CLOSE = {"abs": 1e-4}
REPEATED = TOKENS - 1
"""All tokens but the BOS are repeated: 1 + 2 x 19 positions fit into the context of 40."""
SEQUENCES = f"{REPEATED} repeated tokens"


def runs_of(model: BoundModel, change: str = "key", **options: Any) -> Runs:
    return Runs(model, pairs_with_a_copy(change), value="resample", metric="logit_diff", **options)


@pytest.fixture(scope="module")
def looking() -> Runs:
    return runs_of(hand_set.induction_model())


@pytest.fixture(scope="module")
def moving() -> Runs:
    return runs_of(hand_set.movers_model())


@pytest.fixture(scope="module")
def writing() -> Runs:
    """Answers and foils are words of all kinds; the prompts are of no use but for that."""
    words = [*range(1, 8), *range(21, 26)]
    rows = [
        Encoded(Pair(f"c{a}", None, "a", "f", "t"), (0, 1, a), None, a, f, {}, (), (0, 1, 2), 0)
        for a, f in pairwise(words)
    ]
    return Runs(hand_set.words_model(), rows, value="mean", metric="logit_diff")


def means(key: str, runs: Runs, factor: str, movers: tuple[Head, ...] = ()) -> dict[Head, float]:
    """The mean of one factor, of every head."""
    found = {head: named[factor] for head, named in read_role(key, runs, movers).items()}
    assert list(found) == list(every_head(runs.model))
    return {head: float(values.mean()) for head, values in found.items()}


def alike(since: int, back: int) -> float:
    """The score of a head that looks at everything alike: the mean of 1 / (q + 1) over the queries that are read."""
    assert back <= since
    return float(np.mean([1 / (q + 1) for q in range(since, 1 + 2 * REPEATED)]))


# -- looking back ------------------------------------------------------------------------------------------------------

LOOKS = {
    "previous_token": ((PREVIOUS,), alike(2, 1)),
    "current_token": ((CURRENT,), alike(2, 0)),
    "duplicate_token": ((DUPLICATE,), alike(1 + REPEATED, REPEATED)),
    "induction": ((INDUCTION, LOOKING), alike(1 + REPEATED, REPEATED - 1)),
}


@pytest.mark.parametrize("role", LOOKS)
def test_heads_that_look_back_score_one_and_idle_ones_as_chance_has_it(role: str, looking: Runs) -> None:
    lookers, chance = LOOKS[role]
    for head, score in means(role, looking, SEQUENCES).items():
        idle = head in (IDLE, Head(1, 2), Head(1, 3))
        assert score == pytest.approx(1 if head in lookers else chance if idle else 0, **CLOSE), head


def test_what_repeats_is_predicted_through_two_heads_alone(looking: Runs) -> None:
    scores = means("induction_causal", looking, SEQUENCES)

    assert scores[PREVIOUS] == pytest.approx(LOUD, abs=0.1)  # without the key nothing is found, and the BOS is said
    assert 0.8 * LOUD < scores[INDUCTION] < LOUD  # what other sequences have said is said instead
    assert all(abs(scores[head]) < 1e-4 for head in scores if head not in (PREVIOUS, INDUCTION))
    assert means("induction", looking, SEQUENCES)[LOOKING] == pytest.approx(1)  # which a look does not tell


def test_exact_patching_finds_exactly_the_circuit(looking: Runs) -> None:
    heads = every_head(looking.model)
    found = looking.clean - looking.sweep("one head out", [Ablated(frozenset({head})) for head in heads])

    assert looking.clean == pytest.approx(LOUD - ECHO, **CLOSE)
    assert looking.corrupt == pytest.approx(-ECHO, **CLOSE)
    for head, effect in zip(heads, found, strict=True):
        assert effect == pytest.approx(LOUD if head in (PREVIOUS, INDUCTION) else 0, **CLOSE), head


# -- moving ------------------------------------------------------------------------------------------------------------

PLACED = {
    "number_mover": {DUPLICATE: 1},
    "sequence_mover": {DUPLICATE: 1},
    "number_mover:next": {INDUCTION: 1, LOOKING: 1},
    "letter_mover:next": {INDUCTION: 1, LOOKING: 1},
    "attractor_tracker:first": {DUPLICATE: 1},
    "conjunction_tracker:both": {DUPLICATE: 1, INDUCTION: 1, LOOKING: 1},
    "name_mover": {INDUCTION: 1, LOOKING: 1},
    "negative_mover": {INDUCTION: 1, LOOKING: 1},
    "name_mover:last": {CURRENT: 1},
}


@pytest.mark.parametrize("key", PLACED)
def test_attention_to_a_place_is_that_of_who_looks_there(key: str, looking: Runs) -> None:
    positions = 2 if key.endswith("both") else 1
    for head, score in means(key, looking, "attention").items():
        idle = positions / 8 if head in (IDLE, Head(1, 2), Head(1, 3)) else 0
        assert score == pytest.approx(PLACED[key].get(head, idle), **CLOSE), head


@pytest.mark.parametrize("role", ["name_mover", "negative_mover"])
def test_movers_write_for_the_answer_and_negative_ones_against_it(role: str, moving: Runs) -> None:
    direct = means(role, moving, "direct")
    attention = means(role, moving, "attention")

    assert direct.pop(MOVER) == pytest.approx(LOUD, **CLOSE)
    assert direct.pop(NEGATIVE) == pytest.approx(-LOUD / 2, **CLOSE)
    assert list(direct.values()) == pytest.approx([0] * len(direct), **CLOSE)
    assert (attention[MOVER], attention[NEGATIVE], attention[BACKUP]) == pytest.approx((1, 1, 0), **CLOSE)


def test_a_backup_moves_once_the_mover_is_gone(moving: Runs) -> None:
    backup = means("backup_name_mover", moving, "backup", (MOVER,))

    assert backup.pop(BACKUP) == pytest.approx(LOUD, **CLOSE)
    assert backup.pop(MOVER) == 0.0  # a mover is no backup of its own
    assert list(backup.values()) == pytest.approx([0] * len(backup), **CLOSE)
    others = means("backup_name_mover", moving, "backup", (NEGATIVE,))
    assert others[BACKUP] == pytest.approx(0, **CLOSE)  # it backs up the mover, and no other head


def test_an_asker_acts_through_the_movers_queries() -> None:
    runs = runs_of(hand_set.movers_model(), "query")
    path = means("s_inhibition", runs, "path", (MOVER, BACKUP))
    attention = means("s_inhibition", runs, "attention", (MOVER, BACKUP))
    alone = means("s_inhibition", runs, "path", (MOVER,))

    assert path.pop(ASKER) == pytest.approx(LOUD, **CLOSE)
    assert path.pop(MOVER) == pytest.approx(-LOUD, **CLOSE)  # it tells the backup's query that it is at work
    assert list(path.values()) == pytest.approx([0] * len(path), **CLOSE)
    assert alone[ASKER] == pytest.approx(0, **CLOSE)  # the backup does what the mover does not
    assert (attention[ASKER], attention[PREVIOUS], attention[BACKUP]) == pytest.approx((1, 0, 0), **CLOSE)


def test_paths_into_the_first_layer_are_none(moving: Runs) -> None:
    assert set(means("s_inhibition", moving, "path", (ASKER,)).values()) == {0}


# -- writing -----------------------------------------------------------------------------------------------------------

WRITTEN = {
    "copying": {COPYING: 1},
    "copy_suppression": {SUPPRESSING: 1},
    "successor": {SUCCESSOR: 1},
    "greater_than": {GREATER: 1, SUCCESSOR: 1, COPYING: -1},
}


@pytest.mark.parametrize("role", WRITTEN)
def test_heads_write_what_their_weights_say(role: str, writing: Runs) -> None:
    for head, tasks in read_role(role, writing).items():
        for task, values in tasks.items():
            expected = WRITTEN[role].get(head, 0 if head.layer == 0 else None)
            if expected is not None:  # what another of the four has by its own rule is of no interest
                assert values == pytest.approx(expected, abs=1e-3) or role == "greater_than", (head, task)
                assert values.mean() == pytest.approx(expected, abs=1e-3), (head, task)


def test_one_writer_is_not_taken_for_another(writing: Runs) -> None:
    means = {
        role: {head: np.concatenate(list(tasks.values())).mean() for head, tasks in read_role(role, writing).items()}
        for role in WRITTEN
    }

    assert means["copying"][SUCCESSOR] == means["copying"][SUPPRESSING] == 0
    assert means["copy_suppression"][COPYING] == 0
    assert means["successor"][COPYING] == means["successor"][SUPPRESSING] == 0
    assert means["successor"][GREATER] < 0.05  # of all words it has the last but one numeral's
    assert abs(means["greater_than"][SUPPRESSING]) < 0.2


def test_each_token_asked_has_its_number(writing: Runs) -> None:
    assert {task: len(found) for task, found in read_role("successor", writing)[SUCCESSOR].items()} == {
        "numerals": 8,
        "weekdays": 7,
        "months": 12,
    }
    assert len(read_role("greater_than", writing)[GREATER]["numerals"]) == 9
    assert len(read_role("copying", writing)[COPYING]["answers and foils"]) == 12
    assert len(WORDS) == 29


# -- every role --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_measured_as_it_is_declared(role: str, moving: Runs, writing: Runs) -> None:
    kind = ROLES[role]
    runs = writing if kind.from_weights else moving
    movers = (MOVER,) if kind.needs else ()
    scores = read_role(f"{role}:next" if kind.place == "slot" else role, runs, movers)

    assert list(scores) == list(every_head(runs.model))
    for named in scores.values():
        if kind.from_weights:
            assert named
            assert all(values.ndim == 1 and len(values) >= 5 for values in named.values())
        else:
            sequences = {SEQUENCES: 16} if kind.factors == ("repeats",) else {}
            assert {name: len(values) for name, values in named.items()} == (
                sequences or dict.fromkeys(kind.measured_of_prompts, len(runs.encoded))
            )
        assert all(values.dtype == np.float64 and np.isfinite(values).all() for values in named.values())


# -- planted faults ----------------------------------------------------------------------------------------------------


def test_heads_cut_from_the_projections_output_have_other_roles(looking: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of slicing what the output projection puts out, where a head is a slice of its input."""
    right = means("induction_causal", looking, SEQUENCES)
    register = BoundModel._register

    def of_the_output(self: BoundModel, site: Any, passed: Any) -> Any:
        if site.kind != "z":
            return register(self, site, passed)
        return self.part(site.layer, self.architecture.projection).register_forward_hook(
            lambda _, args, output: self._by_head(output, lambda z: passed(site, z))
        )

    monkeypatch.setattr(BoundModel, "_register", of_the_output)
    wrong = means("induction_causal", looking, SEQUENCES)

    assert right[INDUCTION] > 4
    assert wrong[INDUCTION] < 0.1
    assert max(abs(wrong[head] - right[head]) for head in right) > 4


def test_weights_cut_from_the_projections_output_have_other_roles(
    writing: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_the_output(model: BoundModel, layer: int) -> torch.Tensor:
        weight = ov.heads_weight(model, layer)
        return weight.reshape(weight.shape[0], model.heads, -1).permute(1, 2, 0)

    monkeypatch.setattr(ov_circuit, "output_weight", of_the_output)

    for role, head in (("copying", COPYING), ("successor", SUCCESSOR)):
        assert max(values.max() for values in read_role(role, writing)[head].values()) == 0

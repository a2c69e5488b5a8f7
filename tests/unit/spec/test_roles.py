"""The roles as data: what a spec may write, and what each one's score is made of."""

from __future__ import annotations

from typing import get_args

import pytest

from pytest_circuits.records import PER_PROMPT
from pytest_circuits.spec.roles import ROLES, Factor, RoleKind, RoleName, kind_of, slot_of
from pytest_circuits.spec.schema import Role


def test_a_spec_may_write_every_role_and_no_other() -> None:
    assert get_args(RoleName) == tuple(ROLES)
    assert Role.model_fields["name"].annotation is RoleName


def test_every_factor_is_of_prompts_or_of_something_else() -> None:
    assert {*PER_PROMPT, "share", "repeats", "words"} == set(get_args(Factor))


@pytest.mark.parametrize("kind", ROLES.values(), ids=ROLES.keys())
def test_what_is_not_of_prompts_stands_alone(kind: RoleKind) -> None:
    """Influences of prompts and of repeated sequences could not be added."""
    assert len(kind.factors) == 1 or {"repeats", "words"}.isdisjoint(kind.factors)
    assert kind.measured_of_prompts


@pytest.mark.parametrize("kind", ROLES.values(), ids=ROLES.keys())
def test_a_role_is_defined_through_one_that_is_defined_by_itself(kind: RoleKind) -> None:
    assert kind.needs is None or ROLES[kind.needs].needs is None


def named(trait: str) -> set[str]:
    return {name for name, kind in ROLES.items() if getattr(kind, trait)}


def test_what_roles_ask_of_task_twin_and_place() -> None:
    looking = {"number_mover", "name_mover", "negative_mover", "s_inhibition", "sequence_mover", "letter_mover"}
    trackers = {"attractor_tracker", "conjunction_tracker"}
    assert named("looks") == looking | trackers
    assert named("needs_ratio") == looking | {"backup_name_mover"}
    assert named("needs_twin") == {"number_mover", "sequence_mover", "letter_mover", "s_inhibition"}
    assert set(ROLES) - named("at_most_one") == {"induction_causal", "backup_name_mover"}


def test_a_key_is_a_name_with_a_slot_or_without() -> None:
    assert (kind_of("letter_mover:two").name, slot_of("letter_mover:two")) == ("letter_mover", "two")
    assert (kind_of("successor").name, slot_of("successor")) == ("successor", None)
    assert Role(name="letter_mover", to="two").key == "letter_mover:two"
    assert Role(name="successor").key == "successor"

"""What each role is made of: what is read of a head, how that makes a score, and the paper that named it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

RoleName = Literal[
    "previous_token",
    "current_token",
    "duplicate_token",
    "induction",
    "induction_causal",
    "copying",
    "copy_suppression",
    "successor",
    "greater_than",
    "number_mover",
    "name_mover",
    "negative_mover",
    "backup_name_mover",
    "s_inhibition",
    "sequence_mover",
    "letter_mover",
    "attractor_tracker",
    "conjunction_tracker",
]
"""Every name in `ROLES`: what a spec may write."""
TaskName = Literal[
    "numerals",
    "number words",
    "ordinals",
    "weekdays",
    "months",
    "day prefixes",
    "month prefixes",
    "letters",
]
"""The tasks of the role `successor`."""
Factor = Literal["share", "attention", "direct", "path", "backup", "repeats", "words"]
"""A number that a role's score is made of. In each, a mean over prompts:

share      the part of the effect that is gone without the head: mean(c - h) / mean(c - f)
attention  attention from the answer position to the role's place
direct     what the head adds to the answer's logit beyond the foil's, over the clean logit difference
path       what is lost when the head's change reaches the movers' queries only: mean(c - p) / mean(c - f)
backup     how much `direct` rises when the movers are ablated
repeats    a number of each of the repeated random sequences, stored under how many tokens are repeated
words      a number, or hits and tokens, of each of the role's words: from weights alone
"""
Place = Literal["flip", "answer", "foil", "slot"]
"""Where `attention` looks: the flipped slot; the answer's or the foil's token in the prompt; the slot `to` names."""


@dataclass(frozen=True)
class RoleKind:
    """One role.

    Its score is the smallest of its `factors`, after `sign`, and at least 0: each of them alone is known to be high for
    heads that do something else.

    Attributes:
        name: as a spec writes it, and the module of `roles/` that measures it.
        about: what such a head does.
        source: the paper that named it.
        factors: what the score is the smallest of.
        place: where `attention` looks, unless the spec names a slot.
        sign: -1 for a role whose effect is against the answer: it turns `share`, `direct`, `path`.
        needs: another role whose heads the spec must name, because this one is defined through them.
        unit: of the score.
    """

    name: str
    about: str
    source: str
    factors: tuple[Factor, ...]
    place: Place = "flip"
    sign: Literal[1, -1] = 1
    needs: str | None = None
    unit: str = "score"

    @property
    def from_weights(self) -> bool:
        """Whether it is read from weights alone, so that it has no sampling error."""
        return self.factors == ("words",)

    @property
    def measured_of_prompts(self) -> tuple[Factor, ...]:
        """The factors that are measured for the role itself; shares are those of the check `heads`."""
        return tuple(factor for factor in self.factors if factor != "share")

    @property
    def looks(self) -> bool:
        """Whether it matters where in the prompt the head looks, so that a spec may name the slot."""
        return "attention" in self.factors

    @property
    def needs_ratio(self) -> bool:
        """Whether the task must be done for its score to mean anything."""
        return not {"share", "direct", "path", "backup"}.isdisjoint(self.factors)

    @property
    def needs_twin(self) -> bool:
        """Whether it is read off what differs between a prompt and its corrupt twin."""
        return (self.looks and self.place == "flip") or not {"share", "path"}.isdisjoint(self.factors)

    @property
    def at_most_one(self) -> bool:
        """Whether no score can exceed 1: it has a part that is attention, or a share of words or sequences."""
        return self.unit == "score" and not {"attention", "repeats", "words"}.isdisjoint(self.factors)


_OLSSON, _WANG, _GOULD = "arXiv:2209.11895", "arXiv:2211.00593", "arXiv:2312.09230"
ROLES: Mapping[str, RoleKind] = {
    kind.name: kind
    for kind in (
        RoleKind("previous_token", "attends to the token before", _OLSSON, ("repeats",)),
        RoleKind("current_token", "attends to the token it stands on", _OLSSON, ("repeats",)),
        RoleKind("duplicate_token", "attends to an earlier copy of its own token", _WANG, ("repeats",)),
        RoleKind("induction", "attends to what followed an earlier copy of its token", _OLSSON, ("repeats",)),
        RoleKind("induction_causal", "what repeats is predicted through it", _OLSSON, ("repeats",), unit="logits"),
        RoleKind("copying", "writes the token that it reads", _WANG, ("words",)),
        RoleKind("copy_suppression", "writes against the token that it reads", "arXiv:2310.04625", ("words",)),
        RoleKind("successor", "writes what follows the token that it reads", _GOULD, ("words",)),
        RoleKind("greater_than", "writes for what is greater than it reads", "arXiv:2305.00586", ("words",)),
        RoleKind("number_mover", "carries the flipped slot's class", "arXiv:2410.06496", ("share", "attention")),
        RoleKind("name_mover", "copies the answer's token", _WANG, ("direct", "attention"), "answer"),
        RoleKind("negative_mover", "writes against the answer's token", _WANG, ("direct", "attention"), "answer", -1),
        RoleKind("backup_name_mover", "moves once the movers are gone", _WANG, ("backup",), needs="name_mover"),
        RoleKind(
            "s_inhibition",
            "tells the movers what not to look at",
            _WANG,
            ("path", "attention"),
            "foil",
            needs="name_mover",
        ),
        RoleKind("sequence_mover", "carries a sequence's last member", "arXiv:2311.04131", ("share", "attention")),
        RoleKind("letter_mover", "carries the letter of a word", "arXiv:2405.04156", ("share", "attention"), "slot"),
        RoleKind("attractor_tracker", "attends to a noun that disturbs", "arXiv:2506.22105", ("attention",), "slot"),
        RoleKind("conjunction_tracker", "attends to a conjunction", "arXiv:2506.22105", ("attention",), "slot"),
    )
}


def kind_of(key: str) -> RoleKind:
    """Return the role of a key, which is its name, or `name:slot` where a spec names the slot that it looks at."""
    return ROLES[key.partition(":")[0]]


def slot_of(key: str) -> str | None:
    """Return the slot that a key names, if any."""
    return key.partition(":")[2] or None

"""A circuit that was found becomes a spec: roles by their scores, limits by what was measured, and its baseline."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import BaselineRefused, plain
from ..gate.edges import of_edges
from ..gate.effects import Effects
from ..gate.readiness import noisiness
from ..records import Verdict
from ..spec.components import Head, parse_component
from ..spec.loader import SUFFIX, load_spec
from ..spec.roles import kind_of
from .controls import FEWEST
from .discovery import RESAMPLED
from .suite import judge_spec, measure
from .updating import Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..checkpoints.handle import CheckpointModel
    from ..records import Overview
    from ..spec.loader import SpecFile
    from .discovery import Discovered
    from .overview import Question

    Claims = dict[str, dict[str, Any]]

LEAST_ROLE = 0.5
"""The score from which on a role is proposed for a head."""
ROOM = 0.10
"""An absolute limit is so much below what was measured, or three standard errors where these are more."""
STEP = 0.05
"""Absolute limits are multiples of this."""
SPARE = 1.05
"""A limit that is too fine for the noise is widened by so much more than it must be."""
NOISY: Mapping[str, tuple[str, str]] = {
    "behaviour: loss": ("behaviour", "loss_at_most"),
    "faithfulness: drift": ("faithfulness", "drift_at_most"),
    "necessity: drift": ("necessity", "drift_at_most"),
    "heads: share": ("heads", "share_drift_at_most"),
    "heads: strength": ("heads", "weaker_at_most"),
    "roles: drift": ("roles", "drift_at_most"),
    "edges: drift": ("edges", "drift_at_most"),
    "edges: share": ("edges", "share_drift_at_most"),
}
"""The limit that widens where a claim is too noisy to decide."""


@dataclass(frozen=True)
class Proposal:
    """A spec that passes on the checkpoint on which it was found, and its baseline, which is not written yet."""

    prepared: Prepared
    left_out: tuple[str, ...]
    width: int


def propose(
    found: Discovered,
    question: Question,
    model: CheckpointModel,
    overview: Overview | None,
    *,
    prompts: Path,
    output: Path,
    root: Path,
    environment: Mapping[str, str],
    batch_size: int = 256,
) -> Proposal:
    """Return a spec for a circuit, written to `output` as it is proposed, and its baseline.

    A check that is not green on the very checkpoint is left out, and the spec says why.

    Raises:
        SpecError: the prompts cannot be named from the spec: they lie outside of the project.
        BaselineRefused: what was measured could not serve as a reference.
    """
    draft = _Draft(found, question, model, _roles(found, overview), prompts, output, root)
    _refuse_whole(found, model)
    claims, left_out = draft.claims(), list[str]()
    file = _written(draft.text(claims), output, root)
    reading = measure(file, model, batch_size=batch_size)
    effects = Effects(reading)
    _state(claims, file, effects)
    _widen(claims, file, effects)
    file = _written(draft.text(claims), output, root)
    for result in judge_spec(file, model, reading, reference=reading, name=model.name):
        if result.verdict is not Verdict.PASS or (result.check == "controls" and result.warnings):
            why = (*result.warnings, result.headline)[0].splitlines()[0]
            if result.check == "edges":
                raise BaselineRefused(
                    f"{len(found.members)} edges were found, and on the checkpoint itself the check edges is not green:"
                    f" {why}\n  So there is nothing to hold others to. Give more pairs, or another --faithfulness."
                )
            left_out.append(f"{result.check} is left out: {why}")
            del claims[result.check]
    file = _written(draft.text(claims, left_out), output, root)
    prepared = prepare(file, model, reading, [], reason="found by discover", environment=environment)
    width: int = model.bound.module.get_output_embeddings().weight.shape[1]
    return Proposal(prepared, tuple(left_out), width)


def _refuse_whole(found: Discovered, model: CheckpointModel) -> None:
    """Raise BaselineRefused where all heads were found, or all edges: no claim on that could fail."""
    heads = sum(isinstance(parse_component(name), Head) for name in (() if found.edges else found.members))
    if heads == model.shape.layers * model.shape.heads or len(found.members) == found.parts:
        raise BaselineRefused(
            f"the circuit that carries {found.faithfulness:.2f} has all {'edges' if found.edges else 'heads'} of"
            f" {model.name!r}, so no claim on it could fail.\n  Ask for less --faithfulness, or for edges."
        )


def _written(text: str, output: Path, root: Path) -> SpecFile:
    output.write_text(text, encoding="utf-8", newline="\n")
    return load_spec(output, root=root)


# -- limits ------------------------------------------------------------------------------------------------------------


def _state(claims: Claims, file: SpecFile, effects: Effects) -> None:
    """Set the absolute limits: below what was measured by some room."""
    right, asked = effects.accuracy
    claims["behaviour"]["accuracy_at_least"] = min(0.9, _down(right / asked - ROOM))
    if file.spec.claims.edges is not None:
        effects = Effects(of_edges(effects.reading))
    at_least: dict[tuple[str, str], Callable[[], Any]] = {
        ("faithfulness", "at_least"): lambda: effects.faithfulness,
        ("necessity", "at_least"): lambda: effects.necessity,
        ("edges", "at_least"): lambda: effects.faithfulness,
        ("edges", "necessity_at_least"): lambda: effects.necessity,
    }
    for (check, key), value in at_least.items():
        if check in claims:
            measured = value()
            claims[check][key] = _down(measured.value - max(ROOM, 3 * measured.estimate.se))


def _widen(claims: Claims, file: SpecFile, effects: Effects) -> None:
    """Widen the limits on drift that these prompts are too few to decide."""
    for noisy in noisiness(file.spec, effects):
        check, key = NOISY.get(noisy.claim, ("", ""))
        if noisy.excess > 1 and check in claims:
            limits = getattr(file.spec.claims, check)
            default = getattr(limits, key) or file.spec.claims.behaviour.loss_at_most  # type: ignore[union-attr]
            claims[check][key] = max(claims[check].get(key, 0.0), _up(default * noisy.excess * SPARE))


def _down(value: float) -> float:
    return round(max(STEP, math.floor(value / STEP) * STEP), 2)


def _up(value: float) -> float:
    return math.ceil(value * 100) / 100


# -- roles -------------------------------------------------------------------------------------------------------------


def _roles(found: Discovered, overview: Overview | None) -> dict[str, tuple[str, float]]:
    """Return for each head of the circuit the role in which it scores highest, where that is high."""
    proposed = {}
    for name in () if overview is None else found.members:
        scores = overview.heads[name].roles if overview and name in overview.heads else {}
        best = max(scores.items(), key=lambda item: item[1], default=("", 0.0))
        if best[1] >= LEAST_ROLE and kind_of(best[0]).needs is None:
            proposed[name] = best
    return proposed


# -- text --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    found: Discovered
    question: Question
    model: CheckpointModel
    roles: Mapping[str, tuple[str, float]]
    prompts: Path
    output: Path
    root: Path

    def claims(self) -> Claims:
        """Return the checks that are proposed, with the limits that are not left at their defaults."""
        if self.found.edges:
            return {"behaviour": {}, "edges": {}}
        heads = any(isinstance(parse_component(name), Head) for name in self.found.members)
        of_heads: Claims = {"controls": self._controls(), "heads": {}} if heads else {}
        of_roles: Claims = {"roles": {}} if self.roles else {}
        return {"behaviour": {}, "faithfulness": {}, "necessity": {}, **of_heads, **of_roles}

    def _controls(self) -> dict[str, Any]:
        """Return how random circuits are drawn: with as many heads in each layer, where there are enough of these."""
        parts = map(parse_component, self.found.members)
        in_layers = Counter(part.layer for part in parts if isinstance(part, Head))
        others = math.prod(math.comb(self.model.shape.heads, count) for count in in_layers.values()) - 1
        return {} if others >= FEWEST else {"match": "size"}

    def text(self, claims: Claims, left_out: Sequence[str] = ()) -> str:
        """Return the spec."""
        shape = self.model.shape
        model = {
            "checkpoint": self._checkpoint(),
            "architecture": shape.architecture,
            "layers": shape.layers,
            "heads": shape.heads,
        }
        sections = [
            *(f"# {plain(line)}" for line in self._story()),
            "format: 1",
            f"model: {_flow(model)}",
            *self._asked(),
            *(self._edges() if self.found.edges else self._circuit(judged="roles" in claims)),
            "claims:",
            *(f"  {check}: {_flow(limits)}" for check, limits in claims.items()),
            *(f"# {plain(line)}" for line in left_out),
            "rates: {false_alarm: 0.01, missed_drift: 0.01}",
        ]
        return "\n".join(sections) + "\n"

    def _checkpoint(self) -> str:
        """Return the checkpoint as a spec names it: a folder of the project from the project's root."""
        folder = Path(self.model.source)
        if folder.is_dir() and folder.absolute().is_relative_to(self.root.absolute()):
            return folder.absolute().relative_to(self.root.absolute()).as_posix()
        return self.model.source

    def _story(self) -> list[str]:
        """Return how the circuit was found, in comments."""
        found, what = self.found, "edges" if self.found.edges else "heads and MLPs"
        held = found.held_out
        where = f" on the templates {', '.join(found.found_on)}" if found.found_on else " on one half of the prompts"
        other = f" on {', '.join(found.measured_on)}" if found.measured_on else " on the other half"
        return [
            f"Found on {self.model.name}{where}: {len(found.members)} of {found.parts} {what} carry"
            f" {found.faithfulness:.2f} of the effect.",
            f"Measured{other}: {held.value:.2f}, standard error {held.estimate.se:.2g}.",
            f"In {RESAMPLED} halves of where it was found, as many of the largest are like it by {found.jaccard:.2f}"
            " (Jaccard).",
            f"It took {found.runs} forwards of each prompt; greedy exact search takes {found.greedy}.",
            "Roles are proposals by score, limits by measured spread: read them, and say what you know better.",
        ]

    def _asked(self) -> list[str]:
        """Return what is asked: prompts, tokens, what is read, and what ablation is."""
        question = self.question
        sections: dict[str, Any] = {
            "tokens": question.tokens,
            "measure": question.measure,
            "ablation": question.ablation,
        }
        told = [f"{name}: {_flow(section.model_dump(mode='json'))}" for name, section in sections.items()]
        return [self._prompts(), *told]

    def _prompts(self) -> str:
        """Return the section `prompts`: the file, as it is found from the spec, or the templates of another spec."""
        path: Path | None = self.prompts
        if self.prompts.name.endswith(SUFFIX):
            section = load_spec(self.prompts, root=self.root).spec.prompts
            name = getattr(section, "file", None)
            path = None if name is None else self.prompts.parent / name
            if path is None:
                given = section.model_dump(mode="json", exclude={"include"})
                return yaml.safe_dump({"prompts": given}, sort_keys=False, default_flow_style=None, width=110).rstrip()
        return f"prompts: {_flow({'file': os.path.relpath(str(path), self.output.parent).replace(os.sep, '/')})}"

    def _circuit(self, *, judged: bool) -> list[str]:
        """Return the section `circuit`: heads by their roles, and MLPs; where roles are not judged without limits."""
        heads = [name for name in self.found.members if isinstance(parse_component(name), Head)]
        mlps = [name for name in self.found.members if name not in heads]
        lines = ["circuit:"]
        for role in dict.fromkeys(self.roles[name][0] for name in heads if name in self.roles):
            of_role = [name for name in heads if self.roles.get(name, ("", 0))[0] == role]
            least = _down(0.7 * min(self.roles[name][1] for name in of_role))
            group = {"heads": of_role, "role": {"name": role, **({"at_least": least} if judged else {})}}
            scores = ", ".join(f"{name} {self.roles[name][1]:.2f}" for name in of_role)
            lines.append(f"  {role.replace(':', '_')}: {_flow(group)}  # {scores}; {self._often(of_role)}")
        if others := [name for name in heads if name not in self.roles]:
            lines.append(f"  heads: {_flow({'heads': others})}  # {self._often(others)}")
        if mlps:
            lines.append(f"  mlps: {_flow({'mlps': mlps})}  # {self._often(mlps)}")
        return lines

    def _edges(self) -> list[str]:
        return ["edges:", *(f"  - {_flow(name)}  # {self._often([name])}" for name in self.found.members)]

    def _often(self, names: Sequence[str]) -> str:
        """Return in how many halves of the prompts they are among the largest."""
        counts = dict(zip(self.found.members, self.found.stability, strict=True))
        return f"in {min(counts[name] for name in names)} of {RESAMPLED} halves"


def _flow(value: Any) -> str:
    """Return plain builtins as YAML in one line."""
    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()

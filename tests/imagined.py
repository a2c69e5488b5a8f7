"""Readings of an imagined model of 2 layers and 4 heads, of which one carries nearly all of the task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_circuits.checks import Comparison
from pytest_circuits.gate.controls import RandomCircuits
from pytest_circuits.records import Measured, Reading
from pytest_circuits.spec.loader import SpecFile
from pytest_circuits.spec.schema import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATES = tuple(f"t{number}" for number in range(8))
HEADS = tuple(f"L{layer}H{head}" for layer in range(2) for head in range(4))
SHARES = {"L0H1": 0.15, "L1H2": 0.80}
"""The share of the effect that each head carries; the others carry 0.01."""
TASKS = {"letters": (24, 25), "numerals": (58, 59), "weekdays": (7, 7)}
OTHER_TASKS = {"letters": (1, 25), "numerals": (2, 59), "weekdays": (0, 7)}
"""The tokens of which the successor knows the next, and those of which any other head does, of how many."""
DIGITS = {
    **{"probe": (57, 60), "transfer": (36, 40), "coverage": (45, 60)},
    **{"edit numerals 20-29": (80, 90), "edit numerals": (400, 500), "edit months": (50, 76)},
}
"""What the successor knows of digits, in hits of how many."""
CHECKS = ("behaviour", "faithfulness", "necessity", "controls", "heads", "roles")

EVERY_CHECK = (*CHECKS, "attribution", "successor")


def every_claim() -> SpecFile:
    """Return a spec with every check there is; three of its eight heads are the largest."""
    return spec_file({check: {} for check in EVERY_CHECK} | {"attribution": {"top": 3}})


def spec_file(claims: dict[str, Any] | None = None, **changes: Any) -> SpecFile:
    """Return a spec of the imagined model, as if it had been read from a file."""
    data = {
        "format": 1,
        "model": {"checkpoint": "builtin:imagined", "architecture": "gpt2", "layers": 2, "heads": 4},
        "prompts": {"vocabulary": {}, "templates": (), "seed": 7},
        "circuit": {
            "mover": {"heads": ("L1H2",), "role": {"name": "number_mover", "at_least": 0.5}},
            "counter": {"heads": ("L0H1",), "mlps": ("L0.mlp",), "role": {"name": "successor"}},
        },
        "claims": {check: {} for check in CHECKS} if claims is None else claims,
    }
    return SpecFile(
        path=Path("specs/imagined.circuit.yaml"),
        circuit="specs/imagined",
        spec=Spec.model_validate(data | changes),
        lines={("claims",): 30, ("claims", "heads"): 35, ("claims", "heads", "keep_at_least"): 36},
        sha256="0" * 64,
        measured={},
    )


def reading(
    *, per_template: int = 16, noise: float = 0.0, spread: float = 0.02, seed: int = 0, unit: float = 10.0, **parts: Any
) -> Measured:
    """Return the reference's reading, or one with other `parts`.

    Every effect is a part of `unit` logits and varies with standard deviation `spread` of it from prompt to prompt;
    `shares` replaces the share of single heads.
    """
    random = np.random.default_rng(seed)
    templates = tuple(name for name in TEMPLATES for _ in range(per_template))
    shares = dict.fromkeys(HEADS, 0.01) | SHARES | parts.pop("shares", {})
    effect = unit * parts.pop("effect", 1.0)
    circuit, knockout = parts.pop("faithfulness", 0.95), parts.pop("necessity", 0.97)

    def some(mean: float) -> np.ndarray:
        return effect * (mean + spread * random.standard_normal(len(templates)))

    floor = unit * (-0.4 + 0.1 * random.standard_normal(len(templates)))
    clean = floor + some(1.0)
    return Measured(
        **{
            "templates": templates,
            "clean": clean,
            "corrupt": clean - some(1.1),
            "clean_logit_diff": clean,
            "circuit": floor + some(circuit),
            "knockout": clean - some(knockout),
            "floor": floor,
            "heads": {head: clean - some(shares[head]) for head in HEADS},
            "roles": {
                "number_mover": {head: {"attention": np.full(len(templates), 0.02)} for head in HEADS}
                | {"L1H2": {"attention": 0.95 + spread / 10 * random.standard_normal(len(templates))}},
                "successor": {head: counted(TASKS if head == "L0H1" else OTHER_TASKS) for head in HEADS},
            },
            "noise": noise,
            "attribution": {head: np.full(len(templates), unit * share) for head, share in shares.items()},
            "successor": {"L0H1": depth()},
            **parts,
        }
    )


def counted(tasks: Mapping[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Return a 1 for each hit and a 0 for each other token, by task."""
    return {task: np.array([1] * hits + [0] * (tokens - hits)) for task, (hits, tokens) in tasks.items()}


def depth(**others: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return what a successor head makes of digits, with other hits of how many for some names."""
    return {**counted(DIGITS | others), "greater than": np.linspace(0.9, 0.1, 50)}


def in_role(whole: Measured, key: str, **heads: Mapping[str, np.ndarray]) -> Measured:
    """Return the reading with other numbers of a role for some heads; the role may be new to it."""
    return replace(whole, roles={**whole.roles, key: {**whole.roles.get(key, {}), **heads}})


def compared(
    observed: Reading, reference: Reading | None, *, file: SpecFile | None = None, **changes: Any
) -> Comparison:
    """Return the comparison of two readings, against random circuits that do nothing."""
    return replace(
        Comparison(
            file=file or spec_file(),
            checkpoint="tuned",
            observed=observed,
            reference=reference,
            reference_name="builtin:imagined",
            identical=False,
            missing=None,
            random_circuits=lambda: RandomCircuits((0.1,) * 100, possible=1000, exhaustive=False),
        ),
        **changes,
    )

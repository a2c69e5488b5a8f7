"""What moved from one baseline to the next, in a few lines for the summary of an update."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .reading import Baseline

SHOWN_HEADS = 8


def changes(old: Baseline | None, new: Baseline) -> tuple[str, ...]:
    """Return what moved, as far as the printed digits show it; for a first baseline, what it holds.

    Means are over prompts, templates weighing equally; a head's share is mean(c - h)/mean(c - f).
    """
    facts, shares = _facts(new), _shares(new)
    if old is None:
        return tuple(f"{name}: {text}" for name, text in facts.items())
    old_facts, old_shares = _facts(old), _shares(old)
    moved = [
        f"{name}: {old_facts.get(name, 'absent')} -> {facts.get(name, 'absent')}"
        for name in old_facts | facts
        if old_facts.get(name) != facts.get(name)
    ]
    shown = {head: (_ratio(old_shares.get(head)), _ratio(shares.get(head))) for head in old_shares | shares}
    heads = [head for head, (before, after) in shown.items() if before != after]
    heads.sort(key=lambda head: -abs(shares.get(head, 0.0) - old_shares.get(head, 0.0)))
    moved += [f"{head} share: {shown[head][0]} -> {shown[head][1]}" for head in heads[:SHOWN_HEADS]]
    if len(heads) > SHOWN_HEADS:
        moved.append(f"and {len(heads) - SHOWN_HEADS} more heads, each by less")
    return tuple(moved)


def _facts(baseline: Baseline) -> dict[str, str]:
    """Return each fact as it is printed; one whose parts are absent is left out."""
    templates = baseline.measured.parts["templates"]
    behaviour, whole = _difference(baseline, "clean", "corrupt"), _difference(baseline, "clean", "floor")
    facts = {
        "reference": f"{baseline.reference.name} ({baseline.reference.fingerprint[:12]})",
        "identity": baseline.identity[:12],
        "prompts": f"{len(templates)} in {len(set(templates))} templates",
    }
    if behaviour is not None:
        facts["behaviour mean(c - x)"] = f"{behaviour:z.4g}"
    if whole is not None:
        facts["whole effect mean(c - f)"] = f"{whole:z.4g}"
    for name, minuend, subtrahend in (("faithfulness", "circuit", "floor"), ("necessity", "clean", "knockout")):
        effect = _difference(baseline, minuend, subtrahend)
        if effect is not None and whole:
            facts[name] = _ratio(effect / whole)
    return facts


def _shares(baseline: Baseline) -> dict[str, float]:
    """Return each head's share; empty where it is undefined or its parts are absent."""
    parts = baseline.measured.parts
    whole = _difference(baseline, "clean", "floor")
    if not whole or parts["heads"] is None:
        return {}
    clean = _mean(parts["clean"], parts["templates"])
    return {head: (clean - _mean(numbers, parts["templates"])) / whole for head, numbers in parts["heads"].items()}


def _difference(baseline: Baseline, minuend: str, subtrahend: str) -> float | None:
    parts = baseline.measured.parts
    if parts[minuend] is None or parts[subtrahend] is None:
        return None
    return _mean(parts[minuend], parts["templates"]) - _mean(parts[subtrahend], parts["templates"])


def _mean(numbers: list[float], templates: list[str]) -> float:
    strata: dict[str, list[float]] = {}
    for number, template in zip(numbers, templates, strict=True):
        strata.setdefault(template, []).append(number)
    return fmean(map(fmean, strata.values()))


def _ratio(value: float | None) -> str:
    return "absent" if value is None else f"{value:z.2f}"

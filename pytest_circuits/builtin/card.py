"""The model card: every number in it measured on the stored checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_circuits.builtin import builtin_names
from pytest_circuits.builtin.grammar import (
    LOCAL_TEMPLATES,
    Pair,
    agreement_pairs,
    held_out_lines,
    succession_pairs,
)
from pytest_circuits.builtin.storage import load
from pytest_circuits.builtin.survey import (
    Circuit,
    Effect,
    Head,
    Score,
    all_heads,
    attention_to_change,
    by_template,
    effect,
    later_year_mass,
    pooled,
    scores,
    smallest_circuit,
    successor_scores,
)
from pytest_circuits.builtin.vocabulary import LANGUAGES, SEQUENCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from transformers import GPT2LMHeadModel

LINES_SEED, PAIRS_SEED = 77, 78
PER_TEMPLATE = 150
PER_PAIR_TEMPLATE = 32
PER_FORMAT = 16


@dataclass(frozen=True, slots=True)
class Carried:
    """How one behaviour is carried: each template's effect, their pool, and the circuits that suffice."""

    effects: Mapping[str, Effect]
    whole: Effect
    circuit: Circuit
    lean: Circuit
    attention: Mapping[Head, float]

    def ranked(self) -> list[Head]:
        """Heads by their share, greatest first."""
        return sorted(self.whole.patched, key=lambda head: -self.whole.share(head))


@dataclass(frozen=True, slots=True)
class Surveyed:
    """All that is measured on one checkpoint."""

    model: GPT2LMHeadModel
    scores: Mapping[tuple[str, str], Score]
    mass: float
    carried: Mapping[str, Carried]


def _carried(model: GPT2LMHeadModel, pairs: Iterable[Pair]) -> Carried:
    """Measure one behaviour's pairs."""
    groups = by_template(pairs)
    effects = {name: effect(model, group) for name, group in groups.items()}
    whole = pooled(effects.values())
    ranked = sorted(whole.patched, key=lambda head: -whole.share(head))
    attended = [attention_to_change(model, group) for group in groups.values()]
    attention = {head: fmean(one[head] for one in attended) for head in ranked}
    return Carried(effects, whole, *smallest_circuit(model, list(groups.values()), ranked), attention)


def survey(model: GPT2LMHeadModel) -> Surveyed:
    """Measure one checkpoint."""
    print(f"measuring {model.name_or_path}", flush=True)
    lines = held_out_lines(LINES_SEED, PER_TEMPLATE)
    carried = {
        f"agreement-{language.name}": _carried(model, agreement_pairs(PAIRS_SEED, PER_PAIR_TEMPLATE, language))
        for language in LANGUAGES
    }
    carried["succession"] = _carried(model, succession_pairs(PAIRS_SEED, PER_FORMAT))
    mass = later_year_mass(model, [line for line in lines if line.behaviour == "later-year"])
    return Surveyed(model, scores(model, lines), mass, carried)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def _group(behaviour: str, template: str) -> str:
    """The row of the accuracy table a template counts in."""
    if not behaviour.startswith("agreement"):
        return behaviour
    if template in (*LOCAL_TEMPLATES, "adverb"):
        return f"{behaviour}, plain"
    return f"{behaviour}, {'relative clause' if 'relative' in template else 'prepositional phrase'}"


def _accuracies(surveys: Mapping[str, Surveyed]) -> list[str]:
    """Accuracy of each behaviour in each checkpoint, its weakest template behind it."""
    grouped: dict[str, dict[str, list[Score]]] = {}
    for name, one in surveys.items():
        for (behaviour, template), score in one.scores.items():
            grouped.setdefault(_group(behaviour, template), {}).setdefault(name, []).append(score)
    rows = []
    for group, found in grouped.items():
        cells = []
        for listed in found.values():
            lines = sum(score.lines for score in listed)
            mean = sum(score.accuracy * score.lines for score in listed) / lines
            cells.append(f"{mean:.4f} ({min(score.accuracy for score in listed):.3f})")
        rows.append([group, str(sum(score.lines for score in found[next(iter(found))])), *cells])
    rows.append(["later-year, probability on later years", "", *(f"{one.mass:.4f}" for one in surveys.values())])
    text = (
        "A prompt counts as right when the right word's logit is above the wrong one's (later-year: all later years'\n"
        "logits against all others'). In brackets the weakest template. No training line ends in a\n"
        "prompt measured here (one of two or three words: in it with the same answer). "
        "That is not always unseen text:\n"
        "most runs of a sequence, but for those with gaps, also begin a longer line of the training text, and\n"
        "agreement prompts of two or three words were trained with other verbs.\n"
    )
    return ["## Accuracy on held-out prompts", "", text, *_table(["behaviour", "prompts", *surveys], rows)]


def _leading(one: Carried, count: int = 4) -> list[Head]:
    return one.ranked()[:count]


def _shares(name: str, one: Carried, rows: Mapping[str, Effect]) -> list[str]:
    """The leading heads' shares in each row."""
    heads = _leading(one)
    attended = ["attention to what changed", "", "", *(f"{one.attention[head]:.3f}" for head in heads)]
    body = [
        [label, f"{found.clean:.2f}", f"{found.floor:.2f}", *(f"{found.share(head):.3f}" for head in heads)]
        for label, found in {"all": one.whole, **rows}.items()
    ]
    return [f"### {name}", "", *_table(["template", "clean", "floor", *map(_name, heads)], [*body, attended])]


def _succession_rows(one: Carried) -> dict[str, Effect]:
    """Succession pooled by format and by kind."""
    rows: dict[str, list[Effect]] = {}
    for name, found in one.effects.items():
        kind, _, format_name = name.partition("/")
        rows.setdefault(f"kind {kind}", []).append(found)
        rows.setdefault(f"format {format_name}", []).append(found)
    return {label: pooled(found) for label, found in sorted(rows.items())}


def _carriers(surveys: Mapping[str, Surveyed]) -> list[str]:
    """Which heads carry agreement and succession, by template."""
    text = (
        "A head's share is the part of the way from the clean run's logit difference to the floor's that is lost when\n"
        "only this head's z comes from the corrupt run. The floor keeps nothing but the clean embeddings.\n"
        "Heads are named layer.head; each table shows the four with the greatest shares.\n"
    )
    lines = ["## Heads that carry the number signal and succession", "", text]
    for name, one in surveys.items():
        english = one.carried["agreement-english"]
        lines += _shares(f"{name}: agreement, english", english, english.effects)
        for language in LANGUAGES[1:]:
            lines += _shares(f"{name}: agreement, {language.name}", one.carried[f"agreement-{language.name}"], {})
        lines += _shares(f"{name}: succession", one.carried["succession"], _succession_rows(one.carried["succession"]))
    return lines


def _circuits(surveys: Mapping[str, Surveyed]) -> list[str]:
    """The circuits that suffice."""
    rows = []
    for name, one in surveys.items():
        for behaviour, found in one.carried.items():
            for circuit in dict.fromkeys((found.circuit, found.lean)):
                heads = " ".join(map(_name, circuit.heads))
                mlps = " ".join(map(str, circuit.mlps)) or "none"
                rows.append([name, behaviour, heads, mlps, f"{circuit.faithfulness:.3f}"])
    text = "All outside the circuit takes the corrupt run's values; heads join by share, then needless MLPs go.\n"
    return ["## Circuits", "", text, *_table(["checkpoint", "behaviour", "heads", "MLPs", "faithfulness"], rows)]


def _successors(surveys: Mapping[str, Surveyed]) -> list[str]:
    """The successor scores of the heads that have one."""
    kinds = [*(sequence.kind for sequence in SEQUENCES), "all"]
    rows = []
    for name, one in surveys.items():
        for normed in (True, False):
            found = {head: successor_scores(one.model, head, normed) for head in all_heads(one.model)}
            for head in sorted(found, key=lambda head: -found[head]["all"])[:3]:
                form = "normed" if normed else "plain"
                rows.append([name, _name(head), form, *(f"{found[head][kind]:.2f}" for kind in kinds)])
    text = "Normed: layer norms around the head's OV weights; plain: none. Biases of OV are left out of both.\n"
    return ["## Successor scores", "", text, *_table(["checkpoint", "head", "form", *kinds], rows)]


def _making(output: Path, surveys: Mapping[str, Surveyed], recipes: Mapping[str, str]) -> list[str]:
    """Sizes, recipes and times."""
    path = output / "timings.json"
    timings = json.loads(path.read_text()) if path.exists() else {}
    rows = []
    for name, one in surveys.items():
        size = (output / name / "model.safetensors").stat().st_size / 2**20
        count = sum(weight.numel() for weight in one.model.parameters())
        rows.append([name, f"{count:,}", f"{size:.2f} MiB", f"{timings.get(name, '?')} s", recipes[name]])
    return [
        "## How they were made",
        "",
        "`python -m pytest_circuits.builtin.train --output DIR`, then again with `--card`, on two CPU cores; seeded,",
        "weights stored as float16. Two threads are the default, and another number of threads gives other bits.",
        "",
        *_table(["checkpoint", "parameters", "weights", "training", "recipe"], rows),
    ]


def write_card(output: Path, recipes: Mapping[str, str]) -> None:
    """Measure every stored checkpoint and write the card beside them."""
    surveys = {name: survey(load(output / name)) for name in builtin_names() if (output / name).is_dir()}
    lines = [
        "# Built-in checkpoints",
        "",
        "GPT-2 architecture, 4 layers of 4 heads, width 128, word-level tokenizer, trained from nothing on the",
        "synthetic grammar in `grammar.py`. `tiny-tuned` is `tiny` trained gently on; `tiny-rewired` predicts as",
        "`tiny` does, with other heads. Written by `train.py --card` from measurements.",
        "",
    ]
    lines += _making(output, surveys, recipes) + _accuracies(surveys) + _carriers(surveys)
    lines += _circuits(surveys) + _successors(surveys)
    (output / "MODEL_CARD.md").write_text("\n".join(lines).rstrip() + "\n")

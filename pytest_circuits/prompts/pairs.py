"""The prompt pairs of a spec: drawn from its templates or read from its file, strata large enough to judge."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import PromptError
from ..spec.roles import kind_of
from ..spec.schema import TemplatePrompts
from .files import read_pairs
from .pair import FEWEST_IN_A_TEMPLATE, Pair, PromptSet
from .templates import draw

if TYPE_CHECKING:
    from ..spec.loader import SpecFile
    from ..spec.schema import FilePrompts

__all__ = ["Pair", "PromptSet", "pairs_of"]


def pairs_of(spec_file: SpecFile) -> PromptSet:
    """Return the prompt pairs of a spec, and what a person should know about them.

    The same spec gives the same pairs in the same order, on every machine.

    Raises:
        PromptError: a template or a file gives too few pairs, or the file cannot be used; every problem with its line.
    """
    prompts = spec_file.spec.prompts
    found = _drawn(spec_file, prompts) if isinstance(prompts, TemplatePrompts) else _read(spec_file, prompts)
    return replace(found, notices=(*found.notices, *_repeated(found.pairs)))


def _repeated(pairs: tuple[Pair, ...]) -> list[str]:
    """Return a notice for each template whose pairs ask the same few prompts again for other answers."""
    told = []
    for template in dict.fromkeys(pair.template for pair in pairs):
        texts = [frozenset((pair.clean, pair.corrupt)) for pair in pairs if pair.template == template]
        if len(set(texts)) < FEWEST_IN_A_TEMPLATE:
            told.append(
                f"template {template!r}: {len(texts)} pairs stand on {len(set(texts))} different prompts, so their "
                "values are not independent and their standard errors are too small; use more prompts"
            )
    return told


def _drawn(spec_file: SpecFile, prompts: TemplatePrompts) -> PromptSet:
    """Return the pairs of all templates, in the spec's order."""
    pairs: list[Pair] = []
    notices, problems = [], []
    for index, template in enumerate(prompts.templates):
        drawn = draw(template, prompts)
        pairs += drawn
        line = spec_file.line("prompts", "templates", index)
        count = f"{len(drawn)} distinct pair{'s' * (len(drawn) != 1)}"
        found = f"{spec_file.name}:{line}: template {template.id!r} gives {count}"
        if len(drawn) < FEWEST_IN_A_TEMPLATE:
            problems.append(
                f"{found}; at least {FEWEST_IN_A_TEMPLATE} are needed to know how much prompts vary; "
                "add words to its slots"
            )
        elif len(drawn) < prompts.per_template:
            notices.append(f"{found}, fewer than per_template: {prompts.per_template}")
    if problems:
        raise PromptError("\n".join(problems))
    return PromptSet(tuple(pairs), tuple(notices))


def _read(spec_file: SpecFile, prompts: FilePrompts) -> PromptSet:
    """Return the pairs of the prompt file, refusing claims that a missing corrupt twin leaves without a meaning."""
    name = posixpath.normpath(posixpath.join(posixpath.dirname(spec_file.name), prompts.file))
    path = spec_file.path.parent / prompts.file
    read = read_pairs(path, name)
    if hashlib.sha256(path.read_bytes()).hexdigest() != spec_file.measured["prompts"]["sha256"]:
        raise PromptError(
            f"{name}:1: the file should be as it was when its spec was loaded, and it has changed since.\n"
            "  Its numbers would be kept as those of the old prompts. Run again."
        )
    spec = spec_file.spec
    if all(pair.corrupt is not None for pair in read.pairs):
        return read
    needs: list[tuple[bool, tuple[str, ...], str]] = [
        (spec.ablation.value == "resample", ("ablation", "value"), "resample takes values from it; write zero or mean"),
        (spec.ablation.floor == "corrupt", ("ablation", "floor"), "the floor is read on it; write empty"),
        (
            spec.measure.metric == "kl" and spec.claims.behaviour is not None,
            ("measure", "metric"),
            "kl tells behaviour by the distance of the corrupt run from the clean one; write logit_diff or prob_diff",
        ),
        *(
            (True, ("circuit",), f"the role {kind.name} is read off what differs between the two")
            for kind in map(kind_of, spec.roles)
            if kind.needs_twin
        ),
    ]
    problems = [
        f"{spec_file.name}:{spec_file.line(*path)}: {'.'.join(path)}: "
        f"the prompts of {name} have no corrupt twin, but {why}"
        for needed, path, why in needs
        if needed
    ]
    if problems:
        raise PromptError("\n".join(problems))
    return read

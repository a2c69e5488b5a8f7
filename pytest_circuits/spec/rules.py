"""What a spec must keep beyond the types of its keys: slots have words, circuits can fail, claims have a subject."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING, Any

from .claims import CHECKS
from .components import Attention, Head, Layer, parse_component
from .edge_rules import edge_rules
from .roles import kind_of
from .schema import FilePrompts, Spec, TemplatePrompts
from .slots import slots_in
from .wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .claims import Claims, Roles
    from .document import Path
    from .schema import Ablation, Group, Role, Template

    Finding = tuple[Path, str]

OF_MODEL = ("behaviour", "attribution", "edges")
"""The checks that need no group of parts: they are about the model, or about edges."""


def broken_rules(sections: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong, as a path and a text.

    Args:
        sections: the valid sections of a spec by name; a rule whose sections are not all there is left out.
    """
    prompts, ablation = sections.get("prompts"), sections.get("ablation")
    if isinstance(prompts, TemplatePrompts):
        yield from _vocabulary(prompts)
        yield from _templates(prompts)
    if prompts is not None and ablation is not None:
        yield from _positions(prompts, ablation)
    if (circuit := sections.get("circuit")) is not None:
        yield from _groups(circuit)
        yield from _roles(circuit, prompts)
        yield from _paths(circuit, ablation)
    yield from edge_rules(sections)
    if (claims := sections.get("claims")) is not None:
        if not any(getattr(claims, check) for check in CHECKS):
            yield ("claims",), f"no check is declared, so nothing could fail; declare one of {', '.join(CHECKS)}"
        if (measure := sections.get("measure")) is not None and measure.metric == "kl":
            yield from _distance(claims, circuit or {})
        if claims.roles is not None:
            yield from _limits(claims.roles, circuit or {})
        if circuit is not None and sections.get("model") is not None:
            yield from _subject(Spec.model_construct(**sections), claims)


def _vocabulary(prompts: TemplatePrompts) -> Iterator[Finding]:
    for slot, words in prompts.vocabulary.items():
        if isinstance(words, dict) and len({len(entries) for entries in words.values()}) > 1:
            sizes = ", ".join(f"{name} has {len(entries)}" for name, entries in words.items())
            yield (
                ("prompts", "vocabulary", slot),
                f"the classes must have equally many words, because a word's twin has the same index: {sizes}",
            )


def _templates(prompts: TemplatePrompts) -> Iterator[Finding]:
    if not prompts.templates:
        yield ("prompts",), "no template is given; add `templates`, `include` a file that has some, or name a `file`"
    seen: dict[str, int] = {}
    for index, template in enumerate(prompts.templates):
        path: Path = ("prompts", "templates", index)
        if (first := seen.setdefault(template.id, index)) != index:
            text = f"template {first} has the id {template.id!r} too; each template is a stratum of its own"
            yield (*path, "id"), text
        for key, text in _template(template, prompts):
            yield (*path, key), text


def _template(template: Template, prompts: TemplatePrompts) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a template, by its key."""
    if template.text != template.text.strip():
        yield "text", "the text begins or ends with a space; `tokens.join` puts the space before the answer"
    slots: dict[str, tuple[str, ...]] = {"text": (), "answer": ()}
    for key in slots:
        try:
            slots[key] = slots_in(getattr(template, key))
        except ValueError as error:
            yield key, str(error)
            return
        for slot in dict.fromkeys(slots[key]):
            if slot not in prompts.vocabulary:
                yield key, f"the slot {slot!r} has no vocabulary{did_you_mean(slot, prompts.vocabulary)}"
    if template.flip not in slots["text"]:
        yield "flip", f"the text has no slot {template.flip!r}{did_you_mean(template.flip, slots['text'])}"
    if len(slots["answer"]) != 1:
        yield "answer", f"the answer must have one slot, as {{verb}}, found {len(slots['answer'])}"
        return
    yield from _flip_and_answer(template, slots["answer"][0], slots["text"], prompts)


def _flip_and_answer(
    template: Template, answer: str, text_slots: tuple[str, ...], prompts: TemplatePrompts
) -> Iterator[tuple[str, str]]:
    words = prompts.vocabulary
    if answer in text_slots and answer != template.flip:
        yield "answer", f"the answer's slot {answer!r} stands in the text too; only the flipped slot may be both"
    classed = True
    for key, slot in (("answer", answer), ("flip", template.flip)):
        entries = words.get(slot)
        if isinstance(entries, tuple):
            classed = False
            yield key, f"the slot {slot!r} has no classes, as {{singular: [..], plural: [..]}}, so it has no other side"
        elif entries and len(entries) < 2:
            yield key, f"the slot {slot!r} has one class only, so it has no other side"
        elif entries and (same := _own_twin(entries)):
            yield key, f"the slot {slot!r} has {same!r} in two classes at the same index, so nothing would differ"
    if classed and answer in words and template.flip in words and set(words[answer]) != set(words[template.flip]):
        yield (
            "flip",
            f"the flipped slot's class sets the answer, but {template.flip!r} has the classes "
            f"{', '.join(words[template.flip])} and {answer!r} has {', '.join(words[answer])}",
        )


def _own_twin(classes: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return a word that two classes have at the same index."""
    rows = zip(*classes.values(), strict=False)
    return next((word for twins in rows for word in twins if twins.count(word) > 1), None)


def _positions(prompts: TemplatePrompts | FilePrompts, ablation: Ablation) -> Iterator[Finding]:
    positions = ablation.positions
    if positions in ("all", "last"):
        return
    path: Path = ("ablation", "positions")
    if isinstance(prompts, FilePrompts):
        yield path, f"prompts from a file have no slot {positions!r}; write all or last"
        return
    for template in _without(positions, prompts):
        yield path, f"template {template!r} has no slot {positions!r}; write all, last, or a slot of every template"


def _without(slot: str, prompts: TemplatePrompts) -> list[str]:
    """Return the templates whose text does not have the slot."""
    return [template.id for template in prompts.templates if f"{{{slot}}}" not in template.text]


def _groups(circuit: Mapping[str, Group]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for name, group in circuit.items():
        if not (group.heads or group.mlps or group.layers or group.embed):
            yield ("circuit", name), "the group names no part; give heads, mlps, layers or embed"
        if group.role is not None and not (group.heads or group.layers):
            yield ("circuit", name, "role"), "only heads have a role; name the group's heads"
        for index, head in enumerate(group.heads):
            if (owner := owners.get(head)) is not None:
                yield ("circuit", name, "heads", index), f"{head} is already in the group {owner!r}"
            owners[head] = name
    yield from _two_roles(circuit)


def _two_roles(circuit: Mapping[str, Group]) -> Iterator[Finding]:
    """Yield the layers all of whose heads have one role, and some or all of them another as well."""
    named = [(name, *one) for name, group in circuit.items() if group.role for one in _with_heads(group)]
    whole = {part.layer: name for name, _, part in named if not isinstance(part, Head)}
    for name, place, part in named:
        if (owner := whole.get(part.layer, name)) != name:
            yield (
                ("circuit", name, *place),
                f"all heads of layer {part.layer} have the role of the group {owner!r}, and a head has one; name heads",
            )


def _roles(circuit: Mapping[str, Group], prompts: TemplatePrompts | FilePrompts | None) -> Iterator[Finding]:
    """Yield what is wrong with a group's role: where it looks, what it needs, and a score that no head can have."""
    named = {group.role.name for group in circuit.values() if group.role and (group.heads or group.layers)}
    for name, group in circuit.items():
        if (role := group.role) is None:
            continue
        path: Path = ("circuit", name, "role")
        kind = kind_of(role.key)
        if kind.needs is not None and kind.needs not in named:
            text = f"the role {kind.name} is defined through heads with the role {kind.needs}, and no group names some"
            yield (*path, "name"), text
        if role.at_least is not None and role.at_least > 1 and kind.at_most_one:
            yield (*path, "at_least"), f"no score of the role {kind.name} is above 1, found {role.at_least:g}"
        yield from (((*path, key), text) for key, text in _place(role, prompts))


def _place(role: Role, prompts: TemplatePrompts | FilePrompts | None) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the slot that a role looks at, by the role's key."""
    kind = kind_of(role.key)
    if role.to is None:
        if kind.place == "slot":
            yield "name", f"the role {kind.name} needs the slot that its heads look at; write `to` with its name"
    elif not kind.looks:
        yield "to", f"the role {kind.name} does not ask where in the prompt a head looks; leave `to` out"
    elif isinstance(prompts, FilePrompts):
        yield "to", f"prompts from a file have no slot {role.to!r}; leave `to` out, or use templates"
    elif prompts is not None:
        for template in _without(role.to, prompts):
            yield "to", f"template {template!r} has no slot {role.to!r}; name a slot of every template"


def _paths(circuit: Mapping[str, Group], ablation: Ablation | None) -> Iterator[Finding]:
    """Yield the roles of which a path is a part, where no path can be patched, and their heads from which none leads.

    A head reaches the queries of later layers only.
    """
    for name, group in circuit.items():
        if group.role is None or "path" not in (kind := kind_of(group.role.key)).factors:
            continue
        if ablation is not None and ablation.value != "resample":
            yield (
                ("circuit", name, "role", "name"),
                f"the role {kind.name} is read from paths, on which a head has its value of the corrupt run, and the"
                f" ablation's value is {ablation.value}; write ablation.value: resample, or drop the role",
            )
        reached = [
            part.layer
            for other in circuit.values()
            if other.role is not None and other.role.name == kind.needs
            for _, part in _with_heads(other)
        ]
        for place, part in _with_heads(group):
            if reached and part.layer >= max(reached):
                yield (
                    ("circuit", name, *place),
                    f"what layer {part.layer} writes reaches no query of the heads with the role {kind.needs}, of which"
                    f" the last stand in layer {max(reached)}, so its score as {kind.name} could only be 0; name heads"
                    " of earlier layers",
                )


def _with_heads(group: Group) -> Iterator[tuple[tuple[str, int], Head | Attention | Layer]]:
    """Yield the parts of a group that are heads or have some, each with the place in the group that names it."""
    for key in ("heads", "layers"):
        for index, name in enumerate(getattr(group, key)):
            if isinstance(part := parse_component(name), (Head, Attention, Layer)):
                yield (key, index), part


def _distance(claims: Claims, circuit: Mapping[str, Group]) -> Iterator[Finding]:
    """Yield what says nothing where the metric is kl, the distance from the clean run, which no run is nearer to."""
    for name, group in circuit.items():
        if group.role is not None and group.role.effect is not None:
            yield (
                ("circuit", name, "role", "effect"),
                "with the metric kl every part has a positive effect, since no run is nearer to the clean one than it"
                " is itself; drop this, or measure logit_diff or prob_diff",
            )
    if claims.attribution is not None and claims.attribution.method == "atp":
        yield (
            ("claims", "attribution", "method"),
            "atp follows the gradient at the clean run, from which kl is the distance: it is 0 there, and flat, so it"
            " would say nothing of any head; write eap-ig or exact, or measure logit_diff or prob_diff",
        )


def _limits(roles: Roles, circuit: Mapping[str, Group]) -> Iterator[Finding]:
    """Yield the limits on roles that no score could miss, or that decide nothing."""
    kinds = [kind_of(group.role.key) for group in circuit.values() if group.role is not None]
    if roles.drift_at_most >= 1 and kinds and all(kind.at_most_one for kind in kinds):
        names = ", ".join(dict.fromkeys(kind.name for kind in kinds))
        yield (
            ("claims", "roles", "drift_at_most"),
            f"no score of {names} is below 0 or above 1, so none could fall by more than {roles.drift_at_most:g};"
            " write less than 1",
        )
    if roles.mass_drift_at_most is not None and roles.on_move == "fail":
        yield (
            ("claims", "roles", "mass_drift_at_most"),
            "on_move is fail, so no move is forgiven and this limit decides nothing; write on_move: warn or allow, or"
            " drop it",
        )


def _subject(spec: Spec, claims: Claims) -> Iterator[Finding]:
    """Yield the claims that have nothing to speak of, and a circuit that cannot fail."""
    about_circuit = [check for check in CHECKS if check not in OF_MODEL and getattr(claims, check) is not None]
    total = spec.model.layers * spec.model.heads
    if about_circuit and not spec.members:
        yield ("circuit",), f"the circuit names no part, but {', '.join(about_circuit)} speak of one"
    elif about_circuit and len(spec.member_heads) == total:
        yield ("circuit",), f"the circuit has all {total} heads of the model, so its claims could not fail; name fewer"
    if not spec.member_heads and spec.members:
        for check in ("controls", "heads", "roles", "successor"):
            if getattr(claims, check) is not None:
                yield ("claims", check), "this check needs a head in the circuit, and no group names one"
        if claims.necessity is not None and claims.necessity.of == "heads":
            yield ("claims", "necessity", "of"), "no group names a head to take out; write of: all"
    groups = spec.circuit.values()
    for name, group in spec.circuit.items() if claims.roles is None else ():
        for key in ("at_least", "percentile_at_least", "effect"):
            if group.role is not None and getattr(group.role, key) is not None:
                text = "the check roles judges this, and it is not declared; add roles to the claims"
                yield ("circuit", name, "role", key), text
    if claims.roles is not None and not any(group.role for group in groups):
        yield ("claims", "roles"), "no group has a role; give one, as role: {name: number_mover}"
    if claims.successor is not None and not any(group.role and group.role.name == "successor" for group in groups):
        yield ("claims", "successor"), "no group has the role successor; give one, as role: {name: successor}"
    if claims.attribution is not None and 2 * claims.attribution.top > total:
        chance = _chance_of_jaccard(total, min(total, claims.attribution.top))
        yield (
            ("claims", "attribution", "top"),
            f"{claims.attribution.top} heads are more than half of the model's {total}, of which two random sets of so"
            f" many have a Jaccard index of {chance:.2f}; write {total // 2} at most",
        )


def _chance_of_jaccard(heads: int, count: int) -> float:
    """Return the mean Jaccard index of two sets of `count` heads drawn at random, as `gate.agreement` does."""
    both = range(max(0, 2 * count - heads), count + 1)
    ways = sum(comb(count, n) * comb(heads - count, count - n) * n / (2 * count - n) for n in both)
    return ways / comb(heads, count)

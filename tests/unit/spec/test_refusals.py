"""Every refusal of a spec's keys and values, with its line, its column and its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_circuits.errors import SpecError
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Project

NUMBERS_AS_HEADS = [
    ("9.10", "`9.10` is read by YAML as the number 9.1, so head 10 would become another; write L9H10"),
    ("9.1", "`9.1` is read by YAML as the number 9.1, not as a head; write L9H1"),
    ("9:6", "`9:6` is read by YAML as the number 546, not as a head; write L9H6"),
    ("9_10", "`9_10` is read by YAML as the number 910, not as a head; write L9H10"),
    ("910", "`910` is read by YAML as the number 910, not the name of a part; write a name such as L9H10"),
    ("on", "`on` is read by YAML as true, not the name of a part; write a name such as L9H10"),
    ("~", "`~` is read by YAML as nothing, not the name of a part; write a name such as L9H10"),
    ("[L1H1]", "expected the name of a part, such as L9H10, found a list"),
]


@pytest.mark.parametrize(("text", "reason"), NUMBERS_AS_HEADS)
def test_what_yaml_does_not_read_as_text_names_no_head(
    text: str, reason: str, project: Project, change: Callable[..., str]
) -> None:
    spec = change(("heads: [L2H0, L3.attn]", f"heads: [L2H0, {text}]"))

    assert project.problems(spec) == [f"specs/a.circuit.yaml:19:32: circuit.number_mover.heads.1: {reason}"]


VALUES = [
    # (replaced, by, line:column, path, text)
    ("format: 1", "format: 2", "1:9", "format", "expected 1, found 2"),
    ("format: 1", "format: one", "1:9", "format", "expected 1, found the text 'one'"),
    ("format: 1\n", "", "1:1", "format", "this key is missing; write `format: 1`"),
    ("about: a test", "about: 12", "2:8", "about", '`12` is read by YAML as the number 12; write "12" in quotes'),
    ("layers: 4", "layers: 012", "3:65", "model.layers", "`012` is read by YAML as the number 10; write 10 if that is"),
    ("layers: 4", "layers: 4.0", "3:65", "model.layers", "expected a whole number, found 4.0"),
    ("layers: 4", 'layers: "4"', "3:65", "model.layers", "expected a whole number, found the text '4'"),
    (
        "layers: 4",
        "layers: yes",
        "3:65",
        "model.layers",
        "expected a whole number, found `yes`, which YAML reads as tr",
    ),
    ("layers: 4", "layers: 0", "3:65", "model.layers", "this should be greater than or equal to 1, found 0"),
    ("heads: 12}", "heads: 1001}", "3:75", "model.heads", "this should be less than or equal to 1000, found 1001"),
    (", layers: 4", "", "3:8", "model.layers", "this key is missing"),
    ("gpt2", '""', "3:51", "model.architecture", "this must not be empty"),
    (
        "bos: auto",
        "bos: no",
        "4:15",
        "tokens.bos",
        "expected 'auto', 'always' or 'never', found `no`, which YAML reads",
    ),
    ("bos: auto", "bos: allways", "4:15", "tokens.bos", "found the text 'allways'; did you mean 'always'?"),
    (
        "key]",
        "no]",
        "7:39",
        "prompts.vocabulary.subject.singular.2",
        '`no` is read by YAML as false; write "no" in quote',
    ),
    (
        "key]",
        "17]",
        "7:39",
        "prompts.vocabulary.subject.singular.2",
        '`17` is read by YAML as the number 17; write "17"',
    ),
    ("key]", ".5]", "7:39", "prompts.vocabulary.subject.singular.2", "`.5` is read by YAML as the number 0.5; write"),
    ("key]", "~]", "7:39", "prompts.vocabulary.subject.singular.2", '`~` is read by YAML as nothing; write "~" in'),
    ("key]", '""]', "7:39", "prompts.vocabulary.subject.singular.2", "this must not be empty"),
    ("[near, behind]", "[]", "9:11", "prompts.vocabulary.near", "this must not be empty"),
    ("[near, behind]", "{}", "9:11", "prompts.vocabulary.near", "this must not be empty"),
    ("[near, behind]", "near", "9:11", "prompts.vocabulary.near", "expected a list, found the text 'near'; write ['ne"),
    ("    unused:", "    last:", "10:5", "prompts.vocabulary.last", "a slot cannot be called 'last': ablation.positio"),
    ("    unused:", "    a b:", "10:5", "prompts.vocabulary.'a b'", "'a b' is not a name; a name matches ^[A-Za-z]"),
    ("id: plain", "id: a/b", "13:12", "prompts.templates.1.id", "'a/b' is not a name; a name matches ^[A-Za-z0-9]"),
    ("per_template: 16", "per_template: 7", "14:17", "prompts.per_template", "should be greater than or equal to 8"),
    ("per_template: 16", "per_template: 1e1", "14:17", "prompts.per_template", "a whole number, found the text '1e1'"),
    ("seed: 1", "seed: -1", "15:9", "prompts.seed", "this should be greater than or equal to 0, found -1"),
    (
        "metric: logit_diff",
        "metric: logits",
        "16:19",
        "measure.metric",
        "expected 'logit_diff', 'prob_diff' or 'kl', fo",
    ),
    ("value: resample", "value: patch", "17:19", "ablation.value", "expected 'resample', 'zero' or 'mean', found the"),
    (
        "{mlps: [L0.mlp], layers: [L1], embed: true}",
        "[L1]",
        "20:12",
        "circuit.readers",
        "expected a mapping, found a l",
    ),
    ("embed: true", "embed: maybe", "20:50", "circuit.readers.embed", "expected true or false, found the text 'maybe'"),
    ("L0.mlp", "L0", "20:20", "circuit.readers.mlps.0", "'L0' names something else; here only an MLP such as L9.mlp"),
    ("[L1]", "[L1H1]", "20:38", "circuit.readers.layers.0", "'L1H1' names something else; here only a whole layer"),
    (
        "L2H0",
        "L2",
        "19:26",
        "circuit.number_mover.heads.0",
        "'L2' names something else; here only a head such as L9H10",
    ),
    ("L2H0", "L2KV0", "19:26", "circuit.number_mover.heads.0", "'L2KV0' names a key/value head, which only prepares"),
    ("L2H0", "L2HO", "19:26", "circuit.number_mover.heads.0", "'L2HO' names no part of a model; a head is written L9"),
    (
        "L2H0",
        "a2.h12",
        "19:26",
        "circuit.number_mover.heads.0",
        "L2H12 is outside the model: model.heads is 12, so the",
    ),
    (
        "L3.attn",
        "L4.attn",
        "19:32",
        "circuit.number_mover.heads.1",
        "L4.attn is outside the model: model.layers is 4, s",
    ),
    ("L0.mlp", "m9", "20:20", "circuit.readers.mlps.0", "L9.mlp is outside the model: model.layers is 4, so they cou"),
    (
        "at_least: 0.5}}",
        "at_least: 0}}",
        "19:79",
        "circuit.number_mover.role.at_least",
        "this should be greater than 0, found 0",
    ),
    (
        "at_least: 0.5}}",
        "percentile_at_least: 1.5}}",
        "19:90",
        "circuit.number_mover.role.percentile_at_least",
        "this should be less than or equal to 1, found 1.5",
    ),
    (
        "at_least: 0.5}}",
        "effect: up}}",
        "19:77",
        "circuit.number_mover.role.effect",
        "expected 'positive' or 'negative', found the text 'up'",
    ),
    (
        "at_least: 0.5}}",
        "to: all}}",
        "19:73",
        "circuit.number_mover.role.to",
        "a slot cannot be called 'all'",
    ),
    (
        "name: number_mover",
        "name: mover",
        "19:55",
        "circuit.number_mover.role.name",
        "'conjunction_tracker', found the text 'mover'; did you mean 'name_mover'?",
    ),
    (
        "  roles:",
        "  roles: {on_move: ask}",
        "24:20",
        "claims.roles.on_move",
        "expected 'fail', 'warn' or 'allow'",
    ),
    (
        "  roles:",
        "  roles: {mass_drift_at_most: 0}",
        "24:31",
        "claims.roles.mass_drift_at_most",
        "this should be greater than 0, found 0",
    ),
    (
        "accuracy_at_least: 0.90",
        "accuracy_at_least: 1",
        "22:34",
        "claims.behaviour.accuracy_at_least",
        "be less than 1",
    ),
    ("loss_at_most: 0.20", "loss_at_most: 0", "22:54", "claims.behaviour.loss_at_most", "greater than 0, found 0"),
    (
        "loss_at_most: 0.20",
        "loss_at_most: -0.1",
        "22:54",
        "claims.behaviour.loss_at_most",
        "greater than 0, found -0.1",
    ),
    (
        "loss_at_most: 0.20",
        "loss_at_most: 1e-3",
        "22:54",
        "claims.behaviour.loss_at_most",
        "expected a number, found the text '1e-3'; YAML 1.1 reads 1e-3 as text, write 0.001",
    ),
    (
        "loss_at_most: 0.20",
        "loss_at_most: 1_0.0",
        "22:54",
        "claims.behaviour.loss_at_most",
        "`1_0.0` is read by YAML as",
    ),
    ("keep_at_least: 0.5", "keep_at_least: 1.01", "23:53", "claims.heads.keep_at_least", "less than or equal to 1"),
    ("false_alarm: 0.01", "false_alarm: 0.5", "25:22", "rates.false_alarm", "this should be less than 0.5, found 0.5"),
    ("missed_drift: 0.01", "missed_drift: 0", "25:42", "rates.missed_drift", "this should be greater than 0, found 0"),
    ("missed_drift: 0.01", "missed_drift: yes", "25:42", "rates.missed_drift", "expected a number, found `yes`, which"),
]


@pytest.mark.parametrize(("old", "new", "place", "path", "text"), VALUES, ids=[f"{row[3]}: {row[1]}" for row in VALUES])
def test_a_value_is_refused_where_it_stands(
    old: str, new: str, place: str, path: str, text: str, project: Project, change: Callable[..., str]
) -> None:
    found = project.problems(change((old, new)))

    assert len(found) == 1, found
    assert found[0].startswith(f"specs/a.circuit.yaml:{place}: {path}: ")
    assert text in found[0]


UNKNOWN = [
    ("about:", "abuot:", "2:1", "abuot", "unknown key 'abuot'; did you mean 'about'?"),
    (
        "per_template:",
        "per_templat:",
        "14:3",
        "prompts.per_templat",
        "unknown key 'per_templat'; did you mean 'per_tem",
    ),
    ("role: {name", "rol: {name", "19:42", "circuit.number_mover.rol", "unknown key 'rol'; did you mean 'role'?"),
    (
        "keep_at_least",
        "keeps",
        "23:38",
        "claims.heads.keeps",
        "known here: share_drift_at_most, weaker_at_most, keep_at_",
    ),
    ("  roles:", "  role:", "24:3", "claims.role", "unknown key 'role'; did you mean 'roles'?"),
    (
        "flip: subject}\n    - {id: p",
        "flop: subject, flip: subject}\n    - {id: p",
        "12:69",
        "prompts.templates.0.flop",
        "unknown key 'flop'; did you mean 'flip'?",
    ),
    (
        "rates:",
        "fuzz: 1\nrates:",
        "25:1",
        "fuzz",
        "unknown key 'fuzz'; known here: format, about, source, verification, model",
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "path", "text"), UNKNOWN, ids=[row[3] for row in UNKNOWN])
def test_an_unknown_key_is_refused_with_what_is_meant(
    old: str, new: str, place: str, path: str, text: str, project: Project, change: Callable[..., str]
) -> None:
    found = [line for line in project.problems(change((old, new))) if "unknown key" in line]

    assert len(found) == 1, found
    assert found[0].startswith(f"specs/a.circuit.yaml:{place}: {path}: ")
    assert text in found[0]


def test_all_problems_of_a_file_are_told_at_once_in_its_order(project: Project, change: Callable[..., str]) -> None:
    text = change(
        ("about: a test", "abuot: a test"),
        ("layers: 4", "layers: &four 4"),
        ("near: [near, behind]", "near: [near, 9:30]"),
        ("[L2H0, L3.attn]", "[L2H0, 2.10, L9H9]"),
        ("  roles:", "  roles: [1]"),
        ("false_alarm: 0.01", "false_alarm: 1"),
    )

    assert [line.split(": ")[0].removeprefix("specs/a.circuit.yaml:") for line in project.problems(text)] == [
        "2:1",
        "3:65",
        "9:18",
        "19:32",
        "19:38",
        "24:10",
        "25:22",
    ]


def test_a_broken_rule_is_told_beside_an_unknown_key_of_the_same_section(
    project: Project, change: Callable[..., str]
) -> None:
    found = project.problems(change(("seed: 1", "sed: 1"), ("{subject} {near} it", "{subject} {ner} it")))

    assert found == [
        "specs/a.circuit.yaml:12:24: prompts.templates.0.text: the slot 'ner' has no vocabulary; did you mean 'near'?",
        "specs/a.circuit.yaml:15:3: prompts.sed: unknown key 'sed'; did you mean 'seed'?",
    ]


def test_a_missing_section_is_told_and_the_others_are_still_checked(
    project: Project, change: Callable[..., str]
) -> None:
    text = change(("L0.mlp", "foo"), ("flip: subject}\n    - {id: p", "flip: near}\n    - {id: p"))
    model = next(line for line in text.split("\n") if line.startswith("model:"))

    found = project.problems(text.replace(model, "# no model"))

    assert found[0] == "specs/a.circuit.yaml:1:1: model: this key is missing"
    assert "12:75: prompts.templates.0.flip: the slot 'near' has no classes" in found[1]
    assert "20:20: circuit.readers.mlps.0: 'foo' names no part of a model" in found[2]
    assert len(found) == 3


@pytest.mark.parametrize("section", ["model", "prompts", "claims"])
def test_a_section_that_is_missing_breaks_no_rule(section: str, project: Project, good: str) -> None:
    start = good.index(f"{section}:")
    rest = good[start:].split("\n")
    end = next(n for n, line in enumerate(rest[1:], start=1) if not line.startswith(" "))

    assert project.problems(good[:start] + "\n".join(rest[end:])) == [
        f"specs/a.circuit.yaml:1:1: {section}: this key is missing"
    ]


@pytest.mark.parametrize("text", ["- 1", "just text", "12"])
def test_a_file_that_is_no_mapping_is_refused(text: str, project: Project) -> None:
    assert project.problems(text) == ["specs/a.circuit.yaml:1:1: a spec is a mapping that begins with `format: 1`"]


def test_a_file_that_cannot_be_read_is_refused(project: Project) -> None:
    with pytest.raises(SpecError, match=r"^gone.circuit.yaml:1:1: the file cannot be read: No such file or directory$"):
        load_spec(project.root / "gone.circuit.yaml", root=project.root)

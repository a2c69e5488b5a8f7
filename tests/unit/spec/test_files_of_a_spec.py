"""Files that a spec names: included vocabularies and templates, and files of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_circuits.errors import SpecError
from pytest_circuits.spec.loader import load_spec
from pytest_circuits.spec.schema import FilePrompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Project

SHARED = """\
vocabulary:
  near: [beside]
  other: {singular: [table], plural: [tables]}
templates:
  - {id: shared, text: "the {subject} {near} the {other}", answer: "{verb}", flip: subject}
  - {id: plain, text: "my {subject}", answer: "{verb}", flip: subject}
"""


def with_include(change: Callable[..., str], include: str) -> str:
    return change(("prompts:\n", f"prompts:\n  include: {include}\n"))


def with_file(change: Callable[..., str], name: str, **others: str) -> str:
    text = change(*((f"{key}: {old}", f"{key}: {new}") for key, (old, new) in others.items()))
    start, end = text.index("  vocabulary:"), text.index("measure:")
    return f"{text[:start]}  file: {name}\n{text[end:]}"


def test_an_included_file_is_merged_under_what_the_spec_says_itself(
    project: Project, change: Callable[..., str]
) -> None:
    project.write(SHARED, "shared/words.yaml")
    file = project.load(with_include(change, "../shared/words.yaml"))
    prompts = file.spec.prompts

    assert prompts.vocabulary["other"] == {"singular": ("table",), "plural": ("tables",)}
    assert prompts.vocabulary["near"] == ("near", "behind")
    assert [(it.id, it.text) for it in prompts.templates] == [
        ("near", "the {subject} {near} it"),
        ("plain", "the {subject}"),
        ("shared", "the {subject} {near} the {other}"),
    ]
    assert file.line("prompts", "templates", 1) == 14
    assert file.line("prompts", "templates", 2) == 12


def test_a_list_of_files_may_be_included_and_prompts_may_consist_of_it(project: Project, good: str) -> None:
    start, end = good.index("  vocabulary:"), good.index("  per_template:")
    project.write("templates:\n  - {id: t, text: 'the {subject}', answer: '{verb}', flip: subject}\n", "t.yaml")
    words = good[start : good.index("  templates:")].replace("\n  ", "\n")[2:]
    project.write(words, "w.yaml")
    file = project.load(good[:start] + "  include: [../w.yaml, ../t.yaml]\n" + good[end:])

    assert [template.id for template in file.spec.prompts.templates] == ["t"]
    assert set(file.spec.prompts.vocabulary) == {"subject", "verb", "near", "unused"}


def test_a_problem_of_an_included_file_is_told_with_its_own_name_and_place(
    project: Project, change: Callable[..., str]
) -> None:
    project.write(
        SHARED.replace("[table]", "[no]").replace("{id: shared", "{anser: x, id: shared"), "shared/words.yaml"
    )

    assert project.problems(with_include(change, "../shared/words.yaml")) == [
        "shared/words.yaml:3:22: prompts.vocabulary.other.singular.0: `no` is read by YAML as false; "
        'write "no" in quotes if the text is meant',
        "shared/words.yaml:5:6: prompts.templates.2.anser: unknown key 'anser'; did you mean 'answer'?",
    ]


INCLUDED = [
    ("vocabulary: &x {}", "shared/w.yaml:1:13: vocabulary: anchors are not allowed: remove &x"),
    ("vocabulary: {a: *x}", "shared/w.yaml:1:17: vocabulary.a: aliases are not allowed: write out what *x stands for"),
    ("vocabulary: [", "shared/w.yaml:2:1: this is not YAML: while parsing a flow node did not find expected node"),
    ("", "shared/w.yaml:1:1: the file is empty"),
    ("- a", "shared/w.yaml:1:1: an included file is a mapping of vocabulary and templates"),
    ("vocabulary: [a]", "shared/w.yaml:1:13: vocabulary: expected a mapping of slots to words"),
    ("templates: a", "shared/w.yaml:1:12: templates: expected a list of templates"),
    ("vocabulry: {}", "shared/w.yaml:1:1: vocabulry: unknown key 'vocabulry'; did you mean 'vocabulary'?"),
    ("include: other.yaml", "shared/w.yaml:1:1: include: unknown key 'include'; known here: vocabulary, templates"),
    ("vocabulary: {a b: [c]}", "shared/w.yaml:1:14: prompts.vocabulary.'a b': 'a b' is not a name"),
    ("templates: [1]", "shared/w.yaml:1:13: prompts.templates.2: expected a mapping, found 1"),
    ("vocabulary: {n: [9:30]}", "shared/w.yaml:1:18: prompts.vocabulary.n.0: `9:30` is read by YAML as the number 570"),
]


@pytest.mark.parametrize(("text", "expected"), INCLUDED, ids=[text for text, _ in INCLUDED])
def test_an_included_file_keeps_the_rules_of_a_spec(
    text: str, expected: str, project: Project, change: Callable[..., str]
) -> None:
    project.write(text + "\n" if text else "", "shared/w.yaml")
    found = project.problems(with_include(change, "[../shared/w.yaml]"))

    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_a_slot_that_two_included_files_have_is_refused(project: Project, change: Callable[..., str]) -> None:
    project.write("vocabulary: {other: [a]}", "specs/one.yaml")
    project.write("vocabulary: {other: [b]}", "specs/two.yaml")

    assert project.problems(with_include(change, "[one.yaml, two.yaml]")) == [
        "specs/two.yaml:1:14: vocabulary.other: specs/one.yaml has the slot 'other' too; "
        "keep one, or say it in the spec"
    ]


NAMED = [
    ("../../w.yaml", "'../../w.yaml' lies outside the project; a spec may only name files inside it"),
    ("/etc/passwd", "'/etc/passwd' lies outside the project; a spec may only name files inside it"),
    ("gone.yaml", "there is no file 'gone.yaml'; the path counts from the folder of this file"),
    ('"a\\0b"', "the file 'a\\x00b' cannot be read: "),
    (".", "the file '.' cannot be read: Is a directory"),
    ("x" * 300, "cannot be read: File name too long"),
    ("link.yaml", "'link.yaml' lies outside the project; a spec may only name files inside it"),
]


@pytest.mark.parametrize(("name", "text"), NAMED, ids=[name[:20] for name, _ in NAMED])
@pytest.mark.parametrize("key", ["include", "file"])
def test_a_path_that_may_not_be_read_is_refused_where_it_is_named(
    name: str, text: str, key: str, project: Project, change: Callable[..., str]
) -> None:
    project.root = project.root / "inner"
    outside = project.write(SHARED, "../outside.yaml")
    project.write("", "specs/x")
    (project.root / "specs" / "link.yaml").symlink_to(outside)
    spec = with_include(change, name) if key == "include" else with_file(change, name)
    found = project.problems(spec)

    assert len(found) == 1, found
    assert found[0].startswith(f"specs/a.circuit.yaml:6:{12 if key == 'include' else 9}: prompts.{key}: ")
    assert text in found[0]


@pytest.mark.parametrize("value", ["12", "{a: b}"])
def test_an_include_that_names_no_file_is_refused(value: str, project: Project, change: Callable[..., str]) -> None:
    found = project.problems(with_include(change, value))

    assert len(found) == 1
    assert found[0].startswith("specs/a.circuit.yaml:6:12: prompts.include: expected a list, found ")


@pytest.mark.parametrize("text", ["prompts: {}", "prompts: {vocabulary: {a: [b]}}"])
def test_prompts_need_a_template_an_include_or_a_file(text: str, project: Project, good: str) -> None:
    start, end = good.index("prompts:"), good.index("measure:")

    assert project.problems(good[:start] + text + "\n" + good[end:]) == [
        "specs/a.circuit.yaml:5:10: prompts: no template is given; add `templates`, `include` a file that has some, "
        "or name a `file`"
    ]


def test_prompts_may_come_from_a_file(project: Project, change: Callable[..., str]) -> None:
    project.write("clean,answer,foil", "specs/p.csv")

    assert project.load(with_file(change, "p.csv")).spec.prompts == FilePrompts(file="p.csv")


def test_templates_cannot_stand_beside_a_file(project: Project, change: Callable[..., str]) -> None:
    project.write("clean,answer,foil", "specs/p.csv")

    assert project.problems(change(("  per_template: 16", "  file: p.csv")))[0] == (
        "specs/a.circuit.yaml:6:3: prompts.vocabulary: the key 'vocabulary' cannot stand beside `file`: "
        "prompts come from templates or from a file"
    )


def test_a_file_has_no_slot_to_replace_at(project: Project, change: Callable[..., str]) -> None:
    project.write("clean,answer,foil", "specs/p.csv")
    found = project.problems(with_file(change, "p.csv", positions=("all", "subject")))

    assert [line.split(": ", 1)[1] for line in found] == [
        "ablation.positions: prompts from a file have no slot 'subject'; write all or last"
    ]


def test_the_identity_follows_the_contents_of_a_prompt_file_and_not_its_name(
    project: Project, change: Callable[..., str]
) -> None:
    project.write("clean,answer,foil", "specs/p.csv")
    first = project.load(with_file(change, "p.csv")).identity
    project.write("clean,answer,foil", "specs/q.csv")
    moved = project.load(with_file(change, "q.csv")).identity
    project.write("clean,answer,foil,template", "specs/q.csv")

    assert first == moved
    assert first != project.load(with_file(change, "q.csv")).identity


def test_the_identity_follows_the_contents_of_an_include_and_not_its_name(
    project: Project, change: Callable[..., str]
) -> None:
    project.write(SHARED, "specs/one.yaml")
    project.write(SHARED, "specs/two.yaml")
    one, two = (project.load(with_include(change, f"{name}.yaml")).identity for name in ("one", "two"))
    project.write(SHARED.replace("table]", "lamp]"), "specs/two.yaml")

    assert one == two
    assert one != project.load(with_include(change, "two.yaml")).identity


def test_a_spec_outside_the_root_is_called_by_its_whole_path(project: Project, good: str) -> None:
    path = project.write(good)
    other = project.root / "other"
    other.mkdir()

    assert load_spec(path, root=other).name == path.as_posix()
    project.write(good.replace("format: 1", "format: 3"))
    with pytest.raises(SpecError, match=f"^{path.as_posix()}:1:9: format: expected 1, found 3$"):
        load_spec(path, root=other)

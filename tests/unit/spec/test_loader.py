"""What a loaded spec says of itself: its values, its id, its lines and its identity."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_circuits.spec.components import Head, Mlp
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Project

ONE_HEAD = "circuit: {a: {heads: [L0H0]}}"


def test_a_good_spec_has_the_values_of_its_file(project: Project) -> None:
    spec = project.load().spec

    assert (spec.model.checkpoint, spec.model.layers, spec.model.heads) == ("builtin:tiny", 4, 12)
    assert spec.prompts.vocabulary["subject"] == {
        "singular": ("dog", "author", "key"),
        "plural": ("dogs", "authors", "keys"),
    }
    assert spec.prompts.vocabulary["near"] == ("near", "behind")
    assert spec.claims.heads.share_drift_at_most == 0.10


def test_what_is_not_said_takes_the_documented_defaults(project: Project) -> None:
    spec = project.load(
        "format: 1\nmodel: {checkpoint: c, architecture: gpt2, layers: 2, heads: 2}\nprompts:\n"
        "  vocabulary: {a: {x: [b], y: [c]}}\n  templates: [{id: t, text: '{a}', answer: '{a}', flip: a}]\n"
        f"{ONE_HEAD}\n"
        "claims: {behaviour: , faithfulness: , necessity: , controls: , heads: }\n"
    ).spec

    assert spec.model_dump(exclude={"format", "model", "circuit"}) == {
        "about": "",
        "source": "",
        "verification": None,
        "tokens": {"bos": "auto", "join": " "},
        "prompts": {
            "include": (),
            "vocabulary": {"a": {"x": ("b",), "y": ("c",)}},
            "templates": ({"id": "t", "text": "{a}", "answer": "{a}", "flip": "a"},),
            "per_template": 16,
            "seed": 1,
        },
        "measure": {"metric": "logit_diff", "position": "last"},
        "ablation": {
            "value": "resample",
            "source": "corrupt",
            "granularity": "head",
            "positions": "all",
            "floor": "empty",
            "align": "equal",
        },
        "edges": (),
        "claims": {
            "behaviour": {"accuracy_at_least": 0.90, "loss_at_most": 0.20},
            "faithfulness": {"at_least": 0.80, "drift_at_most": 0.10},
            "necessity": {"of": None, "at_least": 0.80, "drift_at_most": 0.10},
            "controls": {"beats_random": 0.90, "match": "layer"},
            "heads": {"share_drift_at_most": 0.10, "weaker_at_most": None, "keep_at_least": 0.5},
            "edges": None,
            "roles": None,
            "attribution": None,
            "successor": None,
        },
        "rates": {"false_alarm": 0.01, "missed_drift": 0.01},
    }


def test_members_are_the_groups_united_with_layers_expanded(project: Project) -> None:
    spec = project.load().spec

    heads = {Head(2, 0), *(Head(3, n) for n in range(12)), *(Head(1, n) for n in range(12))}
    assert spec.members == heads | {Mlp(0), Mlp(1)}
    assert spec.member_heads == tuple(sorted(heads))
    assert spec.embed


def test_roles_and_groups_name_their_heads(project: Project) -> None:
    spec = project.load().spec

    assert spec.roles == {"number_mover": (Head(2, 0), *(Head(3, n) for n in range(12)))}
    assert [spec.group_of(head) for head in (Head(2, 0), Head(3, 11), Head(1, 5), Head(0, 0))] == [
        "number_mover",
        "number_mover",
        "readers",
        None,
    ]


def test_a_group_that_lists_a_head_wins_over_one_that_has_its_layer(
    project: Project, change: Callable[..., str]
) -> None:
    spec = project.load(
        change(("{heads: [L2H0, L3.attn]", "{heads: [L2.attn]"), ("L0.mlp]", "L0.mlp], heads: [a2.h7]"))
    ).spec

    assert spec.group_of(Head(2, 7)) == "readers"
    assert spec.group_of(Head(2, 6)) == "number_mover"


def test_declared_checks_come_in_their_own_order_whatever_the_file_says(
    project: Project, change: Callable[..., str]
) -> None:
    spec = project.load(change(("claims:\n", "claims:\n  controls:\n  faithfulness: {}\n"))).spec

    assert spec.declared == ("behaviour", "faithfulness", "controls", "heads", "roles")


def test_necessity_takes_out_heads_where_some_are_named_unless_the_claim_says_all(
    project: Project, change: Callable[..., str]
) -> None:
    assert project.load(change(("claims:\n", "claims:\n  necessity:\n"))).spec.necessity_of == "heads"
    assert project.load(change(("claims:\n", "claims:\n  necessity: {of: all}\n"))).spec.necessity_of == "all"


def test_the_id_is_the_path_from_the_root_without_the_suffix(project: Project, good: str) -> None:
    file = load_spec(project.write(good, "specs/tiny/a.b.circuit.yaml"), root=project.root)

    assert (file.circuit, file.name) == ("specs/tiny/a.b", "specs/tiny/a.b.circuit.yaml")


def test_the_id_does_not_depend_on_how_the_root_is_written(
    project: Project, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.write(good)
    monkeypatch.chdir(project.root)

    assert load_spec(path.relative_to(project.root), root=project.root).circuit == "specs/a"
    assert load_spec(path, root=project.root.relative_to(project.root)).circuit == "specs/a"


def test_a_claim_knows_its_line_and_what_is_deeper_the_nearest_one(project: Project) -> None:
    file = project.load()

    assert file.line("claims", "behaviour") == 22
    assert file.line("claims", "heads") == 23
    assert file.line("claims", "roles") == 24
    assert file.line("claims", "roles", "drift_at_most") == 24
    assert file.line("circuit", "number_mover", "heads", 1) == 19
    assert file.line("nothing") == 1


def test_the_hash_of_the_file_is_of_its_bytes(project: Project, good: str) -> None:
    assert project.load().sha256 == hashlib.sha256(good.encode()).hexdigest()


SAME = [
    ("about: a test", "about: another"),
    ("about: a test", "source: arXiv:1234.56789"),
    ("about: a test", "# a comment"),
    ("builtin:tiny", "builtin:other"),
    ("loss_at_most: 0.20", "loss_at_most: 0.30"),
    ("at_least: 0.5}}", "at_least: 0.7}}"),
    ("at_least: 0.5}}", "percentile_at_least: 0.7}}"),
    ("at_least: 0.5}}", "effect: positive}}"),
    ("  roles:", "  roles: {on_move: warn, mass_drift_at_most: 0.2}"),
    ("keep_at_least: 0.5", "weaker_at_most: 0.3"),
    ("  heads: {share", "  faithfulness:\n  heads: {share"),
    ("false_alarm: 0.01", "false_alarm: 0.02"),
    ("L2H0, L3.attn", "L3.attn, a2.h0"),
    ("embed: true}", "embed: true, role: {name: number_mover}}"),
    ("  readers:", "  others:"),
]


@pytest.mark.parametrize(("old", "new"), SAME, ids=[new for _, new in SAME])
def test_what_changes_no_measurement_keeps_the_identity(
    old: str, new: str, project: Project, change: Callable[..., str]
) -> None:
    assert project.load().identity == project.load(change((old, new))).identity


OTHER = [
    ("bos: auto", "bos: never"),
    ('join: " "', 'join: ""'),
    ("behind]", "beside]"),
    ("the {subject} {near} it", "a {subject} {near} it"),
    ("per_template: 16", "per_template: 17"),
    ("seed: 1", "seed: 2"),
    ("metric: logit_diff", "metric: prob_diff"),
    ("value: resample", "value: zero"),
    ("positions: all", "positions: last"),
    ("floor: empty", "floor: corrupt"),
    ("align: equal", "align: slot"),
    ("L2H0", "L2H1"),
    ("L0.mlp", "L2.mlp"),
    (", embed: true", ""),
    ("name: number_mover", "name: successor"),
    ("name: number_mover", "to: subject, name: number_mover"),
    ("  heads: {share", "  necessity: {of: all}\n  heads: {share"),
]


@pytest.mark.parametrize(("old", "new"), OTHER, ids=[new for _, new in OTHER])
def test_what_changes_a_measurement_changes_the_identity(
    old: str, new: str, project: Project, change: Callable[..., str]
) -> None:
    assert project.load().identity != project.load(change((old, new))).identity


ROLE = ("name: number_mover, at_least: 0.5", "name: successor")


def test_a_claim_s_own_measurement_is_of_those_alone_that_declare_it(
    project: Project, change: Callable[..., str]
) -> None:
    def identity(claims: str, *changes: tuple[str, str]) -> str:
        return project.load(change(ROLE, ("  roles:", f"  roles:{claims}"), *changes)).identity

    plain = identity("")
    attributed, counted = identity("\n  attribution:"), identity("\n  successor:")

    assert "attribution" not in project.load(change(ROLE)).measured
    assert len({plain, attributed, counted, identity("\n  attribution: {method: exact}")}) == 4
    assert attributed == identity("\n  attribution: {method: eap-ig, top: 3, on_fall: fail, spearman_at_least: 0.5}")
    assert counted == identity(
        "\n  successor: {edit_at_least: 0.5, tasks_at_least: {letters: 1.0}, drift_at_most: 1.0}"
    )


def test_heads_with_the_role_are_what_is_measured_of_a_successor(project: Project, change: Callable[..., str]) -> None:
    claim = ("  roles:", "  successor:")
    found = project.load(change(("[L2H0, L3.attn]", "[L2H1, L2H0]"), ROLE, claim))
    more = project.load(
        change(
            ("[L2H0, L3.attn]", "[L2H1, L2H0]"), ROLE, claim, ("embed: true}", f"embed: true, role: {{{ROLE[1]}}}}}")
        )
    )

    assert found.measured["successor"] == ["L2H0", "L2H1"]
    assert found.identity != more.identity


def test_a_spec_never_changes(project: Project) -> None:
    spec = project.load().spec

    with pytest.raises(ValueError, match="frozen"):
        spec.rates.false_alarm = 0.5


def test_loading_imports_nothing_heavy(project: Project, good: str) -> None:
    path = project.write(good)
    code = (
        "import sys, pathlib\nfrom pytest_circuits.spec.loader import load_spec\n"
        f"load_spec(pathlib.Path({str(path)!r}), root=pathlib.Path({str(project.root)!r}))\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'hypothesis', 'pytest'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed == "[]\n"

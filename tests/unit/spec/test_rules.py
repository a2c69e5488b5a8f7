"""What a spec must keep beyond the types of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_circuits.gate.agreement import chance_of_jaccard
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Project

PLAIN = '{id: plain, text: "the {subject}", answer: "{verb}", flip: subject}'

RULES = [
    # (replaced, by, line:column, path, text)
    (
        ", keys]}",
        "]}",
        "7:14",
        "prompts.vocabulary.subject",
        "the classes must have equally many words, because a word's twin has the same index: singular has 3, plu",
    ),
    (
        "id: plain",
        "id: near",
        "13:12",
        "prompts.templates.1.id",
        "template 0 has the id 'near' too; each template is a stratum of its own",
    ),
    (
        PLAIN,
        PLAIN.replace('}"', '} "', 1),
        "13:25",
        "prompts.templates.1.text",
        "the text begins or ends with a space; `tokens.",
    ),
    (
        PLAIN,
        PLAIN.replace('"the', '" the'),
        "13:25",
        "prompts.templates.1.text",
        "the text begins or ends with a space",
    ),
    (
        PLAIN,
        PLAIN.replace("the {", "the { {"),
        "13:25",
        "prompts.templates.1.text",
        "a brace here belongs to no slot; a slot",
    ),
    (
        PLAIN,
        PLAIN.replace("the {", "{subjct} {"),
        "13:25",
        "prompts.templates.1.text",
        "the slot 'subjct' has no vocabulary; did you mean 'subject'?",
    ),
    (
        PLAIN,
        PLAIN.replace("{verb}", "{be}"),
        "13:50",
        "prompts.templates.1.answer",
        "the slot 'be' has no vocabulary; known here: subject, verb, near, unused",
    ),
    (
        PLAIN,
        PLAIN.replace("{verb}", "is"),
        "13:50",
        "prompts.templates.1.answer",
        "the answer must have one slot, as {verb}, found 0",
    ),
    (
        PLAIN,
        PLAIN.replace("{verb}", "{verb}{verb}"),
        "13:50",
        "prompts.templates.1.answer",
        "must have one slot, as {verb}, fou",
    ),
    (
        PLAIN,
        PLAIN.replace("{verb}", "{near}"),
        "13:50",
        "prompts.templates.1.answer",
        "the slot 'near' has no classes, as {singular: [..], plural: [..]}, so it has no other side",
    ),
    (
        PLAIN,
        PLAIN.replace("flip: subject", "flip: near").replace("the {", "{near} {"),
        "13:69",
        "prompts.templates.1.flip",
        "the slot 'near' has no classes",
    ),
    (
        PLAIN,
        PLAIN.replace("flip: subject", "flip: subjet"),
        "13:66",
        "prompts.templates.1.flip",
        "the text has no slot 'subjet'; did you mean 'subject'?",
    ),
    (
        PLAIN,
        PLAIN.replace("the {", "{verb} {"),
        "13:53",
        "prompts.templates.1.answer",
        "the answer's slot 'verb' stands in the text too; only the flipped slot may be both",
    ),
    (
        "{singular: [is, was], plural: [are, were]}",
        "{one: [is, was], many: [are, were]}",
        "12:75",
        "prompts.templates.0.flip",
        "the flipped slot's class sets the answer, but 'subject' has the classes singular, plural and 'verb'",
    ),
    (
        "{singular: [is, was], plural: [are, were]}",
        "{singular: [is, was]}",
        "12:59",
        "prompts.templates.0.answer",
        "the slot 'verb' has one class only, so it has no other side",
    ),
    (
        "plural: [are, were]",
        "plural: [are, was]",
        "12:59",
        "prompts.templates.0.answer",
        "the slot 'verb' has 'was' in two classes at the same index, so nothing would differ",
    ),
    (
        "dogs,",
        "dog,",
        "12:75",
        "prompts.templates.0.flip",
        "the slot 'subject' has 'dog' in two classes at the same index",
    ),
    (
        "positions: all",
        "positions: near",
        "17:57",
        "ablation.positions",
        "template 'plain' has no slot 'near'; write all, last, or a slot of every template",
    ),
    (
        "layers: [L1], embed: true}",
        "role: {name: successor}}",
        "20:35",
        "circuit.readers.role",
        "only heads have a role; name the group's heads",
    ),
    (
        "  readers:",
        "  empty: {}\n  readers:",
        "20:10",
        "circuit.empty",
        "the group names no part; give heads, mlps, layers or embed",
    ),
    (
        "[L2H0, L3.attn]",
        "[L2H0, a2.h0]",
        "19:32",
        "circuit.number_mover.heads.1",
        "L2H0 is already in the group 'number_mover'",
    ),
    (
        "{mlps: [L0.mlp]",
        "{heads: [L2H0], mlps: [L0.mlp]",
        "20:21",
        "circuit.readers.heads.0",
        "L2H0 is already in the group 'number_mover'",
    ),
    (
        "at_least: 0.5}}",
        "at_least: 1.5}}",
        "19:79",
        "circuit.number_mover.role.at_least",
        "no score of the role number_mover is above 1, found 1.5",
    ),
    (
        "name: number_mover, at_least: 0.5",
        "name: s_inhibition",
        "19:55",
        "circuit.number_mover.role.name",
        "the role s_inhibition is defined through heads with the role name_mover, and no group names some",
    ),
    (
        "name: number_mover, at_least: 0.5",
        "name: letter_mover",
        "19:55",
        "circuit.number_mover.role.name",
        "the role letter_mover needs the slot that its heads look at; write `to` with its name",
    ),
    (
        "name: number_mover, at_least: 0.5",
        "name: induction, to: subject",
        "19:70",
        "circuit.number_mover.role.to",
        "the role induction does not ask where in the prompt a head looks; leave `to` out",
    ),
    (
        "name: number_mover, at_least: 0.5",
        "name: number_mover, to: near",
        "19:73",
        "circuit.number_mover.role.to",
        "template 'plain' has no slot 'near'; name a slot of every template",
    ),
    (
        ", role: {name: number_mover, at_least: 0.5}}",
        "}",
        "24:9",
        "claims.roles",
        "no group has a role; give one, as role: {",
    ),
    (
        "  roles:\n",
        "  roles:\n  successor:\n",
        "25:13",
        "claims.successor",
        "no group has the role successor; give one, as role: {name: successor}",
    ),
    (
        "  roles:\n",
        "  roles:\n  attribution: {top: 25}\n",
        "25:22",
        "claims.attribution.top",
        "25 heads are more than half of the model's 48, of which two random sets of so many have a Jaccard index of"
        " 0.36; write 24 at most",
    ),
    (
        "  roles:\n",
        "  roles: {drift_at_most: 1.0}\n",
        "24:26",
        "claims.roles.drift_at_most",
        "no score of number_mover is below 0 or above 1, so none could fall by more than 1; write less than 1",
    ),
    (
        "  roles:\n",
        "  roles: {mass_drift_at_most: 0.2}\n",
        "24:31",
        "claims.roles.mass_drift_at_most",
        "on_move is fail, so no move is forgiven and this limit decides nothing; write on_move: warn or allow, or drop"
        " it",
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "path", "text"), RULES, ids=[row[4][:60] for row in RULES])
def test_a_broken_rule_is_told_where_it_stands(
    old: str, new: str, place: str, path: str, text: str, project: Project, change: Callable[..., str]
) -> None:
    found = project.problems(change((old, new)))

    at_path = [line for line in found if f": {path}: " in line]
    assert at_path, found
    assert at_path[0].startswith(f"specs/a.circuit.yaml:{place}: ")
    assert text in at_path[0]


CIRCUIT = """circuit:
  number_mover: {heads: [L2H0, L3.attn], role: {name: number_mover, at_least: 0.5}}
  readers: {mlps: [L0.mlp], layers: [L1], embed: true}
"""
CLAIMS = """claims:
  behaviour: {accuracy_at_least: 0.90, loss_at_most: 0.20}
  heads: {share_drift_at_most: 0.10, keep_at_least: 0.5}
  roles:
"""

SUBJECTS = [
    (
        "circuit: {}",
        "claims: {heads: , necessity: }",
        ["18:10: circuit: the circuit names no part, but necessity, heads speak of one"],
    ),
    (
        "# no circuit",
        "claims: {faithfulness: }",
        ["1:1: circuit: the circuit names no part, but faithfulness speak of one"],
    ),
    (
        "circuit: {all: {heads: [L0.attn, L1.attn, L2.attn], layers: [L3]}}",
        "claims: {faithfulness: }",
        ["18:10: circuit: the circuit has all 48 heads of the model, so its claims could not fail; name fewer"],
    ),
    (
        "circuit: {mlps: {mlps: [L0.mlp]}}",
        "claims: {heads: , controls: , necessity: {of: heads}}",
        [
            "19:17: claims.heads: this check needs a head in the circuit, and no group names one",
            "19:29: claims.controls: this check needs a head in the circuit, and no group names one",
            "19:47: claims.necessity.of: no group names a head to take out; write of: all",
        ],
    ),
    (
        "circuit: {a: {heads: [L0H0]}}",
        "claims: {successor: , heads: }",
        ["19:21: claims.successor: no group has the role successor; give one, as role: {name: successor}"],
    ),
    (
        "circuit: {mlps: {mlps: [L0.mlp]}}",
        "claims: {successor: }",
        [
            "19:21: claims.successor: no group has the role successor; give one, as role: {name: successor}",
            "19:21: claims.successor: this check needs a head in the circuit, and no group names one",
        ],
    ),
    (
        "circuit: {a: {heads: [L0H0]}}",
        "claims: {}",
        ["19:9: claims: no check is declared, so nothing could fail; declare one of behaviour, faithfulness"],
    ),
]


@pytest.mark.parametrize(("circuit", "claims", "expected"), SUBJECTS, ids=[row[2][0][:70] for row in SUBJECTS])
def test_claims_need_a_circuit_that_can_fail(
    circuit: str, claims: str, expected: list[str], project: Project, change: Callable[..., str]
) -> None:
    found = project.problems(change((CIRCUIT, circuit + "\n"), (CLAIMS, claims + "\n")))

    assert len(found) == len(expected), found
    for line, start in zip(sorted(found), sorted(expected), strict=True):
        assert line.startswith(f"specs/a.circuit.yaml:{start}")


@pytest.mark.parametrize("circuit", ["circuit: {}", "# none", "circuit: {all: {layers: [L0, L1, L2, L3]}}"])
def test_behaviour_alone_needs_no_circuit(circuit: str, project: Project, change: Callable[..., str]) -> None:
    spec = project.load(change((CIRCUIT, circuit + "\n"), (CLAIMS, "claims: {behaviour: }\n"))).spec

    assert spec.declared == ("behaviour",)


@pytest.mark.parametrize("circuit", ["circuit: {}", "# none", "circuit: {all: {layers: [L0, L1, L2, L3]}}"])
def test_attribution_needs_no_circuit(circuit: str, project: Project, change: Callable[..., str]) -> None:
    spec = project.load(change((CIRCUIT, circuit + "\n"), (CLAIMS, "claims: {attribution: {top: 24}}\n"))).spec

    assert spec.declared == ("attribution",)


@pytest.mark.parametrize(("heads", "count"), [(16, 9), (16, 10), (48, 25), (4, 3), (4, 4), (4, 10)])
def test_the_chance_that_is_told_is_the_gate_s(
    heads: int, count: int, project: Project, change: Callable[..., str]
) -> None:
    size = ("layers: 4, heads: 12", f"layers: 4, heads: {heads // 4}")
    claims = (CLAIMS, f"claims: {{attribution: {{top: {count}}}}}\n")
    (found,) = project.problems(change(size, (CIRCUIT, "\n"), claims))

    assert f"a Jaccard index of {chance_of_jaccard(heads, count):.2f}; write {heads // 2} at most" in found


def test_a_model_of_few_heads_must_say_how_many_are_the_largest(project: Project, change: Callable[..., str]) -> None:
    size = ("layers: 4, heads: 12", "layers: 4, heads: 4")
    (found,) = project.problems(change(size, (CIRCUIT, "\n"), (CLAIMS, "claims: {attribution: }\n")))

    assert found.endswith(
        "claims.attribution.top: 10 heads are more than half of the model's 16, of which two random sets of so many"
        " have a Jaccard index of 0.46; write 8 at most"
    )


def test_a_task_that_is_none_is_refused_with_a_suggestion(project: Project, change: Callable[..., str]) -> None:
    claims = "claims: {successor: {tasks_at_least: {letter: 0.5, months: 0.5}}}\n"
    circuit = "circuit: {a: {heads: [L0H0], role: {name: successor}}}\n"
    (found,) = project.problems(change((CIRCUIT, circuit), (CLAIMS, claims)))

    assert found.startswith("specs/a.circuit.yaml:19:39: claims.successor.tasks_at_least.letter: expected 'numerals', ")
    assert found.endswith("found the text 'letter'; did you mean 'letters'?")


def test_a_circuit_of_mlps_may_be_faithful_and_necessary(project: Project, change: Callable[..., str]) -> None:
    text = change((CIRCUIT, "circuit: {a: {mlps: [L0.mlp]}}\n"), (CLAIMS, "claims: {faithfulness: , necessity: }\n"))

    assert project.load(text).spec.necessity_of == "all"


def test_positions_may_be_a_slot_that_every_template_has(project: Project, change: Callable[..., str]) -> None:
    assert project.load(change(("positions: all", "positions: subject"))).spec.ablation.positions == "subject"


def test_the_answer_may_be_the_flipped_slot_itself(project: Project, change: Callable[..., str]) -> None:
    text = change((PLAIN, '{id: again, text: "the {subject} and the", answer: "{subject}", flip: subject}'))

    assert project.load(text).spec.prompts.templates[1].answer == "{subject}"


MOVER = "number_mover: {heads: [L2H0, L3.attn], role: {name: number_mover, at_least: 0.5}}"


@pytest.mark.parametrize(
    ("role", "key"),
    [
        ("{name: number_mover, to: subject}", "number_mover:subject"),
        ("{name: letter_mover, to: subject, at_least: 1}", "letter_mover:subject"),
        ("{name: induction_causal, at_least: 2.5}", "induction_causal"),
    ],
)
def test_a_role_is_kept_under_its_name_and_slot(
    role: str, key: str, project: Project, change: Callable[..., str]
) -> None:
    spec = project.load(change((MOVER, f"a: {{heads: [L2H0], role: {role}}}"))).spec

    assert list(spec.roles) == [key]
    assert spec.movers(key) == ()


@pytest.mark.parametrize("name", ["backup_name_mover", "s_inhibition"])
def test_a_role_that_needs_another_gets_the_heads_of_every_group_with_that_one(
    name: str, project: Project, change: Callable[..., str]
) -> None:
    groups = (
        f"a: {{heads: [L2H0], role: {{name: {name}}}}}\n"
        "  b: {heads: [L3H1], role: {name: name_mover}}\n"
        "  c: {heads: [L3H0], role: {name: name_mover, to: subject}}"
    )
    spec = project.load(change((MOVER, groups))).spec

    assert [str(head) for head in spec.movers(name)] == ["L3H0", "L3H1"]
    assert spec.movers("name_mover") == ()


def test_movers_without_a_head_are_none(project: Project, change: Callable[..., str]) -> None:
    groups = "a: {heads: [L2H0], role: {name: s_inhibition}}\n  b: {mlps: [L3.mlp], role: {name: name_mover}}"
    found = project.problems(change((MOVER, groups)))

    assert [line.partition(": ")[2] for line in found] == [
        "circuit.a.role.name: the role s_inhibition is defined through heads with the role name_mover, and no group "
        "names some",
        "circuit.b.role: only heads have a role; name the group's heads",
    ]


def test_a_prompt_file_has_no_slot_for_a_role(project: Project) -> None:
    (project.root / "p.csv").write_text("clean,corrupt,answer,foil\n")
    text = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 12}
prompts: {file: ../p.csv}
circuit: {a: {heads: [L0H0], role: {name: number_mover, to: subject}}}
claims: {roles: }
"""
    (found,) = project.problems(text)

    assert found == (
        "specs/a.circuit.yaml:4:61: circuit.a.role.to: prompts from a file have no slot 'subject'; leave `to` out, or "
        "use templates"
    )


def test_what_a_group_says_is_of_the_heads_that_it_names_in_any_way(
    project: Project, change: Callable[..., str]
) -> None:
    spec = project.load(change((MOVER, MOVER + "\n  more: {layers: [L0], role: {name: number_mover}}"))).spec

    def said(layer: int, head: int) -> list[str]:
        return [name for name, _ in spec.stated("number_mover", Head(layer, head))]

    assert (said(3, 11), said(0, 4), said(1, 0)) == (["number_mover"], ["more"], [])
    assert spec.stated("successor", Head(2, 0)) == ()


@pytest.mark.parametrize("key", ["at_least: 0.5", "percentile_at_least: 0.9", "effect: positive"])
def test_what_a_group_asks_of_its_heads_needs_the_check_that_judges_it(
    key: str, project: Project, change: Callable[..., str]
) -> None:
    (found,) = project.problems(change(("  roles:\n", ""), ("number_mover, at_least: 0.5", f"number_mover, {key}")))

    assert f"circuit.number_mover.role.{key.partition(':')[0]}: the check roles judges this" in found


# -- what could not fail, or says nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["{}", "{drift_at_most: 0.99}"])
def test_a_score_can_fall_by_less_than_one(limit: str, project: Project, change: Callable[..., str]) -> None:
    assert project.load(change(("  roles:\n", f"  roles: {limit}\n"))).spec.claims.roles is not None


def test_one_role_whose_scores_have_no_end_may_fall_by_more_than_one(
    project: Project, change: Callable[..., str]
) -> None:
    causal = (MOVER, MOVER + "\n  a: {heads: [L0H0], role: {name: induction_causal}}")
    attention = (MOVER, MOVER + "\n  a: {heads: [L0H0], role: {name: induction}}")
    limit = ("  roles:\n", "  roles: {drift_at_most: 1.5}\n")

    assert project.load(change(causal, limit)).spec.claims.roles.drift_at_most == 1.5
    (found,) = project.problems(change(attention, limit))
    assert "no score of number_mover, induction is below 0 or above 1, so none could fall by more than 1.5;" in found


@pytest.mark.parametrize("on_move", ["warn", "allow"])
def test_how_much_is_lost_on_the_way_is_asked_where_a_move_is_forgiven(
    on_move: str, project: Project, change: Callable[..., str]
) -> None:
    roles = f"  roles: {{mass_drift_at_most: 2.0, on_move: {on_move}}}\n"

    assert project.load(change(("  roles:\n", roles))).spec.claims.roles.mass_drift_at_most == 2.0


METRIC = ("metric: logit_diff", "metric: kl")


@pytest.mark.parametrize(
    ("parts", "place", "layer", "owner"),
    [
        ("heads: [L3H1]", "20:21: circuit.readers.heads.0", 3, "number_mover"),
        ("heads: [L2.attn]", "19:26: circuit.number_mover.heads.0", 2, "readers"),
    ],
)
def test_a_head_with_two_roles_is_refused(
    parts: str, place: str, layer: int, owner: str, project: Project, change: Callable[..., str]
) -> None:
    second = f"{{{parts}, role: {{name: current_token}}, mlps: [L0.mlp]"

    assert project.problems(change(("{mlps: [L0.mlp]", second))) == [
        f"specs/a.circuit.yaml:{place}: all heads of layer {layer} have the role of the group {owner!r}, and a head has"
        " one; name heads"
    ]


def test_an_effect_that_no_head_could_miss_is_refused(project: Project, change: Callable[..., str]) -> None:
    found = project.problems(change(METRIC, ("at_least: 0.5}}", "at_least: 0.5, effect: positive}}")))

    assert found == [
        "specs/a.circuit.yaml:19:92: circuit.number_mover.role.effect: with the metric kl every part has a positive"
        " effect, since no run is nearer to the clean one than it is itself; drop this, or measure logit_diff or"
        " prob_diff"
    ]


def test_a_gradient_where_the_metric_is_flat_is_no_attribution(project: Project, change: Callable[..., str]) -> None:
    (found,) = project.problems(change(METRIC, (CIRCUIT, "\n"), (CLAIMS, "claims: {attribution: {method: atp}}\n")))

    assert found == (
        "specs/a.circuit.yaml:19:32: claims.attribution.method: atp follows the gradient at the clean run, from which"
        " kl is the distance: it is 0 there, and flat, so it would say nothing of any head; write eap-ig or exact, or"
        " measure logit_diff or prob_diff"
    )


@pytest.mark.parametrize(
    ("metric", "method"),
    [("kl", "exact"), ("kl", "eap-ig"), ("kl", "dla"), ("prob_diff", "atp"), ("logit_diff", "atp")],
)
def test_every_other_method_says_something_of_a_metric(
    metric: str, method: str, project: Project, change: Callable[..., str]
) -> None:
    claims = (CLAIMS, f"claims: {{attribution: {{method: {method}}}}}\n")

    assert (
        project.load(change((METRIC[0], f"metric: {metric}"), (CIRCUIT, "\n"), claims)).spec.claims.attribution.method
        == method
    )


def inhibiting(*heads: str, layers: str = "[]", movers: str = "heads: [L1H1, L2H0]") -> tuple[str, str]:
    return MOVER, (
        f"a: {{heads: [{', '.join(heads)}], layers: {layers}, role: {{name: s_inhibition}}}}\n"
        f"  b: {{{movers}, role: {{name: name_mover}}}}"
    )


NO_PATH = (
    "what layer {layer} writes reaches no query of the heads with the role name_mover, of which the last stand in layer"
    " 2, so its score as s_inhibition could only be 0; name heads of earlier layers"
)
NOTHING_ELSE = ("  readers: {mlps: [L0.mlp], layers: [L1], embed: true}\n", "")


@pytest.mark.parametrize("movers", ["heads: [L1H1, L2H0]", "heads: [L0.attn, L2.attn]", "layers: [L2]"])
def test_a_head_from_which_no_path_leads_to_the_movers_is_refused(
    movers: str, project: Project, change: Callable[..., str]
) -> None:
    problems = project.problems(
        change(NOTHING_ELSE, inhibiting("L1H0", "L2H3", "L3.attn", layers="[L3]", movers=movers))
    )
    found = [one for one in problems if "and a head has one" not in one]

    assert found == [
        f"specs/a.circuit.yaml:19:21: circuit.a.heads.1: {NO_PATH.format(layer=2)}",
        f"specs/a.circuit.yaml:19:27: circuit.a.heads.2: {NO_PATH.format(layer=3)}",
        f"specs/a.circuit.yaml:19:46: circuit.a.layers.0: {NO_PATH.format(layer=3)}",
    ]


def test_a_head_in_front_of_one_mover_has_a_path(project: Project, change: Callable[..., str]) -> None:
    text = change(NOTHING_ELSE, inhibiting("L1H0", "L0H1", layers="[L0]"))

    assert {head.layer for head in project.load(text).spec.roles["s_inhibition"]} == {0, 1}


def test_a_backup_may_stand_anywhere(project: Project, change: Callable[..., str]) -> None:
    movers, groups = inhibiting("L3H0", layers="[L0]")

    assert project.load(change(NOTHING_ELSE, (movers, groups.replace("s_inhibition", "backup_name_mover"))))


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_a_path_needs_the_value_of_the_corrupt_run(value: str, project: Project, change: Callable[..., str]) -> None:
    (found,) = project.problems(change(NOTHING_ELSE, inhibiting("L1H0"), ("value: resample", f"value: {value}")))

    assert found == (
        "specs/a.circuit.yaml:19:47: circuit.a.role.name: the role s_inhibition is read from paths, on which a head has"
        f" its value of the corrupt run, and the ablation's value is {value}; write ablation.value: resample, or drop"
        " the role"
    )


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_roles_without_a_path_take_every_ablation(value: str, project: Project, change: Callable[..., str]) -> None:
    movers, groups = inhibiting("L3H0")
    text = change(
        NOTHING_ELSE,
        (movers, groups.replace("s_inhibition", "backup_name_mover")),
        ("value: resample", f"value: {value}"),
    )

    assert project.load(text).spec.ablation.value == value

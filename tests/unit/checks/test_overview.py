"""What every head does: the numbers are those of the checks, and what is undefined is not a number."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_circuits.attribution.direct import direct_effects
from pytest_circuits.attribution.nodes import atp, integrated
from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.checks import overview
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.checks.overview import METHODS, look, question_in
from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import CheckpointRefused, MeasurementError, PromptError, SpecError
from pytest_circuits.gate.effects import Effects
from pytest_circuits.gate.scores import Scores
from pytest_circuits.report.heads import ABLATED
from pytest_circuits.report.heads import METHODS as IN_WORDS
from pytest_circuits.roles.reading import every_head
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.handle import CheckpointModel
    from pytest_circuits.records import Overview

ROOT = Path(__file__).parents[3]
AGREEMENT = ROOT / "specs/tiny/verb-agreement.circuit.yaml"
PAIRS = [
    ("the dog near the tables", "the dogs near the tables", "is", "are"),
    ("the author behind the lamp", "the authors behind the lamp", "was", "were"),
    ("the king beside the trees", "the kings beside the trees", "is", "are"),
    ("the cars above the guard", "the car above the guard", "are", "is"),
    ("the pilots near the old tree", "the pilot near the old tree", "were", "was"),
    ("the key beside the lamps", "the keys beside the lamps", "has", "have"),
]
SPEC = """\
format: 1
model: {{checkpoint: "builtin:tiny", architecture: gpt2, layers: {layers}, heads: 4}}
prompts:
  vocabulary:
    subject: {{singular: [dog, author, car, king], plural: [dogs, authors, cars, kings]}}
    verb: {{singular: [is, was], plural: [are, were]}}
    near: [beside, above]
  templates:
    - {{id: long, text: "the {{subject}} {{near}} the lamp", answer: "{{verb}}", flip: subject}}
    - {{id: old, text: "the old {{subject}} {{near}} the lamp", answer: "{{verb}}", flip: subject}}
  per_template: 8
measure: {{metric: {metric}}}
ablation: {{{ablation}}}
circuit:
  one: {{heads: [L2H0], role: {{name: letter_mover, to: near}}}}
  mover: {{heads: [L1H1, L{last}H0], role: {{name: name_mover}}}}
  other: {{heads: [L0H1], role: {{name: backup_name_mover}}}}
claims: {{behaviour: }}
"""


@pytest.fixture(scope="module")
def tiny() -> CheckpointModel:
    return open_checkpoint("builtin:tiny", device="cpu")


def write(folder: Path, pairs: Any = PAIRS, columns: str = "clean corrupt answer foil") -> Path:
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(), *pairs])
    return path


def spec_in(folder: Path, *, layers: int = 4, metric: str = "logit_diff", ablation: str = "value: resample") -> Path:
    path = folder / "a.circuit.yaml"
    path.write_text(SPEC.format(layers=layers, last=layers - 1, metric=metric, ablation=ablation))
    return path


def seen(path: Path, model: CheckpointModel, **options: Any) -> Overview:
    return look(question_in(path, root=path.parent), model, **{"roles": False, **options})


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [one for item in (value.values() if isinstance(value, dict) else value) for one in numbers(item)]
    return [value] if isinstance(value, float) else []


# -- exact -------------------------------------------------------------------------------------------------------------


def test_of_a_spec_the_numbers_are_those_that_the_checks_judge(tiny: CheckpointModel) -> None:
    file = load_spec(AGREEMENT, root=ROOT)
    effects = Effects(Measurements(file, tiny.bound))
    found = look(question_in(AGREEMENT, root=ROOT), tiny)
    mover = Scores(effects, "number_mover")

    for head, view in found.heads.items():
        assert view.share == pytest.approx(effects.share(head).value, abs=1e-9)
        assert view.effect == pytest.approx(effects.removed(head).value, abs=1e-9)
        assert view.standard_error == pytest.approx(effects.removed(head).estimate.se, abs=1e-9)
        assert view.attention == pytest.approx(mover.factor("attention", head).value, abs=1e-9)
        assert view.roles["number_mover"] == pytest.approx(mover.score(head).value, abs=1e-9)
    assert list(found.heads) == [f"L{layer}H{head}" for layer in range(4) for head in range(4)]
    assert found.accuracy == effects.accuracy
    assert found.clean - found.floor == pytest.approx(effects.total.value)
    assert found.clean - found.corrupt == pytest.approx(effects.task.value)
    assert (found.name, found.checkpoint, found.fingerprint) == (file.circuit, "builtin:tiny", tiny.fingerprint)
    assert (found.architecture, found.layers, found.heads_per_layer) == ("gpt2", 4, 4)
    assert (found.prompts, found.templates, found.unit, found.ablation) == (256, 8, "logits", "resample")
    assert found.notices == ()


def test_a_few_pairs_of_a_file_are_enough(tmp_path: Path, tiny: CheckpointModel) -> None:
    found = seen(write(tmp_path), tiny)

    assert found.heads["L2H0"].share == pytest.approx(0.98, abs=0.01)
    assert found.accuracy == (6, 6)
    assert found.heads["L2H0"].attention == pytest.approx(0.66, abs=0.01)
    assert found.notices == (f"{tmp_path}/pairs.csv: no column `template`, so all 6 pairs are one stratum",)


def test_the_noise_is_the_measured_one_or_rounding_where_that_is_larger(
    tmp_path: Path, tiny: CheckpointModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [seen(write(tmp_path, [pair]), tiny) for pair in PAIRS]
    largest = max(abs(value) for one in alone for value in (one.clean, one.floor))
    path = write(tmp_path)

    assert seen(path, tiny).noise == pytest.approx(1e-5 * largest, rel=1e-4)
    monkeypatch.setattr(Runs, "noise", lambda _: 0.25)
    assert seen(path, tiny).noise == 0.25


def test_the_standard_error_is_that_of_a_mean(tmp_path: Path, tiny: CheckpointModel) -> None:
    alone = [seen(write(tmp_path, [pair]), tiny).heads["L2H0"].effect for pair in PAIRS]
    whole = seen(write(tmp_path), tiny).heads["L2H0"]

    assert whole.effect == pytest.approx(np.mean(alone), abs=1e-4)
    assert whole.standard_error == pytest.approx(np.std(alone, ddof=1) / math.sqrt(len(alone)), rel=1e-3)


def test_pairs_of_unequal_length_are_aligned_from_both_ends_and_told(tmp_path: Path, tiny: CheckpointModel) -> None:
    longer = [*PAIRS, ("the bird near the lamp", "the old birds near the lamp", "is", "are")]
    found = seen(write(tmp_path, longer), tiny)

    assert "1 token positions have no counterpart in their twin and keep their clean value" in found.notices


def test_a_twin_that_only_adds_tokens_has_no_place_to_look_at(tmp_path: Path, tiny: CheckpointModel) -> None:
    found = seen(write(tmp_path, [*PAIRS, ("near the dog", "near the old dog", "is", "are")]), tiny)

    assert {view.attention for view in found.heads.values()} == {None}
    assert any(notice.startswith("a twin only adds tokens to its prompt") for notice in found.notices)


# -- other methods -----------------------------------------------------------------------------------------------------


def test_the_methods_are_those_that_have_words() -> None:
    assert list(IN_WORDS) == list(METHODS)
    assert set(ABLATED) == {"resample", "zero", "mean"}


@pytest.mark.parametrize(("method", "by_hand"), [("atp", atp), ("eap-ig", integrated)])
def test_the_effects_of_a_method_are_its_own(method: str, by_hand: Any, tmp_path: Path, tiny: CheckpointModel) -> None:
    path = write(tmp_path)
    question = question_in(path, root=tmp_path)
    encoded = overview.ask(question.prompts.pairs, tiny.bound, question.tokens, question.ablation)
    expected = by_hand(Runs(tiny.bound, encoded, value="resample", metric="logit_diff"), every_head(tiny.bound))
    found, exact = seen(path, tiny, method=method), seen(path, tiny)

    assert [view.effect for view in found.heads.values()] == pytest.approx(expected.mean(1).tolist(), abs=1e-6)
    assert (found.clean, found.floor) == pytest.approx((exact.clean, exact.floor))
    for view in found.heads.values():
        assert view.share == pytest.approx(view.effect / (exact.clean - exact.floor), abs=1e-6)


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff", "kl"])
def test_direct_effects_are_parts_of_the_logit_difference_whatever_the_metric(
    metric: str, tmp_path: Path, tiny: CheckpointModel
) -> None:
    path = spec_in(tmp_path, metric=metric)
    question = question_in(path, root=tmp_path)
    encoded = overview.ask(question.prompts.pairs, tiny.bound, question.tokens, question.ablation)
    direct = direct_effects(Runs(tiny.bound, encoded, value="resample", metric="logit_diff"))
    found = look(question, tiny, method="dla")

    for head in every_head(tiny.bound):
        view = found.heads[str(head)]
        assert view.effect == pytest.approx(direct.of(head).mean(), abs=1e-6)
        assert view.share == pytest.approx(direct.of(head).mean() / direct.total.mean(), abs=1e-6)
    assert (found.metric, found.unit, found.floor) == ("logit_diff", "logits", None)
    told = f"direct effects are in logits, so the spec's metric {metric} is not read"
    assert (told in found.notices) == (metric != "logit_diff")
    reason = "it asks what is lost without a head, and dla takes none out; take exact, atp or eap-ig"
    assert {key for key, why in found.unread.items() if why == reason} == {"letter_mover:near", "number_mover"}


def test_a_gradient_of_a_flat_metric_is_refused(tmp_path: Path, tiny: CheckpointModel) -> None:
    with pytest.raises(MeasurementError, match="kl is the distance from that very run"):
        seen(spec_in(tmp_path, metric="kl"), tiny, method="atp")


# -- without a twin ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_without_twins_a_head_takes_its_mean(method: str, tmp_path: Path, tiny: CheckpointModel) -> None:
    path = write(tmp_path, [(clean, answer, foil) for clean, _, answer, foil in PAIRS], "clean answer foil")
    found = seen(path, tiny, method=method)

    assert (found.ablation, found.corrupt) == ("mean", None)
    assert {view.attention for view in found.heads.values()} == {None}
    assert max(found.heads, key=lambda head: abs(found.heads[head].effect)) == "L2H0"
    assert "the prompts have no corrupt twin, so no slot is flipped that a head could look at" in found.notices


def test_a_spec_that_resamples_from_twins_that_are_not_there_is_refused(tmp_path: Path) -> None:
    rows = [(f"the dog near the lamp {n}", "is", "are") for n in range(64)]
    write(tmp_path, rows, "clean answer foil")
    text = SPEC.format(layers=4, last=3, metric="logit_diff", ablation="value: resample")
    start, end = text.index("  vocabulary"), text.index("measure")
    path = tmp_path / "a.circuit.yaml"
    path.write_text(
        f"{text[:start]}  file: pairs.csv\n{text[end:]}".replace(", role: {name: letter_mover, to: near}", "")
    )

    with pytest.raises(PromptError, match="resample takes values from it; write zero or mean"):
        question_in(path, root=tmp_path)


# -- what is undefined -------------------------------------------------------------------------------------------------


def test_where_the_task_is_not_done_there_are_no_shares_and_no_roles_that_need_them(
    tmp_path: Path, tiny: CheckpointModel
) -> None:
    wrong = [(clean, corrupt, foil, answer) for clean, corrupt, answer, foil in PAIRS]
    found = seen(write(tmp_path, wrong), tiny, roles=True)
    (reason,) = [notice for notice in found.notices if notice.startswith("no shares: clean - floor is -12.4 with")]

    assert {view.share for view in found.heads.values()} == {None}
    assert found.unread["number_mover"] == reason.removeprefix("no shares: ")
    assert found.heads["L2H0"].effect == pytest.approx(-12.2, abs=0.1)
    assert "number_mover" not in found.heads["L2H0"].roles
    assert found.accuracy == (0, 6)


def test_of_one_prompt_there_is_a_share_and_no_standard_error(tmp_path: Path, tiny: CheckpointModel) -> None:
    found = seen(write(tmp_path, PAIRS[:1]), tiny, roles=True)

    assert {view.standard_error for view in found.heads.values()} == {None}
    assert found.heads["L2H0"].share == pytest.approx(1.0, abs=0.1)
    assert found.heads["L2H0"].roles["number_mover"] > 0.3
    assert (
        "a template has 1 prompt, so there are no standard errors: all of it is of these prompts alone" in found.notices
    )


def test_of_one_prompt_that_says_nothing_there_is_no_share(tmp_path: Path, tiny: CheckpointModel) -> None:
    path = write(tmp_path, [("the dog near the tables", "is", "are")], "clean answer foil")  # its mean is itself
    found = seen(path, tiny)

    assert {view.share for view in found.heads.values()} == {None}
    assert "no shares: clean - floor is 0, and a ratio needs it to be positive and above rounding" in found.notices


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[:1], [(a, b, y, x) for a, b, x, y in PAIRS]])
def test_every_number_is_finite(pairs: Any, tmp_path: Path, tiny: CheckpointModel) -> None:
    for method in METHODS:
        found = numbers(seen(write(tmp_path, pairs), tiny, method=method).as_json())
        assert len(found) > 16
        assert all(map(math.isfinite, found))


# -- roles -------------------------------------------------------------------------------------------------------------


def test_roles_are_the_specs_own_first_and_then_those_that_need_no_word_of_a_spec(
    tmp_path: Path, tiny: CheckpointModel
) -> None:
    found = seen(spec_in(tmp_path), tiny, roles=True)
    scored = list(found.heads["L0H0"].roles)

    assert scored[0] == "letter_mover:near"
    assert {"previous_token", "induction", "successor", "number_mover"} < set(scored)
    assert "does not stand in" in found.unread["name_mover"]
    assert "\n" not in "".join(found.unread.values())
    assert "negative_mover" not in {*scored, *found.unread}, "the answer stands in no prompt, and no spec asks for it"


def test_movers_are_asked_where_the_answer_stands_in_every_prompt(tmp_path: Path, tiny: CheckpointModel) -> None:
    pairs = [(f"the dog is {clean}", f"the dog is {corrupt}", "is", "are") for clean, corrupt, *_ in PAIRS[:3]]
    found = seen(write(tmp_path, pairs), tiny, roles=True)

    assert {"name_mover", "negative_mover"} <= {*found.heads["L0H0"].roles, *found.unread}


def test_where_answers_are_wrong_no_role_is_told_as_a_part_of_their_logits(
    tmp_path: Path, tiny: CheckpointModel
) -> None:
    pairs = [(f"the dog are {clean}", f"the dog are {corrupt}", "are", "is") for clean, corrupt, *_ in PAIRS[:3]]
    found = seen(write(tmp_path, pairs), tiny, roles=True)

    assert found.accuracy == (0, 3)
    assert found.unread["name_mover"].startswith("the clean logit difference is -")


@pytest.mark.parametrize("floor", ["empty", "corrupt"])
def test_the_floor_has_all_heads_and_mlps_ablated_or_is_the_corrupt_run(
    floor: str, tmp_path: Path, tiny: CheckpointModel
) -> None:
    path = spec_in(tmp_path, ablation=f"value: zero, floor: {floor}")
    effects = Effects(Measurements(load_spec(path, root=tmp_path), tiny.bound))
    found = seen(path, tiny)

    assert found.floor == pytest.approx(effects.strata.mean(effects.reading.floor), abs=1e-6)
    assert (found.floor == pytest.approx(found.corrupt, abs=0.1)) == (floor == "corrupt")


def test_without_roles_no_role_is_read(tmp_path: Path, tiny: CheckpointModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_role(*_: Any) -> None:
        raise AssertionError("a role was read")

    monkeypatch.setattr(overview, "read_role", read_role)
    found = seen(write(tmp_path), tiny)

    assert found.unread == {}
    assert {len(view.roles) for view in found.heads.values()} == {0}
    with pytest.raises(AssertionError, match="a role was read"):
        seen(write(tmp_path), tiny, roles=True)


def test_a_role_of_movers_that_the_model_does_not_have_is_told(tmp_path: Path, tiny: CheckpointModel) -> None:
    question = overview.replace(
        question_in(write(tmp_path), root=tmp_path), roles={"backup_name_mover": (Head(9, 0),), "s_inhibition": ()}
    )
    found = look(question, tiny)

    assert "L9H0 beyond the model" in found.unread["backup_name_mover"]
    assert "found none" in found.unread["s_inhibition"]


# -- a spec for another model ------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_shape_is_shown_and_told(tmp_path: Path, tiny: CheckpointModel) -> None:
    found = seen(spec_in(tmp_path, layers=6), tiny, roles=True)

    assert found.notices[0] == (
        "the spec is for gpt2 with 6 layers x 4 heads, and this checkpoint is gpt2 with 4 layers x 4 heads: its heads "
        "are not those that the spec names, and nothing is judged"
    )
    assert found.layers == 4
    assert found.heads["L2H0"].share == pytest.approx(0.98, abs=0.02)
    assert "L5H0 beyond the model" in found.unread["backup_name_mover"]


@pytest.mark.parametrize(
    ("ablation", "told"),
    [
        ("positions: last", "heads are replaced where ablation.positions says, and nowhere else: last"),
        ("floor: corrupt", "the floor is the corrupt run, as ablation.floor says"),
    ],
)
def test_what_a_spec_says_of_ablation_counts_and_is_told(
    ablation: str, told: str, tmp_path: Path, tiny: CheckpointModel
) -> None:
    path = spec_in(tmp_path, ablation=ablation)
    effects = Effects(Measurements(load_spec(path, root=tmp_path), tiny.bound))
    found = seen(path, tiny)

    assert told in found.notices
    assert told not in seen(path, tiny, method="dla").notices
    assert found.floor == pytest.approx(effects.strata.mean(effects.reading.floor), abs=1e-9)
    for head, view in found.heads.items():
        assert view.share == pytest.approx(effects.share(head).value, abs=1e-9)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused(tmp_path: Path, tiny: CheckpointModel) -> None:
    with pytest.raises(PromptError, match="1 answers are not a single token"):
        seen(write(tmp_path, [("the dog", "the dogs", "is was", "are")]), tiny)
    with pytest.raises(PromptError, match="a prompt may have .* tokens on this model"):
        seen(write(tmp_path, [("the dog " * 200 + "the", "the dogs " * 200 + "the", "dog", "dogs")]), tiny)
    with pytest.raises(PromptError, match=r"pairs.csv:2: 'foil' is empty"):
        seen(write(tmp_path, [("a", "b", "c", "")]), tiny)
    (tmp_path / "a.circuit.yaml").write_text("format: 2")
    with pytest.raises(SpecError, match="expected 1, found 2"):
        seen(tmp_path / "a.circuit.yaml", tiny)


def test_a_tokenizer_with_tokens_that_the_model_has_not_is_refused(
    tmp_path: Path, tiny: CheckpointModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.bound), "vocabulary", property(lambda self: 3))

    with pytest.raises(CheckpointRefused, match="embeddings for 3 tokens"):
        seen(write(tmp_path), tiny)


def test_who_watches_hears_of_the_work(tmp_path: Path, tiny: CheckpointModel) -> None:
    heard: list[str] = []
    seen(write(tmp_path), tiny, roles=True, watch=lambda what, done, total: heard.append(what))

    assert {"noising", "attention", "repeated tokens"} <= set(heard)

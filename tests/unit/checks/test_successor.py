"""A successor head in depth: what the spec asks of it, what has fallen, and what a tokenizer cannot give."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from imagined import compared, counted, depth, in_role, reading, spec_file

from pytest_circuits import load_spec, measure, open_checkpoint
from pytest_circuits.checks import judge
from pytest_circuits.checks.successor import LIMITS, OF_MLP
from pytest_circuits.errors import MeasurementError
from pytest_circuits.records import Verdict
from pytest_circuits.roles.successor import TASKS
from pytest_circuits.roles.successor_depth import EDITED
from pytest_circuits.spec.roles import TaskName

REFERENCE = reading()
NAMES = [*depth()]


def result_of(observed, reference=REFERENCE, *, circuit=None, **limits):
    changes = {} if circuit is None else {"circuit": circuit}
    return judge("successor", compared(observed, reference, file=spec_file({"successor": limits}, **changes)))


def knowing(head="L0H1", **others):
    return reading(seed=1, successor={head: depth(**others)})


def messages(result):
    return [record.message for record in result.records]


def drift(result, name):
    (found,) = (record for record in result.records if record.claim == "drift" and f" {name} " in record.message)
    return found


def test_a_head_that_kept_all_passes_with_exact_numbers():
    result = result_of(knowing())

    assert result.verdict is Verdict.PASS
    assert [record.claim for record in result.records] == ["drift"] * len(NAMES)
    assert {(record.drift, record.interval, record.limit) for record in result.records} == {(0.0, None, 0.1)}
    assert "L0.mlp probe 0.95 -> 0.95, drift +0.00 (57 -> 57 of 60), limit 0.1" in messages(result)
    assert "L0H1 edit numerals 20-29 0.89 -> 0.89, drift +0.00 (80 -> 80 of 90), limit 0.1" in messages(result)
    assert "L0H1 greater than 0.50 -> 0.50, drift +0.00 (over 50), limit 0.1" in messages(result)
    assert result.headline.endswith("(reference: builtin:imagined)")


@pytest.mark.parametrize(
    ("hits", "verdict"), [(90, Verdict.PASS), (80, Verdict.PASS), (71, Verdict.PASS), (70, Verdict.DRIFT)]
)
def test_a_fall_beyond_the_limit_is_drift_and_a_rise_is_none(hits, verdict):
    found = drift(result_of(knowing(**{"edit numerals 20-29": (hits, 90)})), "edit numerals 20-29")

    assert (found.verdict, found.component) == (verdict, "L0H1")
    assert (found.value, found.reference) == (pytest.approx(hits / 90), pytest.approx(80 / 90))


def test_the_fall_is_told_with_its_hits():
    result = result_of(knowing(**{"edit numerals 20-29": (3, 90)}))

    assert result.verdict is Verdict.DRIFT
    assert result.headline.startswith(
        "successor: L0H1 edit numerals 20-29 0.89 -> 0.03, drift -0.86 (80 -> 3 of 90) is beyond its limit 0.1 ("
    )


def test_a_bias_that_fell_is_drift():
    fallen = reading(successor={"L0H1": depth() | {"greater than": np.linspace(0.7, -0.1, 50)}})

    assert drift(result_of(fallen), "greater than").verdict is Verdict.DRIFT
    assert drift(result_of(fallen, drift_at_most=0.2), "greater than").verdict is Verdict.PASS


# -- what the spec asks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "name"), LIMITS.items())
def test_each_limit_holds_what_it_is_of(key, name):
    value = float(depth()[name].mean())
    component = "L0.mlp" if name in OF_MLP else "L0H1"
    kept, missed = (
        next(record for record in result_of(REFERENCE, **{key: limit}).records if record.claim == "at_least")
        for limit in (value, value + 1e-6)
    )

    assert (kept.verdict, missed.verdict) == (Verdict.PASS, Verdict.DRIFT)
    assert (kept.component, kept.value, kept.interval) == (component, pytest.approx(value), None)
    assert missed.message.startswith(f"{component} {name} {value:.2f}"[:-1])
    assert " is below its limit " in missed.message


def test_a_limit_is_told_with_what_it_counts():
    result = result_of(REFERENCE, edit_at_least=0.9, greater_than_at_least=0.4)

    assert "L0H1 edit numerals 20-29 0.89 (80 of 90) is below its limit 0.9" in messages(result)
    assert "L0H1 greater than 0.50 (over 50), limit 0.4" in messages(result)


@pytest.mark.parametrize(("limit", "verdict"), [(0.96, Verdict.PASS), (0.97, Verdict.DRIFT)])
def test_a_task_is_held_to_its_own_limit(limit, verdict):
    result = result_of(REFERENCE, tasks_at_least={"letters": limit, "numerals": 0.5})
    (letters,) = (record for record in result.records if "'letters'" in record.message)

    assert (letters.claim, letters.component, letters.verdict) == ("task", "L0H1", verdict)
    assert letters.message == (
        f"L0H1 successor of 'letters' 0.96 (24 of 25){' is below its' if verdict is Verdict.DRIFT else ','} limit"
        f" {limit}"
    )
    assert "L0H1 successor of 'numerals' 0.98 (58 of 59), limit 0.5" in messages(result)


@pytest.mark.parametrize(
    "limits", [{"edit_months_at_least": 0.5}, {"tasks_at_least": {"day prefixes": 0.5}}], ids=["name", "task"]
)
def test_a_limit_on_what_the_tokenizer_cannot_give_is_an_error(limits):
    without = {name: values for name, values in depth().items() if name != "edit months"}
    result = result_of(reading(successor={"L0H1": without}), reading(successor={"L0H1": without}), **limits)
    called = "edit months" if "edit_months_at_least" in limits else "successor of 'day prefixes'"

    assert result.verdict is Verdict.ERROR
    assert result.records[0].message == (
        f"L0H1 {called}: expected numbers to hold to the limit 0.5, found none: the tokenizer of 'tuned' has too few of"
        " these words as single tokens.\n"
        "  What cannot be asked cannot pass. Drop this limit, or test a checkpoint that has the words."
    )
    assert result.records[0].value is None


def test_absolute_limits_are_judged_without_a_reference():
    result = result_of(REFERENCE, None, edit_at_least=0.5, tasks_at_least={"letters": 0.5})
    found = {record.claim: record.verdict for record in result.records}

    assert found == {"at_least": Verdict.PASS, "task": Verdict.PASS, "drift": Verdict.ERROR}
    assert result.headline.startswith("successor: there is no reference, so nothing can be said about drift.")


# -- what does not compare ---------------------------------------------------------------------------------------------


def test_a_limit_finer_than_two_steps_is_an_error():
    few = reading(successor={"L0H1": depth(**{"edit months": (9, 19)})})
    found = drift(result_of(few, few, drift_at_most=0.1), "edit months:")

    assert found.verdict is Verdict.ERROR
    assert found.message == (
        "L0H1 edit months: the score is of 19 numbers, so its step is 1/19, and the limit 0.1 is less than two steps"
        " (0.105). Raise drift_at_most."
    )
    assert drift(result_of(few, few, drift_at_most=2 / 19), "edit months").verdict is Verdict.PASS


@pytest.mark.parametrize(("hits", "verdict"), [(9, Verdict.PASS), (7, Verdict.PASS), (6, Verdict.DRIFT)])
def test_where_no_limit_is_written_two_of_few_numbers_may_be_lost(hits, verdict):
    before, now = (reading(successor={"L0H1": depth(**{"edit months": (n, 10)})}) for n in (9, hits))
    found = drift(result_of(now, before), "edit months")

    assert (found.verdict, found.limit) == (verdict, 0.2)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_of_very_few_numbers_no_limit_is_assumed(count):
    few = reading(successor={"L0H1": depth(**{"edit months": (count, count)})})
    found = drift(result_of(few, few), "edit months:")

    assert found.verdict is Verdict.ERROR
    assert f"the limit 0.1 is less than two steps ({2 / count:.3g})" in found.message


def test_a_bias_has_no_step():
    few = reading(successor={"L0H1": {"greater than": np.array([0.5, 0.25])}})

    assert [record.verdict for record in result_of(few, few).records] == [Verdict.PASS]


@pytest.mark.parametrize("others", [{"edit months": (50, 75)}, {"edit years": (50, 76)}])
def test_readings_of_other_words_are_refused(others):
    with pytest.raises(
        MeasurementError, match="(?s)L0H1 successor: expected the reference's .*; found .*Update the base"
    ):
        result_of(knowing(**others))


@pytest.mark.parametrize("found", [{}, {"L0H1": {}}, {"L1H2": depth()}])
def test_a_head_that_was_not_measured_is_an_error(found):
    with pytest.raises(MeasurementError, match="successor: expected what L0H1 makes of digits, found none"):
        result_of(reading(successor=found))
    with pytest.raises(MeasurementError, match="successor: expected what L0H1 makes of digits, found none"):
        result_of(REFERENCE, reading(successor=found))


def test_a_number_that_is_none_is_an_error():
    broken = depth() | {"greater than": np.array([0.1, np.nan])}

    with pytest.raises(MeasurementError, match="'greater than' of L0H1: expected finite values, found nan at place 1"):
        result_of(reading(successor={"L0H1": broken}))


def test_what_is_of_the_mlp_is_told_once():
    circuit = {"counters": {"heads": ("L0H1", "L1H0"), "role": {"name": "successor"}}}
    both = reading(successor={"L0H1": depth(), "L1H0": depth(**{"edit months": (10, 76)})})
    result = result_of(both, both, circuit=circuit, probe_at_least=0.5, edit_months_at_least=0.5)
    named = sorted((record.component, record.claim) for record in result.records)

    assert named.count(("L0.mlp", "drift")) == len(OF_MLP)
    assert named.count(("L0.mlp", "at_least")) == 1
    assert named.count(("L0H1", "drift")) == named.count(("L1H0", "drift")) == len(NAMES) - len(OF_MLP)
    failed = [record.component for record in result.records if record.verdict is Verdict.DRIFT]
    assert failed == ["L1H0"]


def test_neither_prompts_nor_forwards_are_needed():
    class Only:
        templates, successor, roles = REFERENCE.templates, REFERENCE.successor, REFERENCE.roles

    assert result_of(Only(), Only(), tasks_at_least={"letters": 0.5}).verdict is Verdict.PASS


def test_a_task_is_that_of_the_role_on_this_checkpoint():
    role = in_role(REFERENCE, "successor", L0H1=counted({"letters": (1, 25)}))
    found = result_of(role, REFERENCE, tasks_at_least={"letters": 0.5})

    assert found.records[0].message.startswith("L0H1 successor of 'letters' 0.04 (1 of 25) is below")


# -- names -------------------------------------------------------------------------------------------------------------


def test_the_tasks_that_a_spec_may_name_are_those_that_are_scored():
    assert get_args(TaskName) == tuple(TASKS)


def test_each_limit_is_of_a_name_that_is_measured():
    assert {*LIMITS.values()} <= {"probe", "transfer", "coverage", "greater than", *EDITED}
    assert set(NAMES) == {"probe", "transfer", "coverage", "greater than", *EDITED}


# -- real checkpoints --------------------------------------------------------------------------------------------------

SPEC = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, car, king], plural: [dogs, authors, cars, kings]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [beside, above]
  templates:
    - {id: near, text: "the {subject} {near} the lamp", answer: "{verb}", flip: subject}
circuit: {successor: {heads: [L3H3], role: {name: successor}}}
claims: {successor: {greater_than_at_least: 0.2, tasks_at_least: {letters: 0.9, numerals: 0.5}}}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")
    path = folder / "a.circuit.yaml"
    path.write_text(SPEC)
    file = load_spec(path, root=folder)
    found = {
        name: measure(file, open_checkpoint(f"builtin:{name}", device="cpu"))
        for name in ("tiny", "tiny-tuned", "tiny-rewired")
    }
    return file, found


def test_a_tuned_checkpoint_keeps_its_successor_and_a_rewired_one_does_not(tiny):
    file, found = tiny
    tuned, rewired = (
        judge("successor", compared(found[name], found["tiny"], file=file)) for name in ("tiny-tuned", "tiny-rewired")
    )
    red = {message.split(" 0.")[0].split(" -0.")[0] for message in messages(rewired) if "limit" in message} - {
        message.split(" 0.")[0].split(" -0.")[0] for message in messages(rewired) if ", limit" in message
    }

    assert tuned.verdict is Verdict.PASS
    assert rewired.verdict is Verdict.DRIFT
    assert red == {"L3H3 successor of 'letters'", "L3H3 successor of 'numerals'", "L3H3 greater than"}


def test_what_is_measured_is_of_the_named_heads_and_has_no_empty_name(tiny):
    file, found = tiny
    measured = found["tiny"].successor

    assert list(measured) == [str(head) for head in file.spec.roles["successor"]]
    assert {*measured["L3H3"]} == {"probe", "transfer", "coverage", "greater than", *EDITED}
    assert all(len(numbers) for numbers in measured["L3H3"].values())


def test_a_name_without_numbers_is_left_out(tiny, monkeypatch):
    file, _ = tiny
    head = file.spec.roles["successor"][0]
    monkeypatch.setattr(
        "pytest_circuits.checks.measurements.measure_depth",
        lambda asked, heads: {head: {"probe": np.ones(3), "transfer": np.zeros(0)}},
    )
    again = measure(file, open_checkpoint("builtin:tiny", device="cpu"))

    assert list(again.successor["L3H3"]) == ["probe"]

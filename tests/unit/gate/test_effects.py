"""The effects of a reading against loops over its prompts, and when they mean nothing."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import numpy as np
import pytest
from imagined import HEADS, TEMPLATES, reading

from pytest_circuits.errors import MeasurementError
from pytest_circuits.gate.effects import Effects, task_lost


def naive_mean(values, templates, only=None):
    """The mean of the templates' means, prompt by prompt."""
    means = []
    for template in sorted(set(templates)) if only is None else [only]:
        mine = [float(value) for value, name in zip(values, templates, strict=True) if name == template]
        means.append(sum(mine) / len(mine))
    return sum(means) / len(means)


@pytest.mark.parametrize("template", [None, "t3"])
def test_every_effect_is_the_one_that_is_defined(template):
    r = reading(seed=3, spread=0.3)
    effects = Effects(r).within(template)

    def mean(values):
        return naive_mean(values, r.templates, template)

    total = mean(r.clean - r.floor)
    assert effects.task.value == pytest.approx(mean(r.clean - r.corrupt))
    assert effects.total.value == pytest.approx(total)
    assert effects.faithfulness.value == pytest.approx(mean(r.circuit - r.floor) / total)
    assert effects.necessity.value == pytest.approx(mean(r.clean - r.knockout) / total)
    for head in HEADS:
        assert effects.removed(head).value == pytest.approx(mean(r.clean - r.heads[head]))
        assert effects.share(head).value == pytest.approx(mean(r.clean - r.heads[head]) / total)


def test_accuracy_counts_ties_as_wrong():
    differences = np.array([1.0, 0.0, -1.0, 1e-9])
    r = replace(reading(), templates=("a",) * 4, clean_logit_diff=differences)

    assert Effects(r).accuracy == (2, 4)


READS = {
    "clean": lambda effects: effects.total,
    "corrupt": lambda effects: effects.task,
    "clean_logit_diff": lambda effects: effects.accuracy,
    "circuit": lambda effects: effects.faithfulness,
    "knockout": lambda effects: effects.necessity,
    "floor": lambda effects: effects.total,
    "heads": lambda effects: effects.share("L0H0"),
    "noise": lambda effects: effects.total,
}


def spoilt(part, value):
    """A reading with one value of one part replaced."""
    r = reading()
    if part == "noise":
        return replace(r, noise=value)
    whole = getattr(r, part)
    arrays = whole if isinstance(whole, dict) else {"": whole}
    changed = {name: array.copy() for name, array in arrays.items()}
    for array in changed.values():
        array[17] = value
    return replace(r, **{part: changed if isinstance(whole, dict) else changed[""]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", READS)
def test_a_value_that_is_not_finite_is_an_error_that_names_the_part(part, value):
    name = {"heads": "without L0H0"}.get(part, part)
    with pytest.raises(MeasurementError, match=f"{name}: expected finite values, found (nan|inf)"):
        READS[part](Effects(spoilt(part, value)))


def test_every_part_of_a_reading_is_tried_above():
    elsewhere = {"templates", "roles", "attribution", "successor", "edges"}
    assert {field.name for field in fields(reading())} == {*READS, *elsewhere}


def test_a_nan_outside_the_template_in_view_is_an_error_too():
    with pytest.raises(MeasurementError, match="prompt 17"):
        _ = Effects(spoilt("clean", float("nan"))).within("t7").total


def test_a_part_of_another_length_is_an_error():
    with pytest.raises(MeasurementError, match=r"floor: expected 128 values, one a prompt, found shape \(127,\)"):
        _ = Effects(replace(reading(), floor=np.zeros(127))).total


def test_a_head_that_was_not_measured_is_an_error():
    with pytest.raises(MeasurementError, match="found none named L9H9"):
        Effects(reading()).share("L9H9")


REFERENCE = reading()


@pytest.mark.parametrize(
    ("observed", "told"),
    [
        pytest.param(reading(seed=1), None, id="the task is done"),
        pytest.param(reading(seed=1, effect=0.4), None, id="weaker, but well above a quarter"),
        pytest.param(reading(seed=1, effect=0.2), "0.20 .* not proven above 0.25", id="below a quarter"),
        pytest.param(reading(seed=2, effect=0.27, spread=0.5), "0.26 .* not proven above", id="above, not proven"),
        pytest.param(reading(seed=1, effect=-1.0), "not proven above 0.25", id="wrong sign"),
        pytest.param(reading(seed=1, effect=0.0), "not proven above 0.25", id="nothing"),
        pytest.param(reading(seed=1, spread=1.5), "a ratio needs at least 10 times that", id="under 10 errors"),
    ],
)
def test_ratios_are_evaluated_only_where_the_effect_stands(observed, told):
    found = task_lost(Effects(observed), Effects(REFERENCE), rate=0.01)

    if told is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith("no ratio: " if "a ratio needs" in told else "task lost: ")
        assert re.search(told, found)


def test_a_reference_whose_own_effect_does_not_stand_gives_no_ratio():
    found = task_lost(Effects(REFERENCE), Effects(reading(spread=1.5)), rate=0.01)

    assert found is not None
    assert found.startswith("no ratio: the reference's own clean - floor is ")


@pytest.mark.parametrize(("effect", "lost"), [(1.0, False), (0.01, False), (-1.0, True), (0.0, True)])
def test_without_a_reference_the_effect_must_be_positive(effect, lost):
    assert (task_lost(Effects(reading(effect=effect)), None, rate=0.01) is not None) == lost


def test_a_task_lost_in_one_template_is_told_of_it():
    r = reading(seed=1)
    floor = np.where(np.array(r.templates) == "t2", r.clean - 0.1, r.floor)
    broken = Effects(replace(r, floor=floor))

    lost = {name: task_lost(broken.within(name), Effects(REFERENCE).within(name), rate=0.01) for name in TEMPLATES}
    assert [name for name, reason in lost.items() if reason] == ["t2"]
    assert str(lost["t2"]).startswith("task lost in template 't2': ")


def test_an_effect_needs_ten_of_its_standard_errors():
    """Two prompts at 1 +- e have mean 1 and standard error e."""
    r = replace(reading(), templates=("a", "a"), clean=np.array([0.875, 1.125]), floor=np.zeros(2))

    assert task_lost(Effects(replace(r, clean=np.array([0.91, 1.09]))), None, rate=0.01) is None
    assert task_lost(Effects(r), None, rate=0.01) is not None


def test_the_part_of_the_references_effect_is_a_ratio_of_the_same_prompts():
    """Every prompt keeps 0.27 of its effect, however much the prompts differ: that is proven above a quarter."""
    before = reading(spread=0.5)
    after = replace(before, floor=before.clean - 0.27 * (before.clean - before.floor))

    assert task_lost(Effects(after), Effects(before), rate=0.01) is None

"""Attribution of a checkpoint beside that of the reference: order and largest heads, kept, fallen, warned of."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagined import HEADS, compared, reading, spec_file

from pytest_circuits import load_spec, measure, open_checkpoint
from pytest_circuits.checks import judge
from pytest_circuits.checks.attribution import SHOWN
from pytest_circuits.errors import BaselineError, MeasurementError
from pytest_circuits.records import Verdict
from pytest_circuits.spec.schema import Measure

ORDER = (5.0, -4.0, 3.0, 0.5, -0.4, 0.3, 0.2, 0.1)
"""Effects of the heads, from the first layer on."""
REFERENCE = reading(attribution={head: np.full(128, effect) for head, effect in zip(HEADS, ORDER, strict=True)})


def attributed(*effects, noise=0.0):
    """A reading with these effects of the heads, those of single prompts and templates differing around them."""
    swing = np.repeat([1.0, -1.0], 64)
    found = {head: effect + swing for head, effect in zip(HEADS, effects, strict=True)}
    return reading(attribution=found, noise=noise)


def result_of(observed, reference=REFERENCE, **limits):
    file = spec_file({"attribution": {"top": 3, **limits}})
    return judge("attribution", compared(observed, reference, file=file))


def values(observed, reference=REFERENCE, **limits):
    return {record.claim: record.value for record in result_of(observed, reference, **limits).records}


def naive_spearman(one, other):
    """Ranks by counting, and Pearson's correlation of them."""
    ranks = [[sum(a < b for a in x) + 0.5 * sum(a == b for a in x) for b in x] for x in (one, other)]
    return np.corrcoef(ranks)[0, 1]


def test_the_same_attribution_agrees_wholly():
    result = result_of(attributed(*ORDER))

    assert (result.verdict, result.warnings) == (Verdict.PASS, ())
    assert [(record.claim, record.value, record.limit) for record in result.records] == [
        ("spearman", pytest.approx(1.0), 0.8),
        ("jaccard", 1.0, 0.5),
    ]
    assert result.records[0].message == "spearman over all heads 1.00, limit 0.8"
    assert result.records[1].message == "jaccard of the 3 largest 1.00 (chance 0.26), limit 0.5"
    assert {record.interval for record in result.records} == {None}


def test_the_size_does_not_count():
    assert values(attributed(*(30 * effect for effect in ORDER))) == {"spearman": pytest.approx(1.0), "jaccard": 1.0}


FALLEN = (0.1, -4.0, 0.2, 5.0, 0.3, -3.0, 0.0, 0.4)


def test_a_fall_is_a_warning_that_names_numbers_and_heads():
    result = result_of(attributed(*FALLEN))
    expected = naive_spearman(FALLEN, ORDER)

    assert values(attributed(*FALLEN)) == {"spearman": pytest.approx(expected), "jaccard": 0.2}
    assert result.verdict is Verdict.PASS
    assert {record.verdict for record in result.records} == {Verdict.PASS}
    assert result.warnings == (
        f"spearman over all heads {expected:.2f}, limit 0.8; jaccard of the 3 largest 0.20 (chance 0.26), limit 0.5;"
        " left: L0H0 5 -> 0.1, L0H2 3 -> 0.2; entered: L0H3 0.5 -> 5, L1H1 0.3 -> -3",
    )
    assert result.records[1].message == (
        "jaccard of the 3 largest 0.20 (chance 0.26), limit 0.5 (a fall is a warning here)"
    )


def test_a_fall_is_drift_where_the_spec_says_so():
    result = result_of(attributed(*FALLEN), on_fall="fail")
    expected = naive_spearman(FALLEN, ORDER)

    assert (result.verdict, result.warnings) == (Verdict.DRIFT, ())
    assert [record.message for record in result.records] == [
        f"spearman over all heads {expected:.2f} is below its limit 0.8",
        "jaccard of the 3 largest 0.20 (chance 0.26) is below its limit 0.5",
    ]
    assert result.details[-1] == ("left: L0H0 5 -> 0.1, L0H2 3 -> 0.2; entered: L0H3 0.5 -> 5, L1H1 0.3 -> -3")
    assert result.headline.endswith("(reference: builtin:imagined)")


def test_what_is_kept_is_not_said_to_have_fallen():
    """The order of small heads has changed and the largest are the same."""
    swapped = (*ORDER[:3], -0.5, 0.4, -0.3, -0.2, -0.1)
    result = result_of(attributed(*swapped), on_fall="fail", spearman_at_least=0.9)

    assert {record.claim: record.verdict for record in result.records} == {
        "spearman": Verdict.DRIFT,
        "jaccard": Verdict.PASS,
    }
    assert result.details == ()
    told = result_of(attributed(*swapped), spearman_at_least=0.9)
    assert [record.message.endswith("here)") for record in told.records] == [True, False]
    assert not any("left" in warning for warning in told.warnings)


def test_a_head_that_turned_against_the_answer_changes_the_order_and_not_the_largest():
    found = values(attributed(-5.0, *ORDER[1:]))

    assert found["jaccard"] == 1.0
    assert found["spearman"] == pytest.approx(naive_spearman((-5.0, *ORDER[1:]), ORDER))
    assert found["spearman"] < 0.5


def test_templates_weigh_equally():
    """The first template has half of all prompts and would decide alone."""
    templates = ("t0",) * 64 + tuple(f"t{1 + at % 7}" for at in range(64))
    effects = {head: np.where(np.arange(128) < 64, 7.0 * (8 - at), at) for at, head in enumerate(HEADS)}
    observed = replace(reading(attribution=effects), templates=templates)
    before = replace(REFERENCE, templates=templates)
    means = [(7.0 * (8 - at) + 7 * at) / 8 for at in range(8)]
    assert len(set(means)) == 1

    with pytest.raises(MeasurementError, match="every one has the same"):
        values(observed, before)


# -- what is no effect -------------------------------------------------------------------------------------------------


def test_effects_within_the_noise_have_no_order():
    idle = (5.0, -4.0, 3.0, 0.04, -0.01, 0.03, -0.02, 0.01)
    other = (5.0, -4.0, 3.0, -0.02, 0.03, -0.04, 0.01, 0.02)
    assert values(attributed(*idle), attributed(*other))["spearman"] < 0.9

    assert values(attributed(*idle, noise=0.05), attributed(*other)) == {"spearman": pytest.approx(1), "jaccard": 1}
    assert values(attributed(*idle), attributed(*other, noise=0.05)) == {"spearman": pytest.approx(1), "jaccard": 1}


def test_what_float32_leaves_of_nothing_has_no_order_whatever_the_noise():
    least = 1e-6 * 5.0
    idle = [(5.0, -4.0, 3.0, *(least * part for part in parts)) for parts in ((0.9, 0.3, -0.5, 0.1, 0.2), (0,) * 5)]

    assert values(attributed(*idle[0]), attributed(*idle[1])) == {"spearman": pytest.approx(1), "jaccard": 1}


def test_heads_of_one_size_are_taken_together():
    """Of four heads that tie for the last two places none is left out by its number."""
    tied = (5.0, 1.0, 1.0, -1.0, 1.0, 0.0, 0.0, 0.0)

    assert values(attributed(*tied), attributed(*tied))["jaccard"] == 1.0
    assert values(attributed(*tied))["jaccard"] == 3 / 5


def test_without_any_effect_there_is_nothing_to_agree_on():
    with pytest.raises(MeasurementError, match="every one has the same"):
        result_of(attributed(*(0.0,) * 8))


def test_many_heads_are_counted_and_not_listed():
    file = spec_file({"attribution": {"top": 6}}, model=MODEL_OF_20)
    names = [f"L{layer}H{head}" for layer in range(2) for head in range(10)]
    first = {name: np.full(128, 20.0 - at) for at, name in enumerate(names)}
    last = {name: np.full(128, 1.0 + at) for at, name in enumerate(names)}
    (warning,) = judge(
        "attribution", compared(reading(attribution=last), reading(attribution=first), file=file)
    ).warnings

    assert warning.count(" -> ") == 2 * SHOWN
    assert warning.count(" and 1 more") == 2
    assert "spearman over all heads -1.00" in warning


MODEL_OF_20 = {"checkpoint": "builtin:imagined", "architecture": "gpt2", "layers": 2, "heads": 10}


# -- what must be there ------------------------------------------------------------------------------------------------


def test_without_a_reference_both_claims_are_errors():
    file = spec_file({"attribution": {"top": 3}})
    result = judge("attribution", compared(REFERENCE, None, file=file, missing="no baseline at X"))

    assert [(record.claim, record.verdict, record.message) for record in result.records] == [
        ("spearman", Verdict.ERROR, "no baseline at X"),
        ("jaccard", Verdict.ERROR, "no baseline at X"),
    ]


def test_a_head_that_was_not_attributed_is_an_error():
    fewer = {head: rows for head, rows in REFERENCE.attribution.items() if head != "L1H3"}

    with pytest.raises(MeasurementError, match="attribution: expected every head of the model, found none named L1H3"):
        result_of(replace(REFERENCE, attribution=fewer))


@pytest.mark.parametrize(("value", "match"), [(np.nan, "expected finite values, found nan"), (None, "found shape")])
def test_numbers_that_are_none_are_errors(value, match):
    rows = np.zeros(127) if value is None else np.full(128, value)

    with pytest.raises(MeasurementError, match=f"attribution to L0H2: expected .*{match}|{match}"):
        result_of(replace(REFERENCE, attribution={**REFERENCE.attribution, "L0H2": rows}))


def test_a_baseline_without_attribution_is_an_error_of_its_own():
    class Lacking:
        templates, noise = REFERENCE.templates, 0.0

        @property
        def attribution(self):
            raise BaselineError("the baseline lacks attribution")

    with pytest.raises(BaselineError, match="lacks attribution"):
        result_of(REFERENCE, Lacking())


def test_nothing_but_attribution_is_measured():
    class Only:
        templates, noise, attribution = REFERENCE.templates, 0.0, REFERENCE.attribution

    assert result_of(Only(), Only()).verdict is Verdict.PASS


@settings(max_examples=20)
@given(order=st.permutations(range(8)), seed=st.integers(0, 100))
def test_the_claim_is_the_naive_one(order, seed):
    random = np.random.default_rng(seed)
    now, before = random.integers(-3, 4, 8) + 0.0, random.integers(-3, 4, 8) + 0.0
    now, before = now[list(order)], before
    if len(set(now)) == 1 or len(set(before)) == 1:
        return
    found = values(attributed(*now), attributed(*before))

    assert found["spearman"] == pytest.approx(naive_spearman(now, before))
    largest = []
    for effects in (now, before):
        least = sorted(np.abs(effects))[-3]
        largest.append({at for at, effect in enumerate(effects) if abs(effect) >= least and effect})
    assert found["jaccard"] == len(largest[0] & largest[1]) / len(largest[0] | largest[1])


def test_the_chance_that_is_told_is_that_of_two_random_sets():
    sets = [set(one) for one in combinations(range(8), 3)]
    chance = np.mean([len(one & other) / len(one | other) for one in sets for other in sets])

    assert f"(chance {chance:.2f})" in result_of(REFERENCE).records[1].message


# -- real checkpoints --------------------------------------------------------------------------------------------------

SPEC = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, car, king], plural: [dogs, authors, cars, kings]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [beside, above]
    other: {singular: [table, lamp], plural: [tables, lamps]}
  templates:
    - {id: near, text: "the {subject} {near} the {other}", answer: "{verb}", flip: subject}
claims: {attribution: {METHOD, top: 3, on_fall: fail}}
"""


@pytest.fixture(scope="module")
def tiny_result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")

    def tiny_result(name, method):
        path = folder / "a.circuit.yaml"
        path.write_text(SPEC.replace("METHOD", f"method: {method}"))
        file = load_spec(path, root=folder)
        readings = [measure(file, open_checkpoint(f"builtin:{one}", device="cpu")) for one in (name, "tiny")]
        return judge("attribution", compared(*readings, file=file))

    return tiny_result


@pytest.mark.parametrize("method", ["exact", "atp", "eap-ig", "dla"])
def test_tiny_agrees_with_itself_by_every_method(tiny_result, method):
    assert [record.value for record in tiny_result("tiny", method).records] == [pytest.approx(1.0), 1.0]


@pytest.mark.parametrize("method", ["exact", "eap-ig"])
def test_a_tuned_checkpoint_agrees_and_a_rewired_one_does_not(tiny_result, method):
    tuned, rewired = tiny_result("tiny-tuned", method), tiny_result("tiny-rewired", method)

    assert tuned.verdict is Verdict.PASS
    assert rewired.verdict is Verdict.DRIFT
    assert any("left: L2H0" in line for line in rewired.details)


def test_a_method_that_refuses_the_metric_is_an_error(tmp_path):
    """A spec file is refused before that; one that was changed after it was read is not."""
    path = tmp_path / "a.circuit.yaml"
    path.write_text(SPEC.replace("METHOD", "method: atp"))
    file = load_spec(path, root=tmp_path)
    file = replace(file, spec=file.spec.model_copy(update={"measure": Measure(metric="kl")}))
    found = measure(file, open_checkpoint("builtin:tiny", device="cpu"))

    with pytest.raises(MeasurementError, match="kl"):
        judge("attribution", compared(found, found, file=file))


def test_what_the_spec_does_not_claim_is_not_attributed(tmp_path):
    path = tmp_path / "a.circuit.yaml"
    path.write_text(SPEC.replace("attribution: {METHOD, top: 3, on_fall: fail}", "behaviour: "))
    found = measure(load_spec(path, root=tmp_path), open_checkpoint("builtin:tiny", device="cpu"))

    with pytest.raises(MeasurementError, match="attribution: expected a spec that claims it, found none: .*method"):
        _ = found.attribution
    with pytest.raises(MeasurementError, match="successor: expected a spec that claims it, found none: .*its heads"):
        _ = found.successor

"""What people read: a failure, the table of a checkpoint, the false alarms of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_circuits.records import Verdict
from pytest_circuits.report import Line, budget_line, failure_text, summary_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_circuits.records import Result

    MakeResult = Callable[..., Result]

AGREEMENT, SUCCESSOR, OBJECT = "specs/tiny/verb-agreement", "specs/tiny/successor", "specs/gpt2/indirect-object"


def failure(result: Result, *, node_id: str = f"{AGREEMENT}.circuit.yaml::heads[tuned]", arguments: list[str]) -> str:
    return failure_text(result, path=f"{AGREEMENT}.circuit.yaml", node_id=node_id, arguments=arguments)


def table(results: list[Result], **options: object) -> list[Line]:
    usual = {"checkpoint": "tuned", "source": "./out/step-1000", "reference": "builtin:tiny"}
    return summary_table(results, **(usual | options))  # type: ignore[arg-type]


def row(results: list[Result], **options: object) -> str:
    """The row of the one circuit there is."""
    return table(results, **options)[3].text


def test_a_failure_says_where_what_and_how_to_repeat_it(moved: Result) -> None:
    assert failure(moved, arguments=["--circuits-checkpoint", "tuned=./out/step 1000"]) == (
        "specs/tiny/verb-agreement.circuit.yaml:31: heads: 2 of 16 heads left their limits "
        "(reference: builtin:tiny, 12.3 logits)\n"
        "  L2H0  number_mover  share 0.98 -> 0.00  drift -0.98 [-0.99, -0.97]  lost\n"
        "  L1H2                share 0.04 -> 1.01  drift +0.97 [+0.95, +0.99]  took over\n"
        "  behaviour is unchanged (accuracy 1.00 -> 1.00): the task is still solved, by other heads.\n"
        'reproduce: pytest "specs/tiny/verb-agreement.circuit.yaml::heads[tuned]" '
        "--circuits-checkpoint 'tuned=./out/step 1000'"
    )


def test_a_failure_of_several_lines_keeps_its_lines(moved: Result) -> None:
    refused = replace(moved, headline="heads: no baseline.\n  Create it: pytest x", details=("one\ntwo",))

    assert failure(refused, arguments=[]).splitlines()[:-1] == [
        "specs/tiny/verb-agreement.circuit.yaml:31: heads: no baseline.",
        "    Create it: pytest x",
        "  one",
        "  two",
    ]


def test_a_failure_with_foreign_text_commands_nothing(moved: Result) -> None:
    hostile = replace(moved, headline="\x1b[2J", details=("::error::x", "a\n::add-mask::b\rc", "##[group]d"))

    text = failure(hostile, node_id="x::heads[\x1b]", arguments=["\n::error::y"])

    assert text.splitlines() == [
        r"specs/tiny/verb-agreement.circuit.yaml:31: \x1b[2J",
        "  : :error::x",
        "  a",
        r"  : :add-mask::b\rc",
        "  # #[group]d",
        r"""reproduce: pytest "x::heads[\x1b]" '\n::error::y'""",
    ]


def test_a_long_command_is_not_cut(moved: Result) -> None:
    source = "./out/" + "deep/" * 60

    assert failure(moved, arguments=["--circuits-checkpoint", source]).endswith(source)


@pytest.mark.parametrize("mark", ['"', "$", "`", "\\", "!"])
def test_a_node_id_that_double_quotes_would_not_hold_is_quoted_for_the_shell(moved: Result, mark: str) -> None:
    assert failure(moved, node_id=f"a{mark}b", arguments=[]).endswith(f"reproduce: pytest 'a{mark}b'")


def test_the_table_shows_every_verdict_with_the_number_that_decided(every_verdict: list[Result]) -> None:
    lines = table(every_verdict, identical=[SUCCESSOR])

    assert [line.text for line in lines] == [
        "checkpoint tuned (./out/step-1000), compared with builtin:tiny",
        "",
        "circuit                     behaviour    faithfulness  necessity     controls     heads        roles        "
        "verdict",
        "specs/tiny/verb-agreement   pass   0.99  pass  0.97    pass    0.95  pass   0.99  DRIFT -0.98  DRIFT -0.97  "
        "drift",
        "specs/tiny/successor        pass   1.02  BELOW 0.62    UNSURE -0.07  UNSURE 0.88  pass  +0.04  -            "
        "drift",
        "specs/gpt2/indirect-object  DRIFT -0.88  N/A           N/A           ERROR        N/A          -            "
        "error",
        "",
        "ERROR   could not be measured",
        "DRIFT   proven to be further from the reference than the limit allows",
        "BELOW   proven to miss an absolute limit",
        "N/A     not evaluated: the task is lost, so its ratios mean nothing",
        "UNSURE  inconclusive: proven neither inside the limit nor beyond it",
        "number  with a sign: the change from the reference that decided; without: the value itself",
        "-       not declared by the spec, or not in this run",
        "",
        "warning: specs/tiny/verb-agreement: controls: a random circuit of this size does as well (112 of 200): this "
        "claim says",
        "  nothing",
        "identical: tuned: the same weights as builtin:tiny on specs/tiny/successor, so only rounding can differ",
    ]


def test_a_row_carries_its_worst_verdict_for_the_colour(every_verdict: list[Result]) -> None:
    verdicts = [line.verdict for line in table(every_verdict)]

    assert verdicts[:7] == [None, None, None, Verdict.DRIFT, Verdict.DRIFT, Verdict.ERROR, None]
    assert set(verdicts[7:]) == {None}


def test_nothing_is_explained_that_does_not_occur(make_result: MakeResult) -> None:
    checks = ("behaviour", "faithfulness", "necessity", "controls", "heads", "roles")
    green = [make_result(check, Verdict.PASS, {"value": 1.0}) for check in checks]

    assert [line.text for line in table(green)[4:]] == [
        "",
        "number  with a sign: the change from the reference that decided; without: the value itself",
        "",
    ]


def test_another_checkpoint_s_results_are_not_in_the_table(make_result: MakeResult, moved: Result) -> None:
    other = make_result("heads", Verdict.ERROR, checkpoint="other", circuit="specs/other")

    assert table([moved, other]) == table([moved])


def test_a_checkpoint_without_another_name_or_a_reference_says_so(moved: Result) -> None:
    title = table([moved], checkpoint="tuned", source="tuned", reference=None)[0]

    assert title == Line("checkpoint tuned, with no reference: absolute limits are judged, drift is not")


def test_a_checkpoint_that_is_identical_for_every_circuit_names_none(moved: Result) -> None:
    assert table([moved], identical=[AGREEMENT])[-1].text == (
        "identical: tuned: the same weights as builtin:tiny, so only rounding can differ"
    )


def test_a_checkpoint_on_which_nothing_ran_is_not_green() -> None:
    assert table([])[2] == Line("no check of this checkpoint came to an end", Verdict.ERROR)


def test_a_passing_check_of_heads_shows_the_one_that_moved_most(make_result: MakeResult) -> None:
    result = make_result(
        "heads",
        Verdict.PASS,
        {"component": "L0H0", "drift": 0.01},
        {"component": "L0H1", "drift": -0.03},
        {"component": "L0H2", "drift": None},
    )

    assert "pass -0.03" in row([result])


def test_a_check_without_a_number_shows_its_word_alone(make_result: MakeResult) -> None:
    assert row([make_result("roles", Verdict.INCONCLUSIVE)]).split()[1:] == ["-"] * 5 + ["UNSURE", "inconclusive"]


def test_an_error_s_number_is_not_shown_because_it_means_nothing(make_result: MakeResult) -> None:
    assert row([make_result("roles", Verdict.ERROR, {"value": 0.99})]).split()[1:] == ["-"] * 5 + ["ERROR", "error"]


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.001, "0.00"), (999.994, "999.99"), (12345.6, "1.2e+04"), (-1e300, "-1.0e+300")]
)
def test_a_number_is_short_whatever_it_is(make_result: MakeResult, value: float, shown: str) -> None:
    assert f"pass {shown} " in row([make_result("behaviour", Verdict.PASS, {"value": value})])


def test_a_drift_that_is_nearly_nothing_has_no_minus_zero(make_result: MakeResult) -> None:
    result = make_result("behaviour", Verdict.INCONCLUSIVE, {"value": 1.0, "drift": -0.0004})

    assert "UNSURE +0.00" in row([result])


def test_a_check_that_is_not_of_the_six_gets_its_column(make_result: MakeResult) -> None:
    lines = table([make_result("fuzz", Verdict.PASS, {"value": 1.0})])

    assert lines[2].text.split()[-2:] == ["fuzz", "verdict"]
    assert lines[3].text.split()[-3:] == ["pass", "1.00", "pass"]


def test_a_check_that_few_specs_declare_has_a_column_where_one_does(make_result: MakeResult) -> None:
    kept = make_result("attribution", Verdict.PASS, {"value": 0.98})
    fallen = make_result("successor", Verdict.DRIFT, {"component": "L3H3", "value": 0.3, "drift": -0.31})
    other = make_result("heads", Verdict.PASS, {"component": "L2H0", "drift": 0.01}, circuit="specs/other")
    lines = table([fallen, kept, other])

    assert lines[2].text.split()[-4:] == ["roles", "attribution", "successor", "verdict"]
    assert lines[3].text.split()[-5:] == ["pass", "0.98", "DRIFT", "-0.31", "drift"]
    assert lines[4].text.split()[-4:] == ["-", "-", "-", "pass"]
    assert "-       not declared by the spec, or not in this run" in [line.text for line in lines]
    assert "attribution" not in table([other])[2].text


def test_the_widest_table_fits_into_120_columns_and_keeps_the_end_of_a_name(make_result: MakeResult) -> None:
    circuit = "specs/" + "deep/" * 30 + "verb-agreement"
    checks = ("behaviour", "faithfulness", "necessity", "controls", "heads", "roles")
    results = [make_result(check, Verdict.INCONCLUSIVE, {"drift": -0.5}, circuit=circuit) for check in checks]
    results += [make_result("heads", Verdict.NOT_EVALUATED), make_result("roles", Verdict.PASS, warnings=("a " * 200,))]

    lines = table(results, identical=[circuit])

    assert max(len(line.text) for line in lines[2:5]) <= 120
    assert lines[3].text.startswith("...")
    assert "verb-agreement  UNSURE -0.50" in lines[3].text


def test_the_table_is_ascii_unless_a_name_is_not(every_verdict: list[Result]) -> None:
    assert all(line.text.isascii() for line in table(every_verdict))


def test_no_foreign_text_in_the_table_commands_anything(make_result: MakeResult) -> None:
    evil = "::error::\x1b[31m\n::warning::x"
    result = make_result("heads", Verdict.PASS, circuit=evil, checkpoint=evil, warnings=(evil, "ok ::error::" * 30))

    lines = summary_table([result], checkpoint=evil, source="./" + evil, reference=evil, identical=["other" + evil])

    assert len(lines) > 8
    for line in lines:
        assert line.text.isprintable()
        assert not line.text.lstrip().startswith("::")


@pytest.mark.parametrize("length", range(20, 140))
def test_a_long_word_is_not_cut_where_it_would_begin_a_line_with_a_command(
    make_result: MakeResult, length: int
) -> None:
    lines = table([make_result("heads", Verdict.PASS, warnings=("x" * length + "::error::" + "y" * 120,))])

    assert not any(line.text.lstrip().startswith("::") for line in lines)


@pytest.mark.parametrize(
    ("rates", "checkpoints", "expected"),
    [
        ({"a": 0.01, "b": 0.01, "c": 0.01}, 1, "at most 0.03 expected ... (3 specs x 1 checkpoint x 0.01)"),
        ({"a": 0.01}, 2, "at most 0.02 expected ... (1 spec x 2 checkpoints x 0.01)"),
        ({"a": 0.01, "b": 0.05}, 2, "at most 0.12 expected ... (2 specs x 2 checkpoints x their rates)"),
    ],
)
def test_the_budget_of_false_alarms_is_specs_times_checkpoints_times_rate(
    rates: dict[str, float], checkpoints: int, expected: str
) -> None:
    line = budget_line(rates, checkpoints=checkpoints)

    assert line == Line("false alarms: " + expected.replace("...", "where nothing drifted"))

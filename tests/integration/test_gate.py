"""The gate as a user runs it: items, failures, tables, the result file, baselines, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_circuits.builtin import builtin_directory

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = """\
format: 1
about: The subject's number reaches the verb.
model: {{checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: {heads}}}
prompts:
  vocabulary:
    subject: {{singular: [dog, author, key, car], plural: [dogs, authors, keys, cars]}}
    verb: {{singular: [is, was], plural: [are, were]}}
    near: [near, behind, beside, above]
    kind: [old, big, red]
  templates:
    - {{id: phrase, text: "the {{subject}} {{near}} the table", answer: "{{verb}}", flip: subject}}
    - {{id: adjective, text: "the {{kind}} {{subject}} {{near}} the tables", answer: "{{verb}}", flip: subject}}
circuit:
  number_mover: {{heads: [{head}]}}
  readers: {{mlps: [L0.mlp, L1.mlp, L2.mlp, L3.mlp]}}
claims:
  behaviour: {{accuracy_at_least: 0.70, loss_at_most: 0.50}}
  faithfulness: {{at_least: {at_least}, drift_at_most: 0.5}}
  heads: {{share_drift_at_most: 0.5, weaker_at_most: 0.5}}
rates: {{false_alarm: 0.05, missed_drift: 0.05}}
"""
NODE = "specs/verbs.circuit.yaml"


def main_head() -> str:
    """Return the head that carries agreement in tiny, as its own spec names it."""
    from pytest_circuits import load_spec

    root = Path(__file__).parents[2]
    spec = load_spec(root / "specs" / "tiny" / "verb-agreement.circuit.yaml", root=root).spec
    return str(spec.roles["number_mover"][0])


@pytest.fixture
def write_spec(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a small spec into a project of its own; `CI` is unset, so that baselines may be written."""
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\n")
    folder = pytester.mkdir("specs")

    def write(name: str = "verbs", *, at_least: float = 0.7, heads: int = 4, head: str | None = None) -> Path:
        path = folder / f"{name}.circuit.yaml"
        path.write_text(SMALL.format(at_least=at_least, heads=heads, head=head or main_head()))
        return path

    return write


def result_of(pytester: pytest.Pytester) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((pytester.path / "out.json").read_text())
    return document


def test_a_baseline_goes_from_missing_to_written_to_compared(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()

    missing = pytester.runpytest()
    missing.assert_outcomes(failed=3)
    assert missing.ret == pytest.ExitCode.TESTS_FAILED
    assert f'pytest "{NODE}" --circuits-update=new' in missing.stdout.str()

    written = pytester.runpytest("--circuits-update=new")
    written.assert_outcomes(passed=3)
    assert "specs/verbs: baseline written from 'builtin:tiny'" in written.stdout.str()

    compared = pytester.runpytest("--circuits-json", "out.json")
    compared.assert_outcomes(passed=3)
    assert "the same weights as builtin:tiny" in compared.stdout.str()
    first = result_of(pytester)
    assert (first["verdict"], first["complete"], len(first["collected"])) == ("pass", True, 3)
    assert first["checkpoints"]["tiny"]["source"] == "builtin:tiny"
    assert len(first["heads"]["specs/verbs"]["tiny"]) == 16

    pytester.runpytest("--circuits-json", "out.json")
    assert result_of(pytester)["records"] == first["records"]

    before = (pytester.path / "specs/__circuits__/verbs.json").read_bytes()
    again = pytester.runpytest("--circuits-update=all", "--circuits-update-reason", "nothing changed")
    again.assert_outcomes(passed=3)
    assert "baseline unchanged" in again.stdout.str()
    assert (pytester.path / "specs/__circuits__/verbs.json").read_bytes() == before


def test_another_circuit_fails_with_what_moved_and_how_to_reproduce_it(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    result = pytester.runpytest(
        "--circuits-reference", "base=builtin:tiny", "--circuits-checkpoint", "builtin:tiny-rewired",
        "--circuits-json", "out.json", "--junitxml", "junit.xml",
    )  # fmt: skip

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "specs/verbs.circuit.yaml:19: heads: " in text
    assert main_head() in text
    assert "took over" in text
    assert (
        f'reproduce: pytest "{NODE}::heads[tiny-rewired]" --circuits-checkpoint builtin:tiny-rewired'
        " --circuits-reference base=builtin:tiny" in text
    )
    document = result_of(pytester)
    verdicts = {record["check"]: set() for record in document["records"]}
    for record in document["records"]:
        verdicts[record["check"]].add(record["verdict"])
    assert document["verdict"] == "drift"
    assert verdicts["behaviour"] == {"pass"}
    assert "drift" in verdicts["heads"]
    junit = (pytester.path / "junit.xml").read_text()
    assert '<property name="line" value="19"' in junit


def test_a_spec_that_is_not_verified_is_told_once_with_its_reason(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    for name, verified in (("verbs", "false"), ("others", "true")):
        said = f"format: 1\nverification:\n  verified: {verified}\n  reason: >-\n    no weights\n    were read\n"
        path = write_spec(name)
        path.write_text(path.read_text().replace("format: 1\n", said))
    result = pytester.runpytest("--circuits-reference=builtin:tiny", "--circuits-json=out.json")

    assert result.ret == pytest.ExitCode.OK
    assert [line for line in result.outlines if "not verified" in line] == [
        "specs/verbs: not verified: no weights were read"
    ]
    assert result_of(pytester)["unverified"] == {"specs/verbs": "no weights were read"}


def test_an_absolute_limit_stands_in_the_way_of_a_baseline(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    idle = main_head()[:-1] + str((int(main_head()[-1]) + 1) % 4)
    write_spec(head=idle)
    result = pytester.runpytest("--circuits-update=new")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "no baseline was written from 'builtin:tiny', because it could not serve" in result.stdout.str()
    assert not (pytester.path / "specs/__circuits__").exists()


def test_a_baseline_is_not_written_from_part_of_the_checks(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    result = pytester.runpytest("--circuits-update=new", "-k", "not heads")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "specs/verbs: no baseline was written: heads did not finish in this run" in result.stdout.str()
    assert not (pytester.path / "specs/__circuits__").exists()


@pytest.mark.parametrize("check", ["behaviour", "heads"])
def test_a_baseline_is_not_written_when_a_teardown_fails(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], check: str
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\n"
        "@pytest.fixture(autouse=True)\n"
        "def fragile(request):\n"
        "    yield\n"
        f"    assert request.node.originalname != {check!r}, 'the teardown broke'\n"
    )
    result = pytester.runpytest("--circuits-update=new", "--circuits-json", "out.json")

    result.assert_outcomes(passed=3, errors=1)
    assert f"specs/verbs: no baseline was written: {check} did not finish in this run" in result.stdout.str()
    assert not (pytester.path / "specs/__circuits__").exists()
    assert result_of(pytester)["verdict"] == "error"


@pytest.mark.parametrize("inconclusive", ["fail", "warn"])
def test_an_undecided_absolute_limit_stands_in_the_way_of_a_baseline_unless_it_only_warns(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], inconclusive: str
) -> None:
    path = write_spec()
    path.write_text(path.read_text().replace("accuracy_at_least: 0.70", "accuracy_at_least: 0.999"))
    result = pytester.runpytest("--circuits-update=new", f"--circuits-inconclusive={inconclusive}")
    written = (pytester.path / "specs/__circuits__/verbs.json").exists()

    assert written == (inconclusive == "warn")
    if inconclusive == "fail":
        result.assert_outcomes(passed=2, failed=1, errors=1)
        assert "because it could not serve" in result.stdout.str()
        assert "- behaviour: accuracy 1.00" in result.stdout.str()
    else:
        result.assert_outcomes(passed=3)


def test_a_changed_spec_makes_its_baseline_stale_and_never_drift(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    path = write_spec()
    pytester.runpytest("--circuits-update=new").assert_outcomes(passed=3)
    path.write_text(path.read_text().replace("[near, behind, beside, above]", "[near, behind, beside, by]"))
    result = pytester.runpytest("--circuits-json", "out.json")

    result.assert_outcomes(failed=3)
    assert "the stored baseline is stale" in result.stdout.str()
    assert {record["verdict"] for record in result_of(pytester)["records"]} <= {"error", "pass"}
    assert result_of(pytester)["verdict"] == "error"


def test_a_changed_threshold_leaves_the_baseline_valid(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.runpytest("--circuits-update=new").assert_outcomes(passed=3)
    write_spec(at_least=0.6)

    pytester.runpytest().assert_outcomes(passed=3)


def test_a_damaged_baseline_is_an_error(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    write_spec()
    pytester.runpytest("--circuits-update=new").assert_outcomes(passed=3)
    stored = pytester.path / "specs/__circuits__/verbs.json"
    stored.write_text(stored.read_text().replace("tiny", "tyni", 1))
    result = pytester.runpytest("-k", "heads")

    result.assert_outcomes(failed=1, deselected=2)
    assert "the stored baseline is damaged" in result.stdout.str()


def test_a_spec_for_another_shape_is_red_and_names_those_that_fit(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec(heads=8)
    write_spec("fitting")
    result = pytester.runpytest("-k", "behaviour")

    text = result.stdout.str()
    assert "specs/verbs is for gpt2 with 4 layers x 8 heads; the checkpoint 'tiny' is gpt2 with 4 layers x 4" in text
    assert "Collected specs that fit it: specs/fitting." in text
    result.assert_outcomes(failed=2, deselected=4)


def test_an_overridden_fixture_that_opens_another_checkpoint_is_an_error(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\nfrom pytest_circuits import open_checkpoint\n"
        "@pytest.fixture(scope='session')\n"
        "def circuit_model():\n    return open_checkpoint('builtin:tiny-tuned')\n"
    )
    result = pytester.runpytest()

    result.assert_outcomes(failed=3)
    assert "must depend on circuit_checkpoint and open that one" in result.stdout.str()


def test_a_refused_checkpoint_is_an_error_of_every_item(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    folder = pytester.mkdir("pickled")
    (folder / "config.json").write_text((builtin_directory("tiny") / "config.json").read_text())
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    result = pytester.runpytest("--circuits-checkpoint", "pickled", "--circuits-json", "out.json")

    result.assert_outcomes(errors=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "pickle" in result.stdout.str()
    assert result_of(pytester)["verdict"] == "error"


def test_items_that_are_skipped_do_not_look_green(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items:\n        item.add_marker(pytest.mark.skip)\n"
    )
    result = pytester.runpytest("--circuits-json", "out.json")

    result.assert_outcomes(skipped=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "3 circuit items were collected and told no result, so this run is not green" in result.stdout.str()
    assert (result_of(pytester)["complete"], result_of(pytester)["verdict"]) == (False, "error")


def test_a_checkpoint_is_loaded_once_for_all_its_items(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_circuits.checkpoints import load

    opened = []
    plain = load.open_model
    monkeypatch.setattr(load, "open_model", lambda i, **k: opened.append(i.name) or plain(i, **k))  # type: ignore[func-returns-value]
    write_spec()
    write_spec("again")
    pytester.runpytest("--circuits-checkpoint", "a=builtin:tiny", "--circuits-checkpoint", "b=builtin:tiny-tuned")

    assert opened == ["a", "b"]


def test_failed_items_alone_run_again(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    write_spec()
    options = ["--circuits-reference", "base=builtin:tiny", "--circuits-checkpoint", "builtin:tiny-rewired"]
    first = pytester.runpytest(*options)
    failed = first.parseoutcomes()["failed"]
    again = pytester.runpytest("--lf", *options)

    assert again.parseoutcomes()["failed"] == failed
    assert "passed" not in again.parseoutcomes()


def test_a_check_alone_comes_to_the_same_records(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    write_spec()
    options = ["--circuits-reference", "base=builtin:tiny", "--circuits-checkpoint", "builtin:tiny-rewired"]
    options.append("--circuits-no-cache")  # what is compared was measured twice
    pytester.runpytest("--circuits-json", "out.json", *options)
    whole = [record for record in result_of(pytester)["records"] if record["check"] == "heads"]
    pytester.runpytest("--circuits-json", "out.json", "-k", "heads", *options)

    assert result_of(pytester)["records"] == whole


def test_a_hand_written_test_gets_the_circuit_and_its_model(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makepyfile(
        """
        import pytest
        from pytest_circuits import judge, measure

        @pytest.mark.circuit("specs/verbs.circuit.yaml")
        def test_it(circuit, circuit_model, circuit_checkpoint):
            reading = measure(circuit, circuit_model)
            assert circuit_checkpoint.name == circuit_model.name == "tiny"
            assert (reading.clean_logit_diff > 0).mean() > 0.9
            results = judge(circuit, circuit_model, reading, reference=reading)
            assert [str(result.verdict) for result in results] == ["pass"] * 3
        """
    )
    pytester.runpytest("-k", "test_it").assert_outcomes(passed=1, deselected=3)


def test_a_hand_written_test_without_the_mark_is_told_what_it_lacks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(circuit_model): pass\ndef test_that(circuit): pass")
    result = pytester.runpytest()

    result.assert_outcomes(errors=2)
    assert "no checkpoint to test: mark the test with" in result.stdout.str()
    assert "the fixture circuit needs @pytest.mark.circuit" in result.stdout.str()


def test_without_the_extra_each_item_prints_the_install_line(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_circuits.plugin import session

    monkeypatch.setattr(session, "NEEDED", ("torch", "a_package_that_is_not_here"))
    write_spec()
    result = pytester.runpytest()

    result.assert_outcomes(errors=3)
    assert "measuring needs a_package_that_is_not_here" in result.stdout.str()
    assert 'pip install "pytest-circuits[hf]"' in result.stdout.str()


def test_xdist_comes_to_the_same_result_file(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    write_spec()
    options = ["--circuits-reference", "base=builtin:tiny", "--circuits-checkpoint", "builtin:tiny-rewired"]
    options.append("--circuits-no-cache")  # what is compared was measured twice
    pytester.runpytest("--circuits-json", "out.json", *options)
    alone = result_of(pytester)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--circuits-json", "out.json", *options]
    # One thread as in this process: another number sums in another order, and the last digits would differ.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False, env=one_thread)
    together = result_of(pytester)

    assert ran.returncode == 1
    assert "checkpoint tiny-rewired" in ran.stdout
    order = {record["check"]: index for index, record in enumerate(alone["records"])}
    together["records"].sort(key=lambda record: order[record["check"]])
    assert sorted(map(str, together["records"])) == sorted(map(str, alone["records"]))
    assert (together["complete"], together["verdict"]) == (True, "drift")


def test_an_overridden_checkpoint_is_an_error_and_nothing_is_measured_on_another(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\nfrom pytest_circuits.checkpoints.naming import Checkpoint\n"
        "@pytest.fixture(scope='session')\n"
        "def circuit_checkpoint(request):\n    return Checkpoint(request.param.name, 'builtin:tiny')\n"
    )
    result = pytester.runpytest("--circuits-checkpoint=builtin:tiny-rewired", "--circuits-reference=b=builtin:tiny")

    result.assert_outcomes(failed=3)
    assert "must return request.param as it is" in result.stdout.str()


def test_a_red_verdict_is_red_even_where_its_test_is_marked_xfail(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items:\n        item.add_marker(pytest.mark.xfail)\n"
    )
    result = pytester.runpytest("--circuits-checkpoint=builtin:tiny-rewired", "--circuits-reference=b=builtin:tiny")

    assert result.parseoutcomes()["xfailed"] == 2
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "2 circuit items have a red verdict, whatever mark their test has" in result.stdout.str()


def test_a_result_file_beside_a_spec_that_does_not_load_is_not_complete(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec().with_name("broken.circuit.yaml").write_text("format: 2\n")
    result = pytester.runpytest(
        "--continue-on-collection-errors", "--circuits-json=out.json", "--circuits-reference=b=builtin:tiny"
    )

    assert result.parseoutcomes()["passed"] == 3
    assert (result_of(pytester)["complete"], result_of(pytester)["verdict"]) == (False, "error")
    assert "could not be collected, or died" in result.stdout.str()


def test_an_orphan_makes_the_result_file_incomplete(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    store = write_spec().parent / "__circuits__"
    store.mkdir()
    (store / "gone.json").write_text("{}")
    pytester.runpytest("--circuits-json=out.json", "--circuits-reference=b=builtin:tiny").assert_outcomes(
        passed=3, failed=1
    )

    assert (result_of(pytester)["complete"], result_of(pytester)["verdict"]) == (False, "error")


def test_a_failure_after_the_verdict_takes_the_pass_back(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\n@pytest.fixture(autouse=True)\ndef after():\n    yield\n    pytest.fail('planted')\n"
    )
    pytester.runpytest("-k", "behaviour", "--circuits-json=out.json", "--circuits-reference=b=builtin:tiny")

    assert result_of(pytester)["verdict"] == "error"


def test_the_reproduced_command_names_one_checkpoint(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    options = ["--circuits-checkpoint=a=builtin:tiny", "--circuits-checkpoint=b=builtin:tiny-rewired"]
    result = pytester.runpytest("-k", "heads", "--circuits-reference=r=builtin:tiny", *options)

    (line,) = [line for line in result.outlines if line.startswith("reproduce: ")]
    assert line == (
        f'reproduce: pytest "{NODE}::heads[b]" --circuits-checkpoint b=builtin:tiny-rewired'
        " --circuits-reference r=builtin:tiny"
    )


def test_a_result_file_that_cannot_be_written_is_told_and_red(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pathlib\ndef pytest_runtest_teardown(item):\n    pathlib.Path('out.json').mkdir(exist_ok=True)\n"
    )
    result = pytester.runpytest("-k", "behaviour", "--circuits-json=out.json", "--circuits-reference=b=builtin:tiny")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the result file" in result.stdout.str()
    assert "cannot be written" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize("name", ["verbs.circuit.yml", "verbs.CIRCUIT.yaml"])
def test_a_misnamed_spec_is_not_passed_over(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], name: str
) -> None:
    path = write_spec()
    path.rename(path.with_name(name))
    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "rename it so that it ends in .circuit.yaml" in result.stdout.str()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("n_embd", 64, "refused: the model of 'odd'|does not hold the tensors"),
        ("activation_function", "nonesuch", "refused: the model of 'odd' cannot be made"),
        ("vocab_size", 12, "does not hold the tensors of a gpt2|refused: the model of 'odd'"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused_without_a_traceback(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], key: str, value: Any, text: str
) -> None:
    write_spec()
    folder = pytester.path / "odd"
    shutil.copytree(builtin_directory("tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    result = pytester.runpytest("--circuits-checkpoint=odd", "--circuits-reference=b=builtin:tiny", "-k", "behaviour")

    result.assert_outcomes(failed=1, deselected=2)
    assert re.search(text, result.stdout.str())
    assert "Traceback" not in result.stdout.str()
    assert "site-packages" not in result.stdout.str()


AFTER_THE_BODY = """
import pytest
@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    yield
    assert pyfuncitem.originalname != "behaviour", "planted"
    return True
"""
AFTER_THE_TEARDOWN = """
import pytest
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    yield
    assert item.originalname != "heads", "planted"
"""
TWICE = """
import pytest
@pytest.fixture(autouse=True, params=["one", "two"])
def twice(request):
    yield
    assert (request.node.originalname, request.param) != ("heads", "two"), "planted"
"""
SKIPPED_LATER = """
import pytest
@pytest.fixture(autouse=True)
def left(request):
    yield
    if request.node.originalname == "heads":
        pytest.skip("planted")
"""


@pytest.mark.parametrize(
    ("conftest", "check"),
    [(AFTER_THE_BODY, "behaviour"), (AFTER_THE_TEARDOWN, "heads"), (TWICE, "heads"), (SKIPPED_LATER, "heads")],
)
def test_a_baseline_is_not_written_when_one_of_its_items_did_not_end_well(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], conftest: str, check: str
) -> None:
    write_spec()
    pytester.makeconftest(conftest)
    result = pytester.runpytest("--circuits-update=new")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"specs/verbs: no baseline was written: {check} did not finish in this run" in result.stdout.str()
    assert not (pytester.path / "specs/__circuits__").exists()


def test_a_baseline_of_items_that_run_twice_is_written_once(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(TWICE.replace("assert", "#"))
    result = pytester.runpytest("--circuits-update=new")

    result.assert_outcomes(passed=6)
    assert result.stdout.str().count("specs/verbs: baseline written") == 1


def test_a_baseline_is_not_written_when_the_run_is_stopped(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        TWICE.replace("assert", "#")
        + "def pytest_runtest_logfinish(nodeid):\n    if 'heads' in nodeid:\n        pytest.exit('planted', 1)\n"
    )
    result = pytester.runpytest("--circuits-update=new")

    assert "specs/verbs: no baseline was written: heads did not finish in this run" in result.stdout.str()
    assert not (pytester.path / "specs/__circuits__").exists()


def test_a_baseline_that_the_file_system_refuses_is_told_and_red(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    (write_spec().parent / "__circuits__").write_text("a file where the folder belongs")
    result = pytester.runpytest("--circuits-update=new")

    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "could not be written" in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("mark", ["skip", "xfail"])
def test_an_orphan_that_is_marked_is_missed(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], mark: str
) -> None:
    store = write_spec().parent / "__circuits__"
    store.mkdir()
    (store / "gone.json").write_text("{}")
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        f"    for item in items:\n        item.name == 'orphan' and item.add_marker(pytest.mark.{mark})\n"
    )
    result = pytester.runpytest("--circuits-reference=b=builtin:tiny")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "1 circuit items were collected and told no result, so this run is not green" in result.stdout.str()
    assert "gone.json::orphan" in result.stdout.str()


def test_an_orphan_that_fails_is_named_once(pytester: pytest.Pytester, write_spec: Callable[..., Path]) -> None:
    store = write_spec().parent / "__circuits__"
    store.mkdir()
    (store / "gone.json").write_text("{}")
    result = pytester.runpytest("--circuits-reference=b=builtin:tiny")

    assert "1 circuit items could not be collected, or died" in result.stdout.str()
    assert "told no result" not in result.stdout.str()


@pytest.mark.parametrize("phase", ["setup", "call"])
def test_a_later_attempt_that_is_skipped_takes_the_pass_back(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], phase: str
) -> None:
    write_spec()
    hook = {"setup": "pytest_runtest_setup(item)", "call": "pytest_runtest_call(item)"}[phase]
    pytester.makeconftest(
        "import pytest\nfrom _pytest.runner import runtestprotocol\n"
        "def pytest_runtest_protocol(item, nextitem):\n"
        "    for item.attempt in (1, 2):\n        runtestprotocol(item, nextitem=nextitem)\n"
        "    return True\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        f"def {hook}:\n    if item.attempt == 2:\n        pytest.skip('planted')\n"
    )
    result = pytester.runpytest("-k", "behaviour", "--circuits-json=out.json", "--circuits-reference=b=builtin:tiny")

    result.assert_outcomes(passed=1, skipped=1, deselected=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "1 circuit items were collected and told no result" in result.stdout.str()
    assert (result_of(pytester)["complete"], result_of(pytester)["records"]) == (False, [])


def test_a_sealed_baseline_commands_neither_the_terminal_nor_a_build_server(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    from pytest_circuits.baselines.encoding import decode, encode

    write_spec()
    pytester.runpytest("--circuits-update=new").assert_outcomes(passed=3)
    stored = pytester.path / "specs/__circuits__/verbs.json"
    baseline = decode(stored.read_text())
    evil = {**baseline.environment, "python": "1\n::error::\x1b[31mx ##vso[task.complete]"}
    stored.write_text(encode(replace(baseline, environment=evil)))
    result = pytester.runpytest()

    text = result.stdout.str()
    result.assert_outcomes(passed=3)
    assert r"python 1\n::error::\x1b[31mx # #vso[task.complete] -> " in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::") or "##vso[" in line]
    assert "\x1b[31mx" not in text


def test_a_spec_commands_neither_the_terminal_nor_a_build_server(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    from click.testing import CliRunner

    from pytest_circuits.cli import main

    path = write_spec()
    path.write_text(path.read_text() + '"##vso[task.setvariable variable=x]y": 1\n')
    told = pytester.runpytest("--continue-on-collection-errors").stdout.str()
    linted = CliRunner().invoke(main, ["lint", str(path)]).stdout

    for text in (told, linted):
        assert "# #vso[task.setvariable variable=x]y" in text
        assert "##vso[" not in text


def test_the_reproduced_command_does_not_name_a_checkpoint_whose_path_holds_this_one_s_name(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec()
    shutil.copytree(builtin_directory("tiny-rewired"), pytester.path / "mine")
    shutil.copytree(builtin_directory("tiny"), pytester.path / "mine-too")
    monkeypatch.chdir(pytester.path / "mine")
    options = ["--circuits-checkpoint=.", "--circuits-checkpoint=good=../mine-too"]
    result = pytester.runpytest("../specs", "-k", "heads", "--circuits-reference=r=builtin:tiny", *options)

    (line,) = [line for line in result.outlines if line.startswith("reproduce: ")]
    assert line.startswith('reproduce: pytest "../specs/verbs.circuit.yaml::heads[mine]" --circuits-checkpoint . ')


def test_the_reproduced_command_works_from_the_folder_where_pytest_was_called(
    pytester: pytest.Pytester, write_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_spec().parent)
    options = ["--circuits-checkpoint=builtin:tiny-rewired", "--circuits-reference=b=builtin:tiny"]
    result = pytester.runpytest("-k", "heads", *options)

    (line,) = [line for line in result.outlines if line.startswith("reproduce: ")]
    assert line.startswith('reproduce: pytest "verbs.circuit.yaml::heads[tiny-rewired]" ')
    again = pytester.runpytest(*shlex.split(line.removeprefix("reproduce: pytest ")))
    again.assert_outcomes(failed=1)


def test_the_result_file_keeps_a_fingerprint_though_a_later_item_failed(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    pytester.makeconftest(
        "import pytest\n@pytest.fixture(autouse=True)\n"
        "def fragile(request):\n    assert request.node.originalname != 'heads', 'planted'\n"
    )
    pytester.runpytest("--circuits-json=out.json", "--circuits-reference=b=builtin:tiny")

    assert len(result_of(pytester)["checkpoints"]["tiny"]["fingerprint"]) == 64


def test_defaults_of_two_specs_that_share_a_name_are_told_by_every_item_under_xdist(
    pytester: pytest.Pytester, write_spec: Callable[..., Path]
) -> None:
    write_spec()
    path = write_spec("other")
    path.write_text(path.read_text().replace("builtin:tiny", "elsewhere/tiny"))
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)

    assert ran.returncode == 1
    assert "6 errors" in ran.stdout
    assert ran.stdout.count("two checkpoints share one name") >= 6
    assert "INTERNALERROR" not in ran.stdout + ran.stderr

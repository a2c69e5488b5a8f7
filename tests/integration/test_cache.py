"""What a run measured, the next one reads: no forward, no model, the same verdicts and numbers."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pytest_circuits.baselines.cache import TAG, entries
from pytest_circuits.builtin import builtin_directory
from pytest_circuits.checkpoints import load
from pytest_circuits.checkpoints.model import BoundModel
from pytest_circuits.checks.cached import Cached

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[pytest.RunResult, dict[str, Any]]]

SPEC = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, key, car], plural: [dogs, authors, keys, cars]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind, beside, above]
  templates:
    - {id: phrase, text: "the {subject} {near} the table", answer: "{verb}", flip: subject}
    - {id: bare, text: "{near} the {subject}", answer: "{verb}", flip: subject}
circuit:
  number_mover: {heads: [L2H0], role: {name: number_mover}}
  readers: {mlps: [L0.mlp, L1.mlp, L2.mlp, L3.mlp]}
claims:
  behaviour: {accuracy_at_least: 0.50, loss_at_most: 0.50}
  faithfulness: {at_least: 0.5, drift_at_most: 0.5}
  controls: {beats_random: 0.5}
  heads: {share_drift_at_most: 0.5, weaker_at_most: 0.5}
  roles: {drift_at_most: 0.5}
rates: {false_alarm: 0.05, missed_drift: 0.05}
"""
AGAINST_ITSELF = ("--circuits-reference=base=builtin:tiny",)
TUNED = (*AGAINST_ITSELF, "--circuits-checkpoint=builtin:tiny-tuned")
REWIRED = (*AGAINST_ITSELF, "--circuits-checkpoint=builtin:tiny-rewired")
PARTS = {
    *("prompts", "clean", "corrupt", "clean_logit_diff", "circuit", "floor", "heads", "roles.number_mover", "noise"),
    "random_circuits",
}


class Watched:
    """What a run did: the forwards it made, the checkpoints it loaded, and the parts it read or measured."""

    def __init__(self) -> None:
        self.forwards = 0
        self.loaded: list[str] = []
        self.measured: list[str] = []


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Count what happens in this process from now on; `run` begins anew."""
    watched = Watched()
    forward, open_model, found_or_measured = BoundModel.forward, load.open_model, Cached.found_or_measured

    def counted_forward(self: BoundModel, *arguments: Any, **options: Any) -> Any:
        watched.forwards += 1
        return forward(self, *arguments, **options)

    def counted_open(identified: Any, **options: Any) -> Any:
        watched.loaded.append(identified.name)
        return open_model(identified, **options)

    def counted_measured(self: Cached, name: str, measured: Any) -> Any:
        def noted(live: Any) -> Any:
            watched.measured.append(name)
            return measured(live)

        return found_or_measured(self, name, noted)

    monkeypatch.setattr(BoundModel, "forward", counted_forward)
    monkeypatch.setattr(load, "open_model", counted_open)
    monkeypatch.setattr(Cached, "found_or_measured", counted_measured)
    return watched


@pytest.fixture
def run(pytester: pytest.Pytester, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in this process on a project with one spec, and return what it printed and its result file."""
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\n")
    pytester.mkdir("specs").joinpath("verbs.circuit.yaml").write_text(SPEC)

    def run(*arguments: str) -> tuple[pytest.RunResult, dict[str, Any]]:
        watched.forwards, watched.loaded, watched.measured = 0, [], []
        result = pytester.runpytest("--circuits-json=out.json", "-p", "no:cacheprovider", *arguments)
        document: dict[str, Any] = json.loads((pytester.path / "out.json").read_text())
        return result, document

    return run


def told(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("cache: ")]


def change(pytester: pytest.Pytester, old: str, new: str) -> None:
    path = pytester.path / "specs" / "verbs.circuit.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def without_words(result: pytest.RunResult) -> list[str]:
    """What a run printed, but for times and the line about the cache."""
    lines = [re.sub(r"in \d+\.\d+s", "", line) for line in result.outlines]
    return [line for line in lines if not line.startswith("cache: ")]


# -- what a second run costs, and says ---------------------------------------------------------------------------------


def test_a_second_run_makes_no_forward_loads_no_model_and_says_the_same(run: Run, watched: Watched) -> None:
    fresh, expected = run(*TUNED, "--circuits-no-cache")
    first, measured = run(*TUNED)
    assert (sorted(watched.loaded), {*watched.measured}) == (["base", "tiny-tuned"], PARTS)
    assert watched.forwards > 40
    second, read = run(*TUNED)

    assert (watched.forwards, watched.loaded, watched.measured) == (0, [], [])
    assert expected == measured == read
    assert without_words(fresh) == without_words(first) == without_words(second)
    second.assert_outcomes(passed=5)
    assert told(fresh) == []
    assert told(second) == [
        "cache: 18 of 18 parts were measured by an earlier run; --circuits-no-cache measures them afresh"
    ]


def test_checkpoints_of_equal_weights_share_what_was_measured(run: Run, watched: Watched) -> None:
    run(*AGAINST_ITSELF)

    assert sorted(watched.measured) == sorted(PARTS)


def test_a_red_verdict_is_red_again_for_the_same_reasons(run: Run, watched: Watched) -> None:
    first, measured = run(*REWIRED)
    second, read = run(*REWIRED)

    assert watched.forwards == 0
    assert first.ret == second.ret == pytest.ExitCode.TESTS_FAILED
    assert measured["verdict"] == "drift"
    assert read == measured
    assert without_words(second) == without_words(first)


def test_an_item_alone_reads_what_the_whole_run_measured(run: Run, watched: Watched) -> None:
    _, whole = run(*REWIRED)
    for check in ("heads", "roles", "controls"):
        _, alone = run(*REWIRED, "-k", check)
        assert watched.forwards == 0
        assert alone["records"] == [record for record in whole["records"] if record["check"] == check]


def test_a_role_alone_measures_its_own_head_and_no_sweep(run: Run, watched: Watched) -> None:
    run(*REWIRED, "-k", "roles")

    assert "heads.L2H0" in watched.measured
    assert "heads" not in watched.measured


def test_a_baseline_is_the_same_from_the_cache(run: Run, pytester: pytest.Pytester, watched: Watched) -> None:
    stored = pytester.path / "specs" / "__circuits__" / "verbs.json"
    run("--circuits-update=new", "--circuits-no-cache")
    fresh = stored.read_text()
    for _ in range(2):
        stored.unlink()
        result, _ = run("--circuits-update=new")

    assert (watched.forwards, watched.measured) == (0, [])
    result.assert_outcomes(passed=5)
    assert stored.read_text() == fresh


def test_processes_of_xdist_share_the_cache_and_load_neither_torch_nor_transformers(
    run: Run, pytester: pytest.Pytester
) -> None:
    _, measured = run(*REWIRED, "--circuits-device=cpu")
    pytester.makeconftest(
        "import os, pathlib, sys\n"
        "def pytest_unconfigure():\n"
        "    loaded = {'torch', 'transformers', 'tokenizers', 'safetensors'} & set(sys.modules)\n"
        "    pathlib.Path(f'{os.getpid()}.loaded').write_text(str(sorted(loaded)))\n"
    )
    result = pytester.runpytest_subprocess("-n2", "--circuits-json=out.json", "--circuits-device=cpu", *REWIRED)
    read = json.loads((pytester.path / "out.json").read_text())

    assert re.match(r"cache: (\d\d) of \1 parts were measured by an earlier run", *told(result))
    for names in ("records", "collected"):
        assert sorted(map(str, read.pop(names))) == sorted(map(str, measured.pop(names)))
    assert read == measured
    assert [path.read_text() for path in pytester.path.glob("*.loaded")] == ["[]"] * 3


# -- what is measured again --------------------------------------------------------------------------------------------

EDITS = {
    "the circuit": ("mlps: [L0.mlp, ", "mlps: [", {"circuit", "random_circuits"}),
    "a limit": ("drift_at_most: 0.5}\n  controls", "drift_at_most: 0.4}\n  controls", set()),
    "a comment above the templates": ("prompts:", "# a comment\nprompts:", {"prompts"}),
}


@pytest.mark.parametrize(("old", "new", "parts"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_spec_is_measured_again_where_it_matters(
    old: str, new: str, parts: set[str], run: Run, watched: Watched, pytester: pytest.Pytester
) -> None:
    run(*AGAINST_ITSELF)
    change(pytester, old, new)
    _, read = run(*AGAINST_ITSELF)
    assert {*watched.measured} == parts
    _, fresh = run(*AGAINST_ITSELF, "--circuits-no-cache")

    assert read == fresh


def test_another_precision_and_other_weights_are_measured(
    run: Run, watched: Watched, pytester: pytest.Pytester
) -> None:
    run("-k", "behaviour")
    run("-k", "behaviour", "--circuits-dtype=bfloat16")
    assert watched.loaded == ["tiny"]
    folder = pytester.path / "copied"
    shutil.copytree(builtin_directory("tiny"), folder)
    run("-k", "behaviour", "--circuits-checkpoint=copied")
    assert watched.loaded == []  # the same weights under another name
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 0.1}))
    run("-k", "behaviour", "--circuits-checkpoint=copied")
    assert watched.loaded == ["copied"]


def test_damaged_entries_are_measured_again_and_replaced(run: Run, watched: Watched, own_cache: Path) -> None:
    _, measured = run(*AGAINST_ITSELF)
    for entry in entries(own_cache):
        text = entry.path.read_text()
        entry.path.write_text(text.replace("1", "2", 1) if len(text) % 2 else text[:-20])
    _, again = run(*AGAINST_ITSELF)
    assert {*watched.measured} == PARTS
    _, read = run(*AGAINST_ITSELF)

    assert watched.forwards == 0
    assert measured == again == read


def test_what_could_not_be_measured_is_measured_again(run: Run, watched: Watched, pytester: pytest.Pytester) -> None:
    change(pytester, "[near, behind, beside, above]", "[near, zyzzyva, beside, above]")
    for _ in range(2):
        result, document = run()
        assert document["verdict"] == "error"
        assert "zyzzyva" in result.stdout.str()
        assert watched.loaded == ["tiny"]


def test_a_prompt_file_that_changes_while_pytest_runs_is_refused(
    run: Run, watched: Watched, pytester: pytest.Pytester, own_cache: Path
) -> None:
    start, end = SPEC.index("  vocabulary"), SPEC.index("circuit:")
    (pytester.path / "specs" / "verbs.circuit.yaml").write_text(f"{SPEC[:start]}  file: pairs.csv\n{SPEC[end:]}")
    rows = [f"the {one} {at} the car,the {one}s {at} the car,is,are,t\n"
            for one in ("dog", "author", "key") for at in ("near", "behind", "beside")]  # fmt: skip
    (pytester.path / "specs" / "pairs.csv").write_text("clean,corrupt,answer,foil,template\n" + "".join(rows))
    pytester.makeconftest(
        "import pathlib\ndef pytest_collection_finish(session):\n"
        "    path = pathlib.Path('specs/pairs.csv')\n    path.write_text(path.read_text().replace('car', 'table'))\n"
    )
    result, _ = run(*AGAINST_ITSELF, "-k", "behaviour")

    result.assert_outcomes(failed=1, deselected=4)
    assert "specs/pairs.csv:1: the file should be as it was when its spec was loaded" in result.stdout.str()
    assert entries(own_cache) == []


WITHOUT_A_TWIN = """\
format: 1
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts: {file: pairs.csv}
measure: {metric: kl}
ablation: {value: mean}
circuit:
  number_mover: {heads: [L2H0]}
claims: {faithfulness: {at_least: 0.1}}
"""
MORE_THAN_IT_ALLOWS = {
    "a claim": ("claims: {", "claims: {behaviour: {loss_at_most: 0.5}, "),
    "a role": ("[L2H0]", "[L2H0], role: {name: number_mover}"),
}


@pytest.mark.parametrize(("old", "new"), MORE_THAN_IT_ALLOWS.values(), ids=MORE_THAN_IT_ALLOWS.keys())
def test_prompts_that_an_edit_makes_wrong_are_refused_though_all_is_cached(
    old: str, new: str, run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.path / "specs" / "verbs.circuit.yaml").write_text(WITHOUT_A_TWIN)
    rows = [f"the {one} {at} the table,is,are,t\n"
            for one in ("dog", "author", "car") for at in ("near", "behind", "beside", "above", "under")]  # fmt: skip
    (pytester.path / "specs" / "pairs.csv").write_text("clean,answer,foil,template\n" + "".join(rows))
    _, before = run(*AGAINST_ITSELF)
    assert before["verdict"] != "error"
    change(pytester, old, new)
    _, read = run(*AGAINST_ITSELF, "-k", "faithfulness")
    _, fresh = run(*AGAINST_ITSELF, "-k", "faithfulness", "--circuits-no-cache")

    assert read["verdict"] == "error"
    assert read == fresh


FAULT = """\
import pytest, torch
@pytest.mark.circuit("specs/verbs.circuit.yaml")
def test_that_a_fault_is_seen(circuit, circuit_model):
    from pytest_circuits import measure
    healthy = measure(circuit, circuit_model).clean.mean()
    with torch.no_grad():
        circuit_model.bound.module.transformer.h[2].attn.c_proj.weight.zero_()
    assert measure(circuit, circuit_model).clean.mean() < healthy
"""


def test_what_a_test_does_to_its_model_is_neither_judged_nor_kept(
    run: Run, watched: Watched, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_a_fault=FAULT)
    _, fresh = run(*TUNED, "specs", "--circuits-no-cache")
    result, after = run(*TUNED, "test_a_fault.py", "specs")
    result.assert_outcomes(passed=6)
    assert after["records"] == fresh["records"]
    _, read = run(*TUNED, "specs")

    assert watched.forwards == 0
    assert read == fresh


# -- where it lies, and whether it is used -----------------------------------------------------------------------------


def test_without_the_cache_nothing_is_read_and_nothing_is_kept(run: Run, watched: Watched, own_cache: Path) -> None:
    run("-k", "behaviour", "--circuits-no-cache")
    assert not own_cache.exists()
    run("-k", "behaviour")
    kept = {entry.path: entry.used for entry in entries(own_cache)}
    run("-k", "behaviour", "--circuits-no-cache")

    assert watched.forwards > 0
    assert {entry.path: entry.used for entry in entries(own_cache)} == kept


def test_the_ini_file_can_do_without_it(run: Run, pytester: pytest.Pytester, own_cache: Path) -> None:
    pytester.makeini("[pytest]\ncircuits_cache = false\n")
    run("-k", "behaviour")

    assert not own_cache.exists()


def test_the_folder_counts_from_where_it_is_written(
    run: Run, pytester: pytest.Pytester, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\ncircuits_cache_dir = kept\n")
    monkeypatch.chdir(pytester.path / "specs")
    for arguments in ((), ("--circuits-cache-dir=other",)):
        pytester.runpytest("-k", "behaviour", *arguments)

    assert (pytester.path / "kept" / TAG).is_file()
    assert (pytester.path / "specs" / "other" / TAG).is_file()
    assert not own_cache.exists()


def test_a_folder_that_is_a_file_is_a_usage_error(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "taken").write_text("")
    result = pytester.runpytest("--circuits-cache-dir=taken")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"circuits_cache_dir should be a folder, or the name of one to make; '{pytester.path / 'taken'}'" in (
        result.stderr.str()
    )


def test_a_folder_whose_name_cannot_be_is_told_and_fails_nothing(run: Run) -> None:
    result, document = run(*AGAINST_ITSELF, "-k", "behaviour", f"--circuits-cache-dir={'a' * 300}")

    result.assert_outcomes(passed=1, deselected=4)
    assert document["verdict"] == "pass"
    result.stdout.fnmatch_lines("the cache '*aaa' cannot be written: File name too long; the next run measures again.*")


@pytest.mark.parametrize("key", ["circuits_cache", "circuits_update_in_ci"])
def test_a_setting_that_is_neither_true_nor_false_is_a_usage_error(
    key: str, run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    update = ("--circuits-update=new",) if key == "circuits_update_in_ci" else ()
    result = pytester.runpytest("-o", f"{key}=maybe", *update)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{key} should be true or false in the ini file: " in result.stderr.str()
    assert "'maybe'" in result.stderr.str()


def test_a_cache_that_cannot_be_written_is_told_once_and_fails_nothing(run: Run, own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("in the way")
    result, document = run(*AGAINST_ITSELF)

    result.assert_outcomes(passed=5)
    assert document["verdict"] == "pass"
    assert [line for line in result.outlines if "the cache '" in line] == [
        f"the cache {str(own_cache)!r} cannot be written: File exists; the next run measures again. "
        "--circuits-cache-dir names another folder, --circuits-no-cache does without."
    ]

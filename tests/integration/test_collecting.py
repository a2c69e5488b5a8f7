"""Collecting: which items a spec becomes, what selects them, what is refused before anything runs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_circuits.plugin.options import FLAGS

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
format: 1
about: The subject's number reaches the verb.
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}
prompts:
  vocabulary:
    subject: {singular: [dog, author, key, car], plural: [dogs, authors, keys, cars]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind, beside]
  templates:
    - {id: plain, text: "the {subject} {near} the table", answer: "{verb}", flip: subject}
circuit:
  number_mover: {heads: [L2H0], role: {name: number_mover}}
  readers: {mlps: [L0.mlp, L1.mlp, L2.mlp, L3.mlp]}
claims:
  behaviour:
  faithfulness: {at_least: 0.7}
  heads:
"""


@pytest.fixture
def specs(pytester: pytest.Pytester) -> Path:
    """A project with one spec of three checks."""
    folder = pytester.mkdir("specs")
    (folder / "verbs.circuit.yaml").write_text(SPEC)
    pytester.makeini("[pytest]\n")
    return folder


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    result = pytester.runpytest("--collect-only", "-q", *arguments)
    return [line for line in result.outlines if "::" in line]


def test_each_declared_check_is_an_item_named_after_its_checkpoint(pytester: pytest.Pytester, specs: Path) -> None:
    assert collected(pytester) == [
        f"specs/verbs.circuit.yaml::{check}[tiny]" for check in ("behaviour", "faithfulness", "heads")
    ]


def test_checkpoints_of_the_command_line_replace_the_default_and_are_sorted_together(
    pytester: pytest.Pytester, specs: Path
) -> None:
    (specs / "again.circuit.yaml").write_text(SPEC)
    found = collected(pytester, "--circuits-checkpoint", "a=builtin:tiny", "--circuits-checkpoint", "b=builtin:tiny")

    assert len(found) == 12
    assert [line[-2] for line in found] == ["a"] * 6 + ["b"] * 6


def test_items_of_other_kinds_keep_their_places(pytester: pytest.Pytester, specs: Path) -> None:
    pytester.makepyfile(test_before="def test_one(): pass", zz_test="def test_two(): pass")
    found = collected(pytester, "test_before.py", "specs", "--circuits-checkpoint", "a=builtin:tiny")

    assert found[0] == "test_before.py::test_one"
    assert len(found) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-k", "faithfulness"], 1),
        (["-k", "verbs and not heads"], 2),
        (["-m", "circuit"], 3),
        (["-m", "not circuit"], 0),
        (["specs/verbs.circuit.yaml::heads"], 1),
        (["specs/verbs.circuit.yaml::heads[tiny]"], 1),
        (["--deselect", "specs/verbs.circuit.yaml::heads[tiny]"], 2),
    ],
)
def test_pytest_selects_items_as_any_others(
    pytester: pytest.Pytester, specs: Path, arguments: list[str], expected: int
) -> None:
    assert len(collected(pytester, *arguments)) == expected


def test_every_problem_of_a_spec_is_told_with_its_place_and_stops_the_run(
    pytester: pytest.Pytester, specs: Path
) -> None:
    broken = SPEC.replace("heads: [L2H0]", "heads: [9.10]").replace("about:", "abuot:")
    (specs / "verbs.circuit.yaml").write_text(broken)
    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.INTERRUPTED
    text = result.stdout.str()
    assert "specs/verbs.circuit.yaml:2:1: abuot: " in text
    assert "did you mean 'about'" in text
    assert "specs/verbs.circuit.yaml:12:" in text


def test_an_orphaned_baseline_fails_when_its_folder_is_collected(pytester: pytest.Pytester, specs: Path) -> None:
    store = specs / "__circuits__"
    store.mkdir()
    (store / "gone.json").write_text("{}")
    result = pytester.runpytest("-k", "orphan")

    result.assert_outcomes(failed=1, deselected=3)
    assert "gone.json is a baseline without its spec" in result.stdout.str()


def test_a_baseline_with_its_spec_is_no_orphan(pytester: pytest.Pytester, specs: Path) -> None:
    store = specs / "__circuits__"
    store.mkdir()
    (store / "verbs.json").write_text("{}")

    assert len(collected(pytester)) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--circuits-checkpoint", "a=builtin:tiny", "--circuits-checkpoint", "A=builtin:tiny-tuned"],
            "share one name",
        ),
        (["--circuits-checkpoint=_x=builtin:tiny"], "cannot name a checkpoint"),
        (
            ["--circuits-update=new", "--circuits-checkpoint", "builtin:tiny"],
            "cannot be combined with --circuits-check",
        ),
        (["--circuits-update=new", "-n", "2"], "cannot be combined with xdist"),
        (["--circuits-update=all"], "say why, --circuits-update-reason"),
        (["--circuits-batch-size", "0"], "should be a positive number of prompts, got '0'"),
        (["--circuits-json", "nowhere/out.json"], "cannot be written"),
        (["--circuits-reference="], "--circuits-reference should name something, and is empty"),
        (["--circuits-cache-dir="], "--circuits-cache-dir should name something, and is empty"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error_before_anything_runs(
    pytester: pytest.Pytester, specs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = pytester.runpytest(*arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text in result.stderr.str()


def test_updating_is_refused_in_ci_unless_the_project_allows_it(
    pytester: pytest.Pytester, specs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")

    refused = pytester.runpytest("--circuits-update=new")
    allowed = pytester.runpytest("--circuits-update=new", "--collect-only", "-o", "circuits_update_in_ci=true")

    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert "a gate that writes its own baseline passes whatever happens" in refused.stderr.str()
    assert allowed.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("key", "value"),
    [("circuits_dtype", "float8"), ("circuits_inconclusive", "ignore"), ("circuits_batch_size", "many")],
)
def test_a_wrong_ini_value_is_a_usage_error(pytester: pytest.Pytester, specs: Path, key: str, value: str) -> None:
    result = pytester.runpytest("-o", f"{key}={value}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{key} should be" in result.stderr.str()
    assert repr(value) in result.stderr.str()


def test_ini_checkpoints_are_used_and_the_command_line_replaces_them(pytester: pytest.Pytester, specs: Path) -> None:
    pytester.makeini("[pytest]\ncircuits_checkpoint =\n    one=builtin:tiny\n    two=builtin:tiny-tuned\n")

    assert len(collected(pytester)) == 6
    assert len(collected(pytester, "--circuits-checkpoint", "three=builtin:tiny")) == 3


def test_defaults_of_two_specs_that_share_a_name_are_a_usage_error(pytester: pytest.Pytester, specs: Path) -> None:
    (specs / "other.circuit.yaml").write_text(SPEC.replace("builtin:tiny", "elsewhere/tiny"))
    result = pytester.runpytest("--collect-only")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "two checkpoints share one name" in result.stderr.str()


def test_collecting_twice_gives_the_same_ids(pytester: pytest.Pytester, specs: Path) -> None:
    found = collected(pytester)

    assert found == collected(pytester)
    assert len(set(found)) == len(found)


def test_a_suite_without_specs_sees_nothing_of_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("-q")

    assert result.ret == pytest.ExitCode.OK
    assert "circuit" not in result.stdout.str()


def test_collecting_loads_nothing_heavy(pytester: pytest.Pytester, specs: Path) -> None:
    """A process that loads no plugin but ours, because others import what they like."""
    code = (
        "import sys, pytest\n"
        "code = pytest.main(['--collect-only', '-q', '-p', 'pytest_circuits.plugin', 'specs'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'hypothesis'} & set(sys.modules)\n"
        "print(int(code), sorted(heavy))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=pytester.path,
        env={"PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )

    assert "3 tests collected" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "0 []"


def test_the_mark_circuit_is_registered(pytester: pytest.Pytester) -> None:
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.circuit(spec): *"])


def test_options_are_explained_in_help(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest("--help").stdout.str()
    named = ("checkpoint", "reference", "update", "update-reason", "device", "dtype", "batch-size", "json")
    for option in (*named, "inconclusive", "no-cache", "cache-dir"):
        assert f"--circuits-{option}" in text
    assert tuple(re.findall(r"^  (--circuits-[a-z-]+)(?: .*)?$", text, re.M)) == FLAGS
    for key in ("cache (bool)", "cache_dir (string)", "update_in_ci (bool)"):
        assert f"circuits_{key}" in text


def test_a_checkpoint_path_that_moves_the_root_is_a_usage_error(
    pytester: pytest.Pytester, specs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without a test path, pytest reads the value of an option that it does not know yet as one."""
    outside = tmp_path_factory.mktemp("outside")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--circuits-checkpoint", str(outside)],
        cwd=pytester.path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.returncode == 4
    assert f"pytest takes it for a test path, and {str(outside)!r} lies outside of the current folder" in ran.stderr
    assert f"Write --circuits-checkpoint={outside}" in ran.stderr


RESULT = '{"format": 1, "collected": [], "records": []}'


@pytest.fixture
def project(pytester: pytest.Pytester, specs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose ini file names another checkpoint than its spec; pytest is called in it."""
    outer = pytester.path
    folder = pytester.mkdir("project")
    specs.rename(folder / "specs")
    (outer / "tox.ini").rename(folder / "pytest.ini")
    (folder / "pytest.ini").write_text("[pytest]\ncircuits_checkpoint = other=builtin:tiny-tuned\n")
    (outer / "out.json").write_text(RESULT)
    (outer / "ref").mkdir()
    monkeypatch.chdir(folder)
    return folder


def refusal(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    return result.stderr.str()


def test_what_is_typed_after_a_space_cannot_lose_the_ini_file(pytester: pytest.Pytester, project: Path) -> None:
    for option, value in (("--circuits-json", "../out.json"), ("--circuits-reference", "../ref")):
        text = refusal(pytester.runpytest(option, value))

        assert f"'{option} {value}': pytest takes it for a test path, and {value!r} lies outside" in text
        assert f"Write {option}={value}" in text
        assert [line[-6:] for line in collected(pytester, f"{option}={value}")] == ["other]"] * 3
    assert (project.parent / "out.json").read_text() == RESULT


def test_a_test_path_after_an_option_without_a_value_is_a_test_path(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")

    assert [line[-6:] for line in collected(pytester, "--circuits-no-cache", "../specs")] == ["other]"] * 3


def test_a_cache_folder_after_a_space_cannot_lose_the_ini_file(pytester: pytest.Pytester, project: Path) -> None:
    assert "Write --circuits-cache-dir=../ref" in refusal(pytester.runpytest("--circuits-cache-dir", "../ref"))


def test_what_the_environment_adds_cannot_lose_the_ini_file(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--circuits-reference '../ref'")

    assert "Write --circuits-reference=../ref" in refusal(pytester.runpytest())


@pytest.mark.parametrize("name", ["pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"])
def test_an_ini_file_on_the_way_to_a_value_is_not_read_for_the_project_s_own(
    pytester: pytest.Pytester, project: Path, name: str
) -> None:
    (project / "runs" / "last").mkdir(parents=True)
    (project / "runs" / "last" / "out.json").write_text(RESULT)
    assert len(collected(pytester, "--circuits-json", "runs/last/out.json")) == 3
    (project / "runs" / name).write_text("")
    text = refusal(pytester.runpytest("--circuits-json", "runs/last/out.json"))

    assert f"'runs/{name}' lies on the way to 'runs/last/out.json'" in text


def test_an_ini_file_on_the_way_to_a_test_path_is_not_lost(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ini file is looked for above all paths, so a result file that exists from the second run on hides it."""
    monkeypatch.chdir(project.parent)
    arguments = ["project/specs/verbs.circuit.yaml::heads", "--circuits-json", "out.json"]
    (project.parent / "out.json").unlink()
    assert [line[-6:] for line in collected(pytester, *arguments)] == ["other]"]
    (project.parent / "out.json").write_text(RESULT)

    assert "'project/pytest.ini' lies on the way to 'project/specs/verbs.circuit.yaml'" in refusal(
        pytester.runpytest(*arguments)
    )


def test_an_ini_file_that_is_given_by_name_is_not_lost(pytester: pytest.Pytester, project: Path) -> None:
    found = collected(pytester, "-c", "pytest.ini", "--circuits-reference", "../ref", "specs")

    assert [line[-6:] for line in found] == ["other]"] * 3
    assert "Write --circuits-reference=../ref" in refusal(
        pytester.runpytest("--rootdir", ".", "--circuits-reference", "../ref")
    )


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("specs/verbs.circuit.yaml", None, "is the name of a spec or of a stored baseline"),
        ("specs/__circuits__/verbs.json", None, "is the name of a spec or of a stored baseline"),
        ("words.csv", b"clean,answer,foil\n", "expected no file or the result of an earlier run"),
        ("config.json", b'{"format": 1}', "expected no file or the result of an earlier run"),
        ("list.json", b"[]", "expected no file or the result of an earlier run"),
        ("deep.json", b"[" * 100_000, "expected no file or the result of an earlier run"),
        ("model.bin", b"\x80\x04", "expected no file or the result of an earlier run"),
    ],
)
def test_only_an_earlier_result_is_replaced_by_a_result(
    pytester: pytest.Pytester, specs: Path, name: str, content: bytes | None, text: str
) -> None:
    (specs / "__circuits__").mkdir()
    (specs / "__circuits__" / "verbs.json").write_text("{}")
    path = pytester.path / name
    if content is not None:
        path.write_bytes(content)
    before = path.read_bytes()

    assert text in refusal(pytester.runpytest(f"--circuits-json={name}"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", RESULT])
def test_a_run_that_dies_leaves_no_green_result_file_of_an_earlier_one(
    pytester: pytest.Pytester, specs: Path, content: str
) -> None:
    path = pytester.path / "out.json"
    path.write_text(content)
    pytester.runpytest("--circuits-json=out.json", "--circuits-batch-size=0")
    pytester.runpytest("--circuits-json=out.json", "--collect-only")
    assert path.read_text() == content

    pytester.makeconftest(
        "import pytest\n@pytest.hookimpl(trylast=True)\n"
        "def pytest_configure():\n    raise pytest.UsageError('planted')\n"
    )
    assert "planted" in refusal(pytester.runpytest("--circuits-json=out.json"))
    assert not path.exists()

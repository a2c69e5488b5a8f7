"""`pytest-circuits discover`: from a file of pairs to a spec that passes where it should, and fails where it should."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from pytest_circuits.checks import proposal
from pytest_circuits.cli import main
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parents[2] / "specs/tiny"
OUTPUT = "specs/found.circuit.yaml"


def discover(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, ["discover", "--checkpoint", "builtin:tiny", *arguments], **options)


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the pairs of succession, and nothing else."""
    pytester.makepyprojecttoml("")
    (pytester.path / "specs").mkdir()
    shutil.copy(TINY / "successor.csv", pytester.path / "specs/pairs.csv")
    return pytester


def verdict(project: pytest.Pytester, checkpoint: str) -> pytest.RunResult:
    return project.runpytest(OUTPUT, "--circuits-checkpoint", checkpoint, "--circuits-no-cache")


def test_from_pairs_to_a_gate(project: pytest.Pytester) -> None:
    result = discover("--prompts", "specs/pairs.csv", "--output", OUTPUT)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "5 of 20 heads and MLPs: L0.mlp, L3H3, L3.mlp, L2H2, L2.mlp"
    assert "\nwritten: specs/found.circuit.yaml\n" in result.stdout
    spec = load_spec(OUTPUT).spec
    assert {str(part) for part in spec.members} == {"L0.mlp", "L2.mlp", "L3.mlp", "L2H2", "L3H3"}
    assert spec.roles.keys() == {"successor", "copying"}
    assert spec.claims.controls is not None
    assert CliRunner().invoke(main, ["lint", "specs"]).exit_code == 0

    verdict(project, "builtin:tiny").assert_outcomes(passed=6)
    verdict(project, "builtin:tiny-tuned").assert_outcomes(passed=6)
    rewired = verdict(project, "builtin:tiny-rewired")
    rewired.assert_outcomes(passed=1, failed=5)
    rewired.stdout.fnmatch_lines(["specs/found.circuit.yaml:*: heads: * left their limits *"])


def test_edges_too(project: pytest.Pytester) -> None:
    told = ("--edges", "--faithfulness", "0.8", "--graph", "found.json")
    result = discover("--prompts", "specs/pairs.csv", "--output", OUTPUT, *told)

    assert result.exit_code == 0, result.output
    first = result.stdout.splitlines()[0]
    assert first.startswith("10 of 479 edges: embed -> L0.mlp, L3.mlp -> logits, ")
    assert "CMD 0.0" in result.stdout
    assert "\ngraph: found.json\n" in result.stdout
    shown = CliRunner().invoke(main, ["graph", "found.json"]).stdout
    assert "edges in the circuit  10 of 479" in shown
    spec = load_spec(OUTPUT).spec
    assert first.partition(": ")[2] == ", ".join(spec.edges)
    verdict(project, "builtin:tiny-tuned").assert_outcomes(passed=2)
    verdict(project, "builtin:tiny-rewired").assert_outcomes(passed=1, failed=1)


def test_what_it_takes_is_told_and_is_a_tenth_of_greedy_search(project: pytest.Pytester) -> None:
    from pytest_circuits import open_checkpoint
    from pytest_circuits.checks.discovery import discover as search
    from pytest_circuits.checks.overview import question_in

    found = search(question_in(Path("specs/pairs.csv"), root=Path()), open_checkpoint("builtin:tiny").bound)

    assert (found.runs, found.greedy) == (19, 195)
    assert found.runs < found.greedy / 10
    assert found.faithfulness == pytest.approx(found.held_out.value, abs=0.02)
    assert set(found.found_on).isdisjoint(found.measured_on)
    assert f"It took {found.runs} forwards of each prompt; greedy exact search takes {found.greedy}." in _story(project)


def _story(project: pytest.Pytester) -> str:
    discover("--prompts", "specs/pairs.csv", "--output", OUTPUT)
    return (project.path / OUTPUT).read_text(encoding="utf-8")


def test_a_spec_gives_its_prompts_and_what_it_asks(project: pytest.Pytester) -> None:
    shutil.copy(TINY / "verb-agreement.circuit.yaml", project.path / "specs/given.circuit.yaml")
    result = discover("--prompts", "specs/given.circuit.yaml", "--output", OUTPUT)

    assert result.exit_code == 0, result.output
    given, found = load_spec("specs/given.circuit.yaml"), load_spec(OUTPUT)
    assert found.spec.prompts == given.spec.prompts
    assert {name: found.measured[name] for name in ("tokens", "prompts", "measure", "ablation")} == {
        name: given.measured[name] for name in ("tokens", "prompts", "measure", "ablation")
    }
    assert "L2H0" in map(str, found.spec.member_heads)


def test_roles_that_are_not_green_leave_no_limit_behind(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score by which a role is proposed is not the one by which it is judged."""
    monkeypatch.setattr(proposal, "_roles", lambda found, overview: {"L2H2": ("successor", 1.0)})
    result = discover("--prompts", "specs/pairs.csv", "--output", OUTPUT)

    assert result.exit_code == 0, result.output
    assert "\nroles is left out: roles: L2H2 successor " in result.stdout
    spec = load_spec(OUTPUT).spec
    assert spec.claims.roles is None
    assert [group.role.at_least for group in spec.circuit.values() if group.role] == [None]


def test_a_file_beside_the_folder_of_a_spec_is_found_from_the_new_one(project: pytest.Pytester) -> None:
    text = (TINY / "successor.circuit.yaml").read_text(encoding="utf-8")
    Path("other").mkdir()
    Path("other/given.circuit.yaml").write_text(text.replace("file: successor.csv", "file: ../specs/pairs.csv"))
    result = discover("--prompts", "other/given.circuit.yaml", "--output", OUTPUT)

    assert result.exit_code == 0, result.output
    assert load_spec(OUTPUT).spec.prompts.file == "pairs.csv"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "output", "why"),
    [
        (None, "found.yaml", "--output should end in .circuit.yaml, or no run would collect it; found 'found.yaml'"),
        (lambda: _mine(OUTPUT), OUTPUT, "'specs/found.circuit.yaml' is there already, and would be overwritten"),
        (lambda: _mine("specs/__circuits__/found.json"), OUTPUT, "'specs/__circuits__/found.json' is there already"),
        (None, "nowhere/found.circuit.yaml", "cannot be written: no such folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_runs(
    prepare: Callable[[], Any] | None, output: str, why: str, project: pytest.Pytester
) -> None:
    if prepare is not None:
        prepare()
    result = discover("--prompts", "specs/pairs.csv", "--output", output)

    assert result.exit_code == 2
    assert why in result.stderr
    assert [path.read_text() for path in Path().rglob("found.*")] == ["mine"] * (prepare is not None)


def _mine(path: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("mine")


def test_a_graph_that_cannot_be_written_is_refused_before_anything_runs(project: pytest.Pytester) -> None:
    result = discover("--prompts", "specs/pairs.csv", "--output", OUTPUT, "--edges", "--graph", "nowhere/g.json")

    assert result.exit_code == 2
    assert "--graph: 'nowhere/g.json' cannot be written: no such folder" in result.stderr


def test_fewer_pairs_than_a_spec_needs_are_refused_before_anything_is_searched(project: pytest.Pytester) -> None:
    rows = (project.path / "specs/pairs.csv").read_text(encoding="utf-8").splitlines()
    Path("specs/few.csv").write_text("\n".join(rows[:8]), encoding="utf-8")
    result = discover("--prompts", "specs/few.csv", "--output", OUTPUT)

    assert result.exit_code == 2
    assert "distinct pairs; at least 8 are needed" in result.stderr
    assert not Path(OUTPUT).exists()


@pytest.mark.parametrize("arguments", [("--graph", "g.json"), ("--edges", "--graph", "g.csv")])
def test_a_graph_is_of_edges_and_of_a_known_form(arguments: tuple[str, ...], project: pytest.Pytester) -> None:
    result = discover("--prompts", "specs/pairs.csv", "--output", OUTPUT, *arguments)

    assert result.exit_code == 2
    assert "--graph goes with --edges, and names a file in .json or .pt; found" in result.stderr


def test_prompts_that_the_model_answers_wrong_leave_nothing_behind(project: pytest.Pytester) -> None:
    rows = (project.path / "specs/pairs.csv").read_text(encoding="utf-8").splitlines()
    turned = [",".join((a, b, d, c, e)) for a, b, c, d, e in (row.rsplit(",", 4) for row in rows[1:])]
    Path("specs/turned.csv").write_text("\n".join([rows[0], *turned]), encoding="utf-8")
    result = discover("--prompts", "specs/turned.csv", "--output", OUTPUT)

    assert result.exit_code == 2
    assert "Does the model do the task? `pytest-circuits heads` shows its accuracy. If" in result.stderr
    assert not Path(OUTPUT).exists()
    assert not Path("specs/__circuits__").exists()

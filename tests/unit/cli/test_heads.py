"""`pytest-circuits heads`: what it prints, what it writes, what it refuses, and how it exits."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.cli import heads, main
from pytest_circuits.errors import MeasurementError
from pytest_circuits.records import HeadView, Overview

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
HEADER = "clean,corrupt,answer,foil\n"
ROWS = """\
the dog near the tables,the dogs near the tables,is,are
the author behind the lamp,the authors behind the lamp,was,were
the king beside the trees,the kings beside the trees,is,are
the cars above the guard,the car above the guard,are,is
the pilots near the old tree,the pilot near the old tree,were,was
the key beside the lamps,the keys beside the lamps,has,have
"""


def run(*arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(main, ["heads", *map(str, arguments)], **options)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of six pairs in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("pairs.csv").write_text(HEADER + ROWS)
    return "pairs.csv"


@pytest.fixture
def tiny(pairs: str) -> Callable[..., Result]:
    """Look at `builtin:tiny` on the pairs, without roles unless they are asked for."""

    def look(*arguments: str, prompts: str = pairs, **options: Any) -> Result:
        fast = () if "--roles" in arguments else ("--no-roles",)
        return run(
            "--checkpoint", "builtin:tiny", "--prompts", prompts, "--device", "cpu", *fast, *arguments, **options
        )

    return look


def table(result: Result) -> list[str]:
    lines = result.stdout.splitlines()
    return lines[[line.startswith("head ") for line in lines].index(True) :]


def test_from_a_csv_alone_it_shows_the_head_that_does_it(tiny: Callable[..., Result]) -> None:
    result = tiny("--roles", "--top", "1")

    assert (result.exit_code, result.stderr) == (0, "")
    assert "builtin:tiny (gpt2, 4 layers of 4 heads) on pairs.csv\n6 of 6 prompts answered right\n" in result.stdout
    assert "L0  · · · ·\nL1  · · · ·\nL2  █ · · ·\nL3  · · · ·\n" in result.stdout
    assert table(result)[1].startswith("L2H0  12.2")
    assert "number_mover 0.66" in table(result)[1]
    assert len([line for line in result.stdout.splitlines() if line[:1] == "L" and "H" in line[:4]]) == 1


def test_a_spec_is_looked_at_too_from_any_folder(pairs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ROOT / "specs/tiny/verb-agreement.circuit.yaml"
    result = run(
        "--checkpoint", "builtin:tiny-rewired", "--prompts", spec, "--no-roles", "--method", "dla", "--top", "1"
    )

    assert result.exit_code == 0
    assert "on specs/tiny/verb-agreement\n256 of 256 prompts in 8 templates answered right" in result.stdout
    assert "\nL2H3 " in result.stdout


def test_the_table_has_as_many_rows_as_are_asked_for(tiny: Callable[..., Result]) -> None:
    for top, rows in (("0", 16), ("3", 3)):
        shown = [line for line in table(tiny("--top", top)) if line.startswith("L")]
        assert len(shown) == rows
    assert len([line for line in table(tiny()) if line.startswith("L")]) == 12


def test_options_reach_what_measures(tiny: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def look(question: Any, model: Any, **options: Any) -> None:
        told = (model.device, model.dtype, options["batch_size"], options["method"], options["roles"])
        raise MeasurementError(f"asked for {told}")

    monkeypatch.setattr("pytest_circuits.checks.overview.look", look)
    result = tiny("--dtype", "bfloat16", "--batch-size", "3", "--method", "atp", "--roles")

    assert "asked for ('cpu', 'bfloat16', 3, 'atp', True)" in result.stderr


def test_rounding_is_not_drawn_where_heads_hardly_write(tiny: Callable[..., Result]) -> None:
    bound = open_checkpoint("builtin:tiny", device="cpu").bound
    for block in bound.blocks:
        block.attn.c_proj.weight.data *= 1e-6
    bound.module.save_pretrained("hushed")
    bound.tokenizer.save_pretrained("hushed")
    for method in ("exact", "atp"):
        result = tiny("--checkpoint", "./hushed", "--method", method)
        told = " ".join(result.stdout.split())

        assert result.exit_code == 0
        assert "L0 · · · · L1 · · · · L2 · · · · L3 · · · · · less than 0.02" in told
        assert "note: no head has an effect above the noise: the largest is " in told
        assert "of 6 answered right)? Do clean and corrupt prompts differ in the word that matters?" in told


# -- JSON --------------------------------------------------------------------------------------------------------------


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_json_on_stdout_is_all_that_is_there(tiny: Callable[..., Result]) -> None:
    result = tiny("--roles", "--json", "-")
    found = json.loads(result.stdout, parse_constant=refuse_constant)

    assert (result.exit_code, result.stderr) == (0, "")
    assert list(found) == ["format", *(field.name for field in fields(Overview))]
    assert found["format"] == 1
    assert len(found["heads"]) == 16
    assert {tuple(view) for view in found["heads"].values()} == {tuple(field.name for field in fields(HeadView))}
    assert found["accuracy"] == [6, 6]
    assert found["heads"]["L2H0"]["share"] == pytest.approx(0.98, abs=0.01)
    assert found["heads"]["L2H0"]["roles"]["number_mover"] == pytest.approx(0.66, abs=0.01)


def test_what_is_undefined_is_null(tiny: Callable[..., Result]) -> None:
    Path("one.csv").write_text("clean,answer,foil\nthe dog near the tables,is,are\n")
    found = json.loads(tiny("--json", "-", prompts="one.csv").stdout, parse_constant=refuse_constant)
    views = list(found["heads"].values())

    assert found["corrupt"] is None
    assert {(view["share"], view["standard_error"], view["attention"]) for view in views} == {(None, None, None)}
    assert all(isinstance(view["effect"], float) and math.isfinite(view["effect"]) for view in views)


def test_json_in_a_file_comes_beside_the_text_and_may_be_written_again(tiny: Callable[..., Result]) -> None:
    for method in ("atp", "dla"):
        result = tiny("--json", "out.json", "--method", method)
        assert result.exit_code == 0
        assert table(result)
        assert json.loads(Path("out.json").read_text())["method"] == method


@pytest.mark.parametrize("name", ["gone/out.json", ".", "pairs.csv", "other.json", "list.json"])
def test_json_takes_no_other_files_place(name: str, tiny: Callable[..., Result]) -> None:
    Path("other.json").write_text('{"format": 1, "records": []}')
    Path("list.json").write_text("[")
    before = {path: path.read_bytes() for path in Path.cwd().iterdir()}
    result = tiny("--json", name)

    assert result.exit_code == 2
    assert ("It would be overwritten" if Path(name).is_file() else "cannot be written") in result.stderr
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in Path.cwd().iterdir()} == before


def test_json_that_cannot_be_written_after_all_exits_2(
    tiny: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    result = tiny("--json", "out.json")

    assert result.exit_code == 2
    assert "--json: cannot write 'out.json': No space left on device" in result.stderr


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--checkpoint", "nope/none"), "refused: 'nope/none'"),
        (("--checkpoint", ""), "names no checkpoint"),
        (("--checkpoint", "a/+b"), "an adapter on its base"),
        (("--prompts", "gone.csv"), "'gone.csv' does not exist"),
        (("--prompts", "notes.yaml"), "--prompts should end in .circuit.yaml, .csv, .jsonl, .json; found 'notes.yaml'"),
        (("--prompts", "bad.csv"), "bad.csv:2: 'foil' is empty"),
        (("--prompts", "long.csv"), "answers are not a single token right after their prompt: 'is was'"),
        (("--prompts", "a.circuit.yaml"), "a.circuit.yaml:1:9: format: expected 1, found 2"),
        (("--prompts", "kl.circuit.yaml", "--method", "atp"), "kl is the distance from that very run"),
        (("--method", "best"), "'best' is not one of 'exact', 'eap-ig', 'atp', 'dla'"),
        (("--top", "-1"), "-1 is not in the range"),
        (("--batch-size", "0"), "0 is not in the range"),
        (("--dtype", "int8"), "'int8' is not one of"),
        (("--device", "abacus"), "--device should be auto, cpu, cuda, cuda:N, mps or split, got 'abacus'"),
        (("--circuit",), "No such option"),
    ],
)
def test_what_is_refused_exits_2_and_says_why(
    arguments: tuple[str, ...], told: str, tiny: Callable[..., Result]
) -> None:
    Path("notes.yaml").write_text("")
    Path("bad.csv").write_text(HEADER + "a,b,c,\n")
    Path("long.csv").write_text(HEADER + "the dog,the dogs,is was,are\n")
    Path("a.circuit.yaml").write_text("format: 2")
    spec = (ROOT / "specs/tiny/verb-agreement.circuit.yaml").read_text().replace("metric: logit_diff", "metric: kl")
    Path("kl.circuit.yaml").write_text(spec)
    result = tiny(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert "circuits-" not in result.stderr.replace("pytest-circuits", "")


def test_a_refused_prompt_file_says_where_the_rest_is_set(tiny: Callable[..., Result]) -> None:
    Path("long.csv").write_text(HEADER + "the dog,the dogs,is was,are\n")

    assert "to set them, name it in a spec as `prompts: {file: ...}`" in tiny(prompts="long.csv").stderr


def test_checkpoint_and_prompts_are_needed(pairs: str) -> None:
    for arguments in (("--checkpoint", "builtin:tiny"), ("--prompts", pairs), ()):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Missing option" in result.stderr


def test_without_the_packages_that_measure_it_says_what_to_install(
    tiny: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_circuits.plugin.session.missing_extra", lambda: ["torch"])
    result = tiny()

    assert result.exit_code == 2
    assert (
        'measuring needs torch, which is not installed.\n  Install it: pip install "pytest-circuits[hf]"'
        in result.stderr
    )


# -- text --------------------------------------------------------------------------------------------------------------


def test_a_stream_of_ascii_gets_ascii(tiny: Callable[..., Result]) -> None:
    result = CliRunner(charset="ascii").invoke(
        main, ["heads", "--checkpoint", "builtin:tiny", "--prompts", "pairs.csv", "--no-roles", "--device", "cpu"]
    )

    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "L2  # . . .\n" in result.stdout


@pytest.mark.parametrize("width", ["30", "60", "200"])
def test_no_line_is_wider_than_the_terminal(width: str, tiny: Callable[..., Result]) -> None:
    result = tiny(env={"COLUMNS": width})

    assert max(map(len, result.stdout.splitlines())) <= int(width)


def test_prompts_command_neither_a_terminal_nor_a_build_server(tiny: Callable[..., Result]) -> None:
    name = "::error::\x1b[31m.csv"
    Path(name).write_text(HEADER + ROWS)
    Path(f"2{name}").write_text(HEADER + "the dog ::error:: \x1b[31m,the dogs,is,are\n")
    shown, refused = tiny(prompts=name), tiny(prompts=f"2{name}")

    assert (shown.exit_code, refused.exit_code) == (0, 2)
    for text in (shown.output, refused.output, tiny("--json", "-", prompts=name).output):
        assert "\x1b" not in text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())


# -- progress ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What stands for stderr on a terminal, or beside one."""

    def __init__(self, *, tty: bool = True) -> None:
        super().__init__()
        self.tty = tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "ascii"

    def isatty(self) -> bool:
        return self.tty


def watched(monkeypatch: pytest.MonkeyPatch, stream: Terminal, *, term: str = "xterm", until: float = 60.0) -> str:
    times = iter([0.0, *(until + at for at in range(9))])
    monkeypatch.setattr(heads, "monotonic", lambda: next(times))
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "60")
    with heads.live("pärs.csv") as watch:
        watch("noising", 1, 4)
        watch("noising", 2, 4)
    return stream.getvalue()


def test_a_terminal_sees_a_line_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = watched(monkeypatch, Terminal())

    assert drawn == (
        "\r\x1b[Kcircuits: p\\xe4rs.csv on noising, 1/4"
        "\r\x1b[Kcircuits: p\\xe4rs.csv on noising, 2/4, 0:02 left"
        "\r\x1b[K"
    )


def test_the_line_is_gone_where_the_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    times = iter([0.0, 60.0])
    monkeypatch.setattr(heads, "monotonic", lambda: next(times))
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    def work() -> None:
        with heads.live("p") as watch:
            watch("noising", 1, 4)
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        work()
    assert stream.getvalue().endswith("1/4\r\x1b[K")


@pytest.mark.parametrize(
    ("tty", "term", "until"), [(False, "xterm", 60.0), (True, "dumb", 60.0), (True, "xterm", -20.0)]
)
def test_elsewhere_and_of_short_work_nothing_is_shown(
    tty: bool, term: str, until: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched(monkeypatch, Terminal(tty=tty), term=term, until=until) == ""


# -- imports -----------------------------------------------------------------------------------------------------------


def test_its_help_teaches_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'numpy', 'hypothesis', 'pytest'): sys.modules[name] = None\n"
        "from pytest_circuits.cli import main\n"
        "main(['heads', '--help'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "clean,corrupt,answer,foil" in done.stdout
    assert "exit code is 0, and 2" in " ".join(done.stdout.split())


def test_json_goes_into_a_pipe_that_somebody_reads(tiny: Callable[..., Result], tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")), daemon=True)
    reader.start()

    assert tiny("--no-roles", "--json", str(pipe)).exit_code == 0
    reader.join(timeout=10)
    assert json.loads(read[0])["heads"].keys() >= {"L0H0", "L3H3"}


def test_a_stream_that_is_closed_is_no_terminal() -> None:
    assert not heads._obeys(None)

"""A trained language model: its circuits are found again, its damaged copies are caught, and its benign one passes."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pytest_circuits import load_spec
from pytest_circuits.checkpoints.naming import parse_checkpoint
from pytest_circuits.checks.suite import Suite
from pytest_circuits.cli import main
from pytest_circuits.gate.effects import Effects
from pytest_circuits.prompts.pairs import pairs_of
from pytest_circuits.records import Record, Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_circuits.checkpoints.handle import CheckpointModel
    from pytest_circuits.records import Reading
    from pytest_circuits.spec.loader import SpecFile

HERE = Path(__file__).parent
PRONOUNS, WERE = "pronoun-gender", "was-were"
LAYERS, HEADS, WIDTH, GROUP = 5, 8, 8, 2  # query heads in a layer, a head's width, query heads of one key/value head


# -- the model itself --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A spec in a project of its own, judged on the model itself, with the baseline that came of it."""

    root: Path
    file: SpecFile
    suite: Suite
    model: CheckpointModel
    reading: Reading
    results: Mapping[str, Result]
    told: tuple[str, ...]

    def judge(self, folder: Path, *checks: str) -> dict[str, Result]:
        """Return the verdicts on another checkpoint, against the stored baseline."""
        model = self.suite.model(parse_checkpoint(str(folder), folder=self.root))
        return {check: self.suite.judge(self.file, check, model) for check in checks or self.file.spec.declared}


def spec_for(root: Path, name: str, checkpoint: Path) -> Path:
    """Write a spec of this folder into a project, with the checkpoint that it is about."""
    text = (HERE / f"{name}.circuit.yaml").read_text(encoding="utf-8")
    placeholder = "checkpoint: stories260K"
    assert placeholder in text
    path = root / f"{name}.circuit.yaml"
    path.write_text(text.replace(placeholder, f"checkpoint: {json.dumps(str(checkpoint))}"), encoding="utf-8")
    return path


@cache
def stored(name: str, checkpoint: Path, tmp: Path) -> Stored:
    root = tmp / f"stored-{name}"
    root.mkdir()
    file = load_spec(spec_for(root, name, checkpoint), root=root)
    suite = Suite(root=root)
    model = suite.model(parse_checkpoint(file.spec.model.checkpoint, folder=root))
    results = {check: suite.judge_reference(file, check, model) for check in file.spec.declared}
    red = [result for result in results.values() if result.verdict is not Verdict.PASS]
    told = suite.store(suite.prepare(file, model, red, reason="the model as it was published"))
    return Stored(root, file, suite, model, suite.reading(file, model), results, told)


@pytest.fixture
def pronouns(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored(PRONOUNS, stories, tmp_path_factory.getbasetemp())


@pytest.fixture
def were(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored(WERE, stories, tmp_path_factory.getbasetemp())


def only(result: Result, claim: str, component: str | None = None) -> Record:
    (found,) = [record for record in result.records if (record.claim, record.component) == (claim, component)]
    return found


def verdicts(results: Mapping[str, Result]) -> dict[str, str]:
    return {check: str(result.verdict) for check, result in results.items()}


def all_pass(results: Mapping[str, Result]) -> bool:
    return {result.verdict for result in results.values()} == {Verdict.PASS}


def test_two_heads_bring_the_gender_to_the_pronoun(pronouns: Stored) -> None:
    results = pronouns.results

    assert all_pass(results), [result.headline for result in results.values()]
    assert only(results["behaviour"], "accuracy").value == 1.0
    assert only(results["faithfulness"], "at_least").value == pytest.approx(0.91, abs=0.01)
    assert only(results["necessity"], "at_least").value == pytest.approx(0.93, abs=0.01)
    assert only(results["controls"], "beats_random").value == 1.0
    assert only(results["roles"], "at_least", "L4H2").value == pytest.approx(0.81, abs=0.01)
    shares = {name: effect.share or 0.0 for name, effect in results["heads"].heads.items()}
    assert len(shares) == LAYERS * HEADS
    assert shares["L4H2"] == pytest.approx(0.81, abs=0.01)
    assert shares["L4H0"] == pytest.approx(0.13, abs=0.01)
    assert max(abs(share) for name, share in shares.items() if name not in ("L4H2", "L4H0")) < 0.04
    assert "pronoun-gender: baseline written" in pronouns.told[0]


def test_two_heads_bring_half_of_the_number_to_the_verb_and_five_more_a_third(were: Stored) -> None:
    results = were.results

    assert all_pass(results), [result.headline for result in results.values()]
    assert only(results["behaviour"], "accuracy").value == 1.0
    assert only(results["faithfulness"], "at_least").value == pytest.approx(0.895, abs=0.01)
    assert only(results["necessity"], "at_least").value == pytest.approx(0.89, abs=0.01)
    shares = {name: effect.share or 0.0 for name, effect in results["heads"].heads.items()}
    named = ["L4H2", "L4H3", "L2H5", "L3H2"]
    assert [shares[name] for name in named] == pytest.approx([0.33, 0.21, 0.11, 0.06], abs=0.01)
    assert sorted(shares, key=lambda name: -abs(shares[name]))[:4] == named
    assert any("necessity cannot fail by the loss of one head" in line for line in were.told)


def test_a_baseline_is_met_by_the_model_that_it_came_from_and_again(
    stories: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)  # where it is set, writing a baseline is refused
    spec_for(pytester.path, PRONOUNS, stories)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    written = pytester.runpytest("--circuits-update=new")
    first = pytester.runpytest("--circuits-json", "first.json")
    again = pytester.runpytest("--circuits-json", "again.json")

    written.stdout.fnmatch_lines(["pronoun-gender: baseline written from *"])
    for result in (written, first, again):
        result.assert_outcomes(passed=6)
    first.stdout.fnmatch_lines(["identical: stories260K: the same weights as *"])
    documents = [json.loads((pytester.path / f"{name}.json").read_text()) for name in ("first", "again")]
    assert documents[0]["verdict"] == "pass"
    assert len(documents[0]["records"]) > 2 * LAYERS * HEADS
    assert max(abs(record["drift"] or 0.0) for record in documents[0]["records"]) < 1e-6  # a baseline has 6 digits
    assert documents[0] == documents[1]


# -- its copies --------------------------------------------------------------------------------------------------------

Tensors = dict[str, torch.Tensor]


def copy_of(checkpoint: Path, folder: Path, change: Callable[[Tensors], None]) -> Path:
    """Copy a checkpoint with its tensors changed in place."""
    folder.mkdir()
    for file in checkpoint.glob("*.json"):
        shutil.copyfile(file, folder / file.name)  # the bytes alone: what is copied from may be read-only
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without(layer: int, head: int) -> Callable[[Tensors], None]:
    """Return the change that leaves a head nothing to write with."""

    def change(tensors: Tensors) -> None:
        tensors[f"model.layers.{layer}.self_attn.o_proj.weight"][:, head * WIDTH : (head + 1) * WIDTH] = 0

    return change


def exchanged(layer: int, one: int, other: int) -> Callable[[Tensors], None]:
    """Return the change in which two key/value heads trade places, and their query heads with them."""

    def change(tensors: Tensors) -> None:
        for name, axis, size in (("q", 0, GROUP), ("k", 0, 1), ("v", 0, 1), ("o", 1, GROUP)):
            key = f"model.layers.{layer}.self_attn.{name}_proj.weight"
            parts = list(tensors[key].split(size * WIDTH, dim=axis))
            parts[one], parts[other] = parts[other], parts[one]
            tensors[key] = torch.cat(parts, dim=axis)

    return change


def rounded(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor.bfloat16().float()


def logits_of(folder: Path, texts: Sequence[str]) -> torch.Tensor:
    module, tokenizer = plain_model(folder)
    with torch.inference_mode():
        return torch.stack([module(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1] for text in texts])


def plain_model(folder: Path) -> tuple[Any, Any]:
    module = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return module, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def assert_the_same_function(one: Path, other: Path, gate: Stored) -> None:
    """Assert equal logits, so that whatever a verdict says of the copy, no behaviour test could."""
    texts = [pair.clean for pair in pairs_of(gate.file).pairs[::10]]
    torch.testing.assert_close(logits_of(one, texts), logits_of(other, texts), atol=1e-5, rtol=0)


def test_without_its_mover_the_task_is_lost_and_no_ratio_is_told(
    pronouns: Stored, stories: Path, tmp_path: Path
) -> None:
    found = pronouns.judge(copy_of(stories, tmp_path / "cut", without(4, 2)), "behaviour", "faithfulness", "necessity")

    assert verdicts(found) == {"behaviour": "drift", "faithfulness": "not-evaluated", "necessity": "not-evaluated"}
    assert only(found["behaviour"], "loss").value == pytest.approx(0.19, abs=0.01)
    assert "task lost" in found["faithfulness"].headline


def test_without_its_second_mover_the_task_is_solved_and_only_the_heads_tell(
    pronouns: Stored, stories: Path, tmp_path: Path
) -> None:
    checks = [check for check in pronouns.file.spec.declared if check != "controls"]
    found = pronouns.judge(copy_of(stories, tmp_path / "cut", without(4, 0)), *checks)

    assert verdicts(found) == dict.fromkeys(checks, "pass") | {"heads": "drift"}
    left = {record.component: record for record in found["heads"].records if record.verdict is Verdict.DRIFT}
    assert set(left) == {"L4H0", "L4H2"}
    lost = only(found["heads"], "share", "L4H0")
    assert lost.reference == pytest.approx(0.126, abs=0.001)
    assert lost.value == pytest.approx(0.0, abs=1e-6)
    assert only(found["heads"], "keep", "L4H0").verdict is Verdict.DRIFT
    assert "accuracy 1.00 -> 1.00" in found["heads"].details[-1]


def test_a_head_that_is_cut_out_is_named_as_lost(were: Stored, stories: Path, tmp_path: Path) -> None:
    found = were.judge(copy_of(stories, tmp_path / "cut", without(4, 2)), "behaviour", "faithfulness", "heads")

    assert {check for check, result in found.items() if result.verdict is Verdict.DRIFT} >= {"behaviour", "heads"}
    (line,) = [line for line in found["heads"].details if line.startswith("L4H2  movers")]
    assert line.endswith("lost")
    assert "0.33 -> 0.00" in line


def test_a_circuit_that_moved_to_another_place_is_told_as_a_move(
    pronouns: Stored, stories: Path, pytester: pytest.Pytester
) -> None:
    moved = copy_of(stories, pytester.path / "copy", exchanged(4, 1, 3))  # L4H2 and L4H3 trade places with L4H6, L4H7
    assert_the_same_function(stories, moved, pronouns)
    shutil.copytree(pronouns.root, pytester.path / "specs")
    found = pytester.runpytest("specs", "-k", "not controls", "--circuits-checkpoint", f"moved={moved}")

    found.assert_outcomes(passed=1, failed=4, deselected=1)
    found.stdout.fnmatch_lines(
        [
            "*heads: 2 of 40 heads left their limits*",
            "  L4H6 *took over",
            "  L4H2  mover *lost",
            "  the role moved: L4H2 -> L4H6.",
            "  behaviour is unchanged (accuracy 1.00 -> 1.00): the task is still solved, by other heads.",
        ],
        consecutive=True,
    )
    failed = [line.split("::")[1].split("[")[0] for line in found.outlines if line.startswith("FAILED")]
    assert failed == ["faithfulness", "necessity", "heads", "roles"]


def test_members_that_trade_places_are_seen_by_heads_and_roles_alone(
    pronouns: Stored, stories: Path, tmp_path: Path
) -> None:
    moved = copy_of(stories, tmp_path / "copy", exchanged(4, 0, 1))  # the circuit's two heads among them
    assert_the_same_function(stories, moved, pronouns)
    found = pronouns.judge(moved, "behaviour", "faithfulness", "necessity", "heads", "roles")

    assert verdicts(found) == dict.fromkeys(("behaviour", "faithfulness", "necessity"), "pass") | dict.fromkeys(
        ("heads", "roles"), "drift"
    )
    assert "the role moved: L4H2 -> L4H0." in found["heads"].details


def test_rounded_weights_pass_and_are_not_said_to_be_identical(pronouns: Stored, stories: Path, tmp_path: Path) -> None:
    copy = copy_of(stories, tmp_path / "copy", rounded)
    found = pronouns.judge(copy)

    assert all_pass(found), [result.headline for result in found.values()]
    assert not any("identical" in result.headline for result in found.values())
    drifts = [abs(record.drift) for result in found.values() for record in result.records if record.drift is not None]
    assert 0 < max(drifts) < 0.02


# -- without a verdict -------------------------------------------------------------------------------------------------


def test_looking_at_every_head_finds_the_mover_by_every_method_that_asks_what_is_lost(
    pronouns: Stored, stories: Path
) -> None:
    asked = ["heads", "--checkpoint", str(stories), "--prompts", str(pronouns.file.path), "--json", "-"]
    found = json.loads(CliRunner().invoke(main, asked).stdout)
    effects = Effects(pronouns.reading)

    assert found["name"].endswith(f"stored-{PRONOUNS}/{PRONOUNS}")
    for head, view in found["heads"].items():
        assert view["share"] == pytest.approx(effects.share(head).value, abs=1e-6)
    assert found["heads"]["L4H2"]["roles"]["number_mover"] == pytest.approx(0.81, abs=0.01)
    assert {"copying", "copy_suppression", "greater_than"} == set(found["unread"])
    for method in ("exact", "eap-ig", "atp"):
        shown = CliRunner().invoke(main, [*asked[:-2], "--method", method, "--no-roles"], env={"COLUMNS": "80"}).stdout
        first = shown.partition("\nhead ")[2].splitlines()[1]
        assert first.startswith("L4H2 "), method


# -- the engine against a plain loop -----------------------------------------------------------------------------------


def twins(clean: Sequence[int], corrupt: Sequence[int]) -> dict[int, int]:
    """Return the corrupt position of each clean one that has a counterpart, with `align: slot`."""
    if len(clean) == len(corrupt):
        return {at: at for at in range(len(clean))}
    found = {}
    for at, (one, other) in enumerate(zip(clean, corrupt, strict=False)):
        if one != other:
            break
        found[at] = at
    for back, (one, other) in enumerate(zip(reversed(clean), reversed(corrupt), strict=False), start=1):
        if one != other or len(clean) - back in found or len(corrupt) - back in found.values():
            break
        found[len(clean) - back] = len(corrupt) - back
    return found


class Plain:
    """The model with nothing but hooks: one prompt and one replaced part at a time."""

    def __init__(self, folder: Path) -> None:
        self.module, self.tokenizer = plain_model(folder)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def difference(self, ids: Sequence[int], answer: int, foil: int) -> float:
        with torch.inference_mode():
            logits = self.module(torch.tensor([ids])).logits[0, -1]
        return float(logits[answer] - logits[foil])

    def values(self, ids: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return what every output projection reads and every MLP writes, each (seq, width)."""
        kept: dict[str, torch.Tensor] = {}
        with ExitStack() as hooks, torch.inference_mode():
            for at, block in enumerate(self.module.model.layers):

                def reads(_: Any, args: Any, name: str = f"z{at}") -> None:
                    kept[name] = args[0][0].clone()

                def writes(_: Any, args: Any, output: torch.Tensor, name: str = f"mlp{at}") -> None:
                    kept[name] = output[0].clone()

                hooks.enter_context(block.self_attn.o_proj.register_forward_pre_hook(reads))
                hooks.enter_context(block.mlp.register_forward_hook(writes))
            self.module(torch.tensor([ids]))
        return kept

    @contextmanager
    def replaced(
        self, heads: Sequence[tuple[int, int]], mlps: Sequence[int], values: Mapping[str, torch.Tensor], at: Any
    ) -> Iterator[None]:
        """Let heads and MLPs take other values, at positions that map to those of `values`."""
        with ExitStack() as hooks:
            for layer, head in heads:
                columns = slice(head * WIDTH, (head + 1) * WIDTH)

                def reads(_: Any, args: Any, name: str = f"z{layer}", columns: slice = columns) -> tuple[Any, ...]:
                    z = args[0].clone()
                    for here, there in at.items():
                        z[0, here, columns] = values[name][there, columns]
                    return (z,)

                projection = self.module.model.layers[layer].self_attn.o_proj
                hooks.enter_context(projection.register_forward_pre_hook(reads))
            for layer in mlps:

                def writes(_: Any, args: Any, output: torch.Tensor, name: str = f"mlp{layer}") -> torch.Tensor:
                    output = output.clone()
                    for here, there in at.items():
                        output[0, here] = values[name][there]
                    return output

                hooks.enter_context(self.module.model.layers[layer].mlp.register_forward_hook(writes))
            yield


@pytest.mark.parametrize("name", [PRONOUNS, WERE])
def test_every_head_has_the_share_that_a_plain_loop_finds(
    name: str, stories: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gate = stored(name, stories, tmp_path_factory.getbasetemp())
    plain = Plain(stories)
    chosen = range(0, 192, 24)  # one prompt of each template
    every = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    without_head: dict[str, list[float]] = {f"L{layer}H{head}": [] for layer, head in every}
    clean, floor = [], []
    pairs = pairs_of(gate.file).pairs
    for index in chosen:
        pair = pairs[index]
        assert pair.corrupt is not None
        ids, twin = plain.ids(pair.clean), plain.ids(pair.corrupt)
        answer, foil = (plain.ids(f"{pair.clean} {word}")[len(ids)] for word in (pair.answer, pair.foil))
        at = {len(ids) - 1: len(twin) - 1} if name == PRONOUNS else twins(ids, twin)
        values = plain.values(twin)
        clean.append(plain.difference(ids, answer, foil))
        with plain.replaced(every, range(LAYERS), values, at):
            floor.append(plain.difference(ids, answer, foil))
        for layer, head in every:
            with plain.replaced([(layer, head)], [], values, at):
                without_head[f"L{layer}H{head}"].append(plain.difference(ids, answer, foil))

    rows = list(chosen)
    assert {gate.reading.templates[row] for row in rows} == set(gate.reading.templates)
    np.testing.assert_allclose(gate.reading.clean[rows], clean, atol=2e-5)
    np.testing.assert_allclose(gate.reading.floor[rows], floor, atol=2e-5)
    whole = np.mean(clean) - np.mean(floor)
    engine = gate.reading.clean[rows].mean() - gate.reading.floor[rows].mean()
    for head, values_without in without_head.items():
        expected = (np.mean(clean) - np.mean(values_without)) / whole
        found = (gate.reading.clean[rows].mean() - gate.reading.heads[head][rows].mean()) / engine
        assert found == pytest.approx(expected, abs=1e-5), head

"""A reading from the cache: the same numbers bit for bit, under a key that names everything they depend on."""

from __future__ import annotations

import ast
import math
import struct
from dataclasses import replace
from importlib.util import resolve_name
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from imagined import HEADS, reading

from pytest_circuits.baselines.cache import Cache, entries
from pytest_circuits.checks import cached
from pytest_circuits.checks.cached import MEASURING, Cached, Key, asked, instrument
from pytest_circuits.errors import MeasurementError, PromptError
from pytest_circuits.gate.controls import RandomCircuits
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_circuits.records import Measured

ROOT = Path(cached.__file__).parents[1]
PARTS = ("clean", "corrupt", "clean_logit_diff", "circuit", "knockout", "floor", "noise", "attribution", "successor")
SPEC = """\
format: 1
model: {checkpoint: "builtin:imagined", architecture: gpt2, layers: 2, heads: 4}
prompts:
  include: words.yaml
  vocabulary:
    subject: {singular: [dog, author, key, car], plural: [dogs, authors, keys, cars]}
    verb: {singular: [is, was], plural: [are, were]}
  templates:
    - {id: near, text: "the {subject} {near} it", answer: "{verb}", flip: subject}
  per_template: 8
  seed: 1
tokens: {bos: auto}
measure: {metric: logit_diff}
ablation: {value: resample, positions: all}
circuit:
  mover: {heads: [L1H2], role: {name: number_mover, at_least: 0.5}}
  counter: {heads: [L0H1], mlps: [L0.mlp], role: {name: successor}}
claims:
  {behaviour: , necessity: {of: heads}, controls: {match: layer}, heads: , attribution: {top: 3}, successor: , roles: }
"""
ROLES = ("roles.number_mover", "roles.successor")
EVERY = {*PARTS, *ROLES, "prompts", "heads", "heads.L1H2", "random_circuits"}


def same(one: Any, other: Any) -> bool:
    """Say whether two parts are equal to the last bit, in value and in order; whole numbers are read as floats."""
    if isinstance(one, dict) or hasattr(one, "items"):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        return one.astype(np.float64).tobytes() == other.astype(np.float64).tobytes()
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and one == other


class Live:
    """Live measurements that note which part ran; a part that is an error is raised."""

    def __init__(self, whole: Measured, **others: Any) -> None:
        self.whole, self.others, self.ran = whole, others, []

    def __getattr__(self, name: str) -> Any:
        self.ran.append(name)
        found = self.others[name] if name in self.others else getattr(self.whole, name)
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def heads(self) -> Any:
        return Heads(self.whole.heads, self.ran)

    of_prompts = ("template 'near': few", "ünïcode \x1b[31m")
    random_circuits = RandomCircuits((0.1, -0.0, 1 / 3), possible=3**90, exhaustive=False)


class Heads(dict):  # type: ignore[type-arg]
    """The sweep: going through it is one run, and so is asking for one head."""

    def __init__(self, heads: Any, ran: list[str]) -> None:
        super().__init__(heads)
        self.ran = ran

    def items(self) -> Any:
        self.ran.append("sweep")
        return super().items()

    def __getitem__(self, head: str) -> Any:
        self.ran.append(head)
        return super().__getitem__(head)


class Bench:
    """One process: a spec, a checkpoint and a cache, and how often live measurements were asked for."""

    def __init__(self, file: SpecFile, model: Any, folder: Path, **others: Any) -> None:
        self.live = Live(reading(), **others)
        self.asked = 0
        self.store = Cache(folder)
        self.reading = Cached(file, model, store=self.store, measure=self.measure)

    def measure(self) -> Any:
        self.asked += 1
        return self.live


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., SpecFile]:
    """Write a spec, with texts replaced in it, and load it."""
    (tmp_path / "words.yaml").write_text("vocabulary: {near: [near, behind]}")

    def file(*changes: tuple[str, str], name: str = "verbs") -> SpecFile:
        text = SPEC
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.circuit.yaml"
        path.write_text(text)
        return load_spec(path, root=tmp_path)

    return file


@pytest.fixture
def model() -> SimpleNamespace:
    return SimpleNamespace(fingerprint="f" * 64, dtype="float32", device="cpu", name="tuned")


@pytest.fixture
def process(file: Callable[..., SpecFile], model: SimpleNamespace, tmp_path: Path) -> Callable[..., Bench]:
    """Return what a process has that measures, or reads what an earlier one measured."""

    def process(*changes: tuple[str, str], of: Any = model, **others: Any) -> Bench:
        return Bench(file(*changes), of, tmp_path / "cache", **others)

    return process


def read_all(found: Cached) -> None:
    for part in (*PARTS, "templates", "notices", "random_circuits"):
        getattr(found, part)
    dict(found.heads)
    dict(found.roles)


# -- hit and miss ------------------------------------------------------------------------------------------------------


def test_a_second_process_reads_every_part_bit_for_bit_and_measures_nothing(process: Callable[..., Bench]) -> None:
    first, second = process(), None
    read_all(first.reading)
    second = process()
    read_all(second.reading)

    assert (second.asked, second.live.ran) == (0, [])
    for part in (*PARTS, "templates", "heads", "roles"):
        measured, found = getattr(first.live.whole, part), getattr(second.reading, part)
        assert same(getattr(first.reading, part), found), part
        assert same(measured, found), part
    assert second.reading.random_circuits == first.reading.random_circuits == Live.random_circuits
    assert second.reading.notices == first.reading.notices == Live.of_prompts


def test_each_part_says_whether_it_was_cached(process: Callable[..., Bench]) -> None:
    first = process()
    assert first.reading.cached == {"prompts": False}
    first.reading.clean  # noqa: B018
    second = process()
    read_all(second.reading)

    assert [part for part, was in second.reading.cached.items() if was] == ["prompts", "clean"]
    assert second.reading.cached.keys() == EVERY - {"heads.L1H2"}


def test_a_part_is_read_once(process: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    read_all(process().reading)
    again = process().reading
    read_all(again)
    monkeypatch.setattr(Cache, "get", lambda self, key: pytest.fail("read again"))
    read_all(again)
    assert again.heads["L0H0"] is again.heads["L0H0"]


def test_without_a_store_everything_is_measured_and_nothing_is_kept(
    file: Callable[..., SpecFile], model: SimpleNamespace, tmp_path: Path
) -> None:
    live = Live(reading())
    for _ in range(2):
        read_all(Cached(file(), model, store=None, measure=lambda: live))

    assert live.ran.count("clean") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["verbs.circuit.yaml", "words.yaml"]


def test_what_is_read_cannot_be_changed_in_place(process: Callable[..., Bench]) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            process().reading.clean[0] = 1.0


# -- heads -------------------------------------------------------------------------------------------------------------


def test_one_head_is_measured_and_kept_alone(process: Callable[..., Bench]) -> None:
    first = process()
    assert same(first.reading.heads["L1H2"], first.live.whole.heads["L1H2"])
    assert first.live.ran == ["templates", "L1H2"]
    second = process()
    assert same(second.reading.heads["L1H2"], first.live.whole.heads["L1H2"])
    assert second.asked == 0

    dict(second.reading.heads)
    assert second.live.ran == ["sweep"]


def test_a_sweep_serves_who_asks_for_one_head(process: Callable[..., Bench]) -> None:
    dict(process().reading.heads)
    second = process()

    assert same(second.reading.heads["L1H2"], second.live.whole.heads["L1H2"])
    assert second.reading.cached == {"prompts": True, "heads": True}
    assert second.asked == 0


def test_the_sweep_is_one_file_whatever_the_number_of_heads(process: Callable[..., Bench], tmp_path: Path) -> None:
    dict(process().reading.heads)

    assert len(entries(tmp_path / "cache")) == 2  # and that of the prompts


def test_the_mapping_of_heads_is_that_of_the_model(process: Callable[..., Bench]) -> None:
    one = process()
    heads = one.reading.heads
    assert "L9H9" not in heads
    with pytest.raises(KeyError, match="L9H9"):
        heads["L9H9"]
    assert one.live.ran == ["templates"]

    assert (tuple(heads), len(heads)) == (HEADS, len(HEADS))


# -- what is not kept --------------------------------------------------------------------------------------------------


def test_an_error_is_raised_again_and_never_kept(process: Callable[..., Bench]) -> None:
    broken = process(circuit=MeasurementError("logits are not finite"))
    for _ in range(2):
        with pytest.raises(MeasurementError, match="not finite"):
            broken.reading.circuit  # noqa: B018
    assert same(broken.reading.clean, broken.live.whole.clean)
    whole = process()

    assert same(whole.reading.circuit, whole.live.whole.circuit)
    assert whole.reading.cached == {"prompts": True, "circuit": False}


def test_prompts_that_are_refused_make_no_reading(process: Callable[..., Bench], tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="two tokens"):
        process(templates=PromptError("'dogs' is two tokens"))

    assert entries(tmp_path / "cache") == []


def test_a_number_that_is_not_finite_is_given_as_it_is_and_not_kept(process: Callable[..., Bench]) -> None:
    whole = reading()
    odd = whole.clean.copy()
    odd[3] = math.nan
    for _ in range(2):
        broken = process(clean=odd, random_circuits=None)
        assert same(broken.reading.clean, odd)
        assert broken.reading.cached["clean"] is False


def at(index: int | str, value: Any) -> Callable[[Any], Any]:
    """Return a change that puts a value at a place of a part."""
    return lambda part: (
        {**part, index: value} if isinstance(part, dict) else [*part[:index], value, *part[index + 1 :]]  # type: ignore[operator]
    )


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a number for every prompt": ("floor", lambda part: part[:1]),
    "a prompt fewer": ("circuit", lambda part: part[:-1]),
    "no prompt": ("clean", lambda part: []),
    "one number": ("clean", lambda part: part[0]),
    "numbers in lists": ("knockout", lambda part: [[number] for number in part]),
    "a text": ("clean", at(0, "5.0")),
    "a text that is no number": ("corrupt", at(0, "NaN")),
    "a truth value": ("clean_logit_diff", at(0, True)),
    "a null": ("clean", at(0, None)),
    "a number that no float holds": ("clean", at(0, 10**400)),
    "a number that no model gives": ("clean", at(0, 1e308)),
    "a noise floor below zero": ("noise", lambda part: -1.0),
    "a noise floor in words": ("noise", lambda part: "0.1"),
    "a head fewer": ("heads", lambda part: {head: part[head] for head in HEADS[1:]}),
    "a head more": ("heads", at("L9H9", [0.0] * 12)),
    "a head of fewer prompts": ("heads", at("L0H0", [0.0])),
    "a head's entry for one prompt": ("heads.L1H2", lambda part: part[:1]),
    "no heads": ("heads", lambda part: [*part.values()]),
    "a role of no head": ("roles.number_mover", lambda part: {}),
    "a role of one head": ("roles.number_mover", lambda part: {"L0H0": part["L0H0"]}),
    "a role of a head more": ("roles.number_mover", lambda part: {**part, "L9H9": part["L0H0"]}),
    "attention of fewer prompts": ("roles.number_mover", at("L0H0", {"attention": [0.5]})),
    "numbers of another role": ("roles.number_mover", at("L0H0", {"50 repeated tokens": [0.5]})),
    "words of one head more": ("roles.successor", at("L0H1", {"letters": [1]})),
    "words in a text": ("roles.successor", lambda part: {head: {"letters": "1"} for head in part}),
    "attribution to a head fewer": ("attribution", lambda part: {head: part[head] for head in HEADS[1:]}),
    "attribution on fewer prompts": ("attribution", at("L0H0", [0.0])),
    "digits of no head": ("successor", lambda part: {}),
    "digits of another head": ("successor", lambda part: {"L1H1": part["L0H1"]}),
    "digits in a text": ("successor", at("L0H1", {"probe": "1"})),
    "no prompts": ("prompts", at("templates", [])),
    "prompts in a text": ("prompts", at("templates", "near")),
    "a template that is a number": ("prompts", at("templates", [1])),
    "a notice that is a number": ("prompts", at("notices", [1])),
    "prompts in a list": ("prompts", lambda part: []),
    "random circuits of more": ("random_circuits", at("more", 1)),
    "random circuits in words": ("random_circuits", at("faithfulness", ["0.1"])),
    "a count that is no count": ("random_circuits", at("possible", True)),
    "random circuits in a list": ("random_circuits", lambda part: [1]),
}


@pytest.mark.parametrize(("part", "change"), WRONG.values(), ids=WRONG.keys())
def test_an_entry_of_another_shape_is_measured_again_and_replaced_whoever_sealed_it(
    part: str,
    change: Callable[[Any], Any],
    process: Callable[..., Bench],
    file: Callable[..., SpecFile],
    model: SimpleNamespace,
) -> None:
    def read(bench: Bench) -> None:
        if part == "heads.L1H2":
            bench.reading.heads["L1H2"]
        else:
            read_all(bench.reading)

    first = process()
    read(first)
    key = Key(file(), model).of(part)
    whole = first.store.get(key)
    wrong = change(whole)
    assert wrong != whole
    first.store.put(key, wrong)
    again = process()
    read(again)

    assert [name for name, was in again.reading.cached.items() if not was] == [part]
    assert first.store.get(key) == whole


# -- the key -----------------------------------------------------------------------------------------------------------

BASE = {
    "seed": ("seed: 1", "seed: 2"),
    "a word": ("[dog, author, key, car]", "[cat, author, key, car]"),
    "a template": ('text: "the {subject}', 'text: "a {subject}'),
    "prompts a template": ("per_template: 8", "per_template: 9"),
    "tokens": ("bos: auto", "bos: never"),
    "metric": ("metric: logit_diff", "metric: prob_diff"),
    "value": ("value: resample", "value: zero"),
    "positions": ("positions: all", "positions: last"),
}
MEMBERS = {"circuit", "knockout", "random_circuits"}
CIRCUIT = {
    "another MLP": (("mlps: [L0.mlp]", "mlps: [L1.mlp]"), MEMBERS),
    "embed": (("mlps: [L0.mlp]", "mlps: [L0.mlp], embed: true"), MEMBERS),
    "another head without a role": (("claims:", "  more: {heads: [L0H0]}\nclaims:"), MEMBERS),
    "the number mover": (("heads: [L1H2]", "heads: [L1H3]"), MEMBERS),
    "the successor": (("heads: [L0H1]", "heads: [L0H0]"), MEMBERS | {"successor"}),
    "a head that is a successor too": (("heads: [L0H1]", "heads: [L0H1, L1H1]"), MEMBERS | {"successor"}),
    "how effects are attributed": (("top: 3", "top: 3, method: exact"), {"attribution"}),
    "how many heads are the largest": (("top: 3", "top: 4, on_fall: fail, jaccard_at_least: 0.9"), set()),
    "what is asked of the successor": (("successor: ,", "successor: {edit_at_least: 0.5},"), set()),
    "what necessity takes out": (("of: heads", "of: all"), {"knockout"}),
    "what random circuits match": (("match: layer", "match: size"), {"random_circuits"}),
    "a role's limit": (("at_least: 0.5", "at_least: 0.6"), set()),
    "a role's rank": (("at_least: 0.5", "percentile_at_least: 0.6"), set()),
    "a role's sign": (("at_least: 0.5", "effect: positive"), set()),
    "what is said of a move": (("roles: }", "roles: {on_move: warn, mass_drift_at_most: 0.2}}"), set()),
    "a claim": (("behaviour: ,", "behaviour: {loss_at_most: 0.3}, faithfulness: ,"), set()),
    "the checkpoint": (("builtin:imagined", "builtin:other"), set()),
    "a comment below the templates": (("per_template", "# a comment\n  per_template"), set()),
}


def changed_parts(one: SpecFile, other: SpecFile, model: Any) -> set[str]:
    return {part for part in EVERY if Key(one, model).of(part) != Key(other, model).of(part)}


@pytest.mark.parametrize("change", BASE.values(), ids=BASE.keys())
def test_what_every_run_depends_on_changes_every_key(
    change: tuple[str, str], file: Callable[..., SpecFile], model: SimpleNamespace
) -> None:
    assert changed_parts(file(), file(change), model) == EVERY


@pytest.mark.parametrize(("change", "parts"), CIRCUIT.values(), ids=CIRCUIT.keys())
def test_what_some_parts_depend_on_changes_only_their_keys(
    change: tuple[str, str], parts: set[str], file: Callable[..., SpecFile], model: SimpleNamespace
) -> None:
    assert changed_parts(file(), file(change), model) == parts


def test_a_role_that_is_defined_through_others_depends_on_their_heads(
    file: Callable[..., SpecFile], model: SimpleNamespace
) -> None:
    backup = ("role: {name: successor}", "role: {name: backup_name_mover}")
    movers = ("role: {name: number_mover, at_least: 0.5}", "role: {name: name_mover}")
    bare = ("successor: ,", "")
    before, after = file(backup, movers, bare), file(backup, movers, bare, ("heads: [L1H2]", "heads: [L1H3]"))

    def changed(part: str) -> bool:
        return Key(before, model).of(part) != Key(after, model).of(part)

    assert asked(before, "roles.backup_name_mover")["movers"] == ["L1H2"]
    assert [changed(f"roles.{name}") for name in ("backup_name_mover", "name_mover")] == [True, False]
    assert before.identity != after.identity


def test_a_role_is_measured_and_kept_by_itself(process: Callable[..., Bench]) -> None:
    first = process()
    assert same(first.reading.roles["successor"], first.live.whole.roles["successor"])
    assert first.live.ran == ["templates", "roles"]
    assert first.reading.cached == {"prompts": False, "roles.successor": False}
    second = process()
    assert same(second.reading.roles["successor"], first.live.whole.roles["successor"])

    assert second.asked == 0
    assert (list(second.reading.roles), len(second.reading.roles)) == (["number_mover", "successor"], 2)
    with pytest.raises(KeyError, match="name_mover"):
        second.reading.roles["name_mover"]


def test_an_included_file_changes_every_key(
    file: Callable[..., SpecFile], model: SimpleNamespace, tmp_path: Path
) -> None:
    before = file()
    (tmp_path / "words.yaml").write_text("vocabulary: {near: [near, beside]}")

    assert changed_parts(before, file(), model) == EVERY


def test_a_spec_that_moves_keeps_its_numbers_and_tells_its_notices_anew(
    file: Callable[..., SpecFile], model: SimpleNamespace
) -> None:
    assert changed_parts(file(), file(name="other"), model) == {"prompts"}
    assert changed_parts(file(), file(("format: 1", "format: 1\nabout: a line more")), model) == {"prompts"}


def test_a_prompt_file_counts_by_its_content(model: SimpleNamespace, tmp_path: Path) -> None:
    def of(name: str, answer: str) -> SpecFile:
        (tmp_path / name).write_text(f"clean,corrupt,answer,foil\na dog,a cat,{answer},no\n")
        path = tmp_path / "verbs.circuit.yaml"
        path.write_text(SPEC[: SPEC.index("prompts:")] + f"prompts: {{file: {name}}}\n" + SPEC[SPEC.index("tokens:") :])
        return load_spec(path, root=tmp_path)

    assert changed_parts(of("p.csv", "yes"), of("p.csv", "oh"), model) == EVERY
    assert changed_parts(of("p.csv", "yes"), of("q.csv", "yes"), model) == {"prompts"}


def test_what_can_refuse_prompts_without_a_twin_has_their_refusal_looked_at_again(
    model: SimpleNamespace, tmp_path: Path
) -> None:
    def of(*changes: tuple[str, str]) -> SpecFile:
        text = SPEC[: SPEC.index("prompts:")] + "prompts: {file: p.csv}\n" + SPEC[SPEC.index("tokens:") :]
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "verbs.circuit.yaml").write_text(text)
        return load_spec(tmp_path / "verbs.circuit.yaml", root=tmp_path)

    (tmp_path / "p.csv").write_text("clean,answer,foil\na dog,yes,no\n")
    fewer = of(("behaviour: ,", ""))

    assert changed_parts(fewer, of(), model) == {"prompts"}
    without = of((", role: {name: number_mover, at_least: 0.5}", ""))
    assert changed_parts(of(), without, model) == {"prompts", "roles.number_mover"}


@pytest.mark.parametrize(
    ("name", "value"), [("fingerprint", "e" * 64), ("dtype", "bfloat16"), ("device", "a GPU")], ids=str
)
def test_another_checkpoint_precision_or_device_changes_every_key(
    name: str, value: str, file: Callable[..., SpecFile], model: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "describe_device", lambda device: f"kind of {device}")
    other = SimpleNamespace(**{**model.__dict__, name: value})

    assert {part for part in EVERY if Key(file(), model).of(part) != Key(file(), other).of(part)} == EVERY


def test_a_checkpoints_name_is_not_part_of_the_key(file: Callable[..., SpecFile], model: SimpleNamespace) -> None:
    other = SimpleNamespace(**{**model.__dict__, "name": "another"})

    assert [Key(file(), model).of(part) for part in EVERY] == [Key(file(), other).of(part) for part in EVERY]


@pytest.mark.parametrize("ingredient", [*cached.VERSIONED, "python", "processor", "source"])
def test_another_instrument_never_reads_what_this_one_measured(
    ingredient: str, process: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all(process().reading)
    changed = {**instrument(), ingredient: "another"}
    monkeypatch.setattr(cached, "instrument", lambda: changed)
    other = process()
    read_all(other.reading)

    assert ingredient in instrument()
    assert set(other.reading.cached.values()) == {False}


def test_no_two_parts_share_a_key(file: Callable[..., SpecFile], model: SimpleNamespace) -> None:
    assert len({Key(file(), model).of(part) for part in EVERY}) == len(EVERY)


def test_the_key_is_plain_json_of_what_is_said(file: Callable[..., SpecFile]) -> None:
    assert asked(file(), "knockout").keys() == {
        *("tokens", "prompts", "measure", "ablation"),
        *("members", "embed", "of"),
    }


# -- the instrument ----------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A copy of the package's source, and what it is digested to."""
    for path in ROOT.rglob("*.py"):
        copy = tmp_path / "package" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(cached, "PACKAGE", tmp_path / "package")
    return lambda: instrument.__wrapped__()["source"]


@pytest.mark.parametrize(
    "name",
    [
        *("engine/runs.py", "checkpoints/model.py", "roles/successor.py", "prompts/encode.py"),
        *(name for name in MEASURING if name.endswith(".py")),
    ],
)
def test_a_changed_line_of_the_instrument_changes_its_digest(name: str, source: Callable[[], str]) -> None:
    before = source()
    path = cached.PACKAGE / name
    path.write_text(path.read_text() + "\n")

    assert source() != before


def test_a_module_that_is_new_or_renamed_changes_the_digest(source: Callable[[], str]) -> None:
    before = source()
    (cached.PACKAGE / "engine" / "extra.py").write_text("")
    added = source()
    (cached.PACKAGE / "engine" / "extra.py").rename(cached.PACKAGE / "engine" / "extras.py")

    assert len({before, added, source()}) == 3


def test_what_does_not_measure_leaves_the_digest_alone(source: Callable[[], str]) -> None:
    before = source()
    for name in ("report/terminal.py", "checks/heads.py", "gate/decisions.py", "plugin/run.py"):
        (cached.PACKAGE / name).write_text("changed")

    assert source() == before


def imports_of(path: Path) -> set[Path]:
    """The package's own modules that a module imports, inside functions too, but not for type checkers alone."""
    package = ".".join(("pytest_circuits", *path.relative_to(ROOT).parts[:-1]))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    ignored = {child for node in typing for child in ast.walk(node)}
    found = set()
    for node in set(ast.walk(tree)) - ignored:
        if isinstance(node, ast.ImportFrom) and node.level:
            stem = resolve_name("." * node.level + (node.module or ""), package)
            found |= {f"{stem}.{alias.name}" for alias in node.names} | {stem}
    paths = [ROOT.joinpath(*name.split(".")[1:]) for name in found]
    return {each for path in paths for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()}


def test_everything_that_measuring_imports_is_part_of_the_digest() -> None:
    reached, waiting = set(), {ROOT / "checks/measurements.py", ROOT / "checkpoints/handle.py"}
    while waiting:
        path = waiting.pop()
        reached.add(path)
        waiting |= imports_of(path) - reached
    digested = {each for name in MEASURING for each in ([ROOT / name, *(ROOT / name).rglob("*.py")])}
    # The ground computes nothing; what a spec says is in the key; a built-in checkpoint is its fingerprint.
    aside = {"errors.py", "records.py", "__init__.py", "spec", "builtin"}
    left = {path.relative_to(ROOT) for path in reached - digested}

    assert len(reached) > 25
    assert {str(path) for path in left if path.parts[0] not in aside and path.name != "__init__.py"} == set()


def test_a_reading_is_unlike_another_by_one_bit() -> None:
    whole = reading()
    other = replace(whole, clean=np.nextafter(whole.clean, np.inf))

    assert same(whole.clean, whole.clean.copy())
    assert not same(whole.clean, other.clean)

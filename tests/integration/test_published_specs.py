"""The published specs: each is read, asks what a tokenizer can be asked, and is measured on a model of its shape.

No weights of the real models are at hand. The models here have their layers and heads, random weights and small widths;
a stand-in for their tokenizers knows every word as one token.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from small_models import bound, random_module

from pytest_circuits import load_spec
from pytest_circuits.checks import Comparison, judge
from pytest_circuits.checks.measurements import Measurements, ask
from pytest_circuits.cli import main
from pytest_circuits.prompts.pairs import pairs_of
from pytest_circuits.records import Verdict
from pytest_circuits.roles import greater_than, successor

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.spec.loader import SpecFile

ROOT = Path(__file__).parents[2]
SPECS = {
    path.relative_to(ROOT / "specs").as_posix().removesuffix(".circuit.yaml"): path
    for path in sorted((ROOT / "specs").rglob("*.circuit.yaml"))
    if path.parent.name != "tiny"
}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"hidden_size": 48},
    "gpt_neox": {"hidden_size": 64, "rotary_pct": 1.0},
    "llama": {"hidden_size": 64, "head_dim": 2, "num_key_value_heads": 32},
    "gemma": {"num_key_value_heads": 1},
}
"""Widths; keys and values are shared as in the real models."""
WORD = re.compile(r"\d\d(?=\d\d\b)|\w+|[^\w\s]")
"""A token: a year's century, a word, a sign."""
SEQUENCES = ("numerals", "number-words", "months", "successor")
TEMPLATES, PAIRS = 2, 8
"""Of each spec so much is measured; of one with edges, each of which is a run, only one template."""


@cache
def published(name: str) -> SpecFile:
    return load_spec(SPECS[name], root=ROOT)


class Words:
    """A tokenizer that knows the words of all published specs and of the roles, each as one token."""

    bos_token_id, unk_token_id, unk_token = 0, 1, "<unknown>"
    all_special_ids = (0, 1)

    def __init__(self) -> None:
        self.added_tokens_decoder: dict[int, Any] = {}
        pairs = [pair for name in SPECS for pair in pairs_of(published(name)).pairs]
        texts = [text for pair in pairs for text in (pair.clean, str(pair.corrupt), pair.answer, pair.foil)]
        tasks = [*(task.words for task in successor.TASKS.values()), *greater_than.TASKS.values()]
        words = dict.fromkeys(word for text in chain(texts, *tasks) for word in WORD.findall(text))
        self.ids = {word: place for place, word in enumerate(words, start=2)}

    def __len__(self) -> int:
        return 2 + len(self.ids)

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool = False) -> dict[str, Any]:
        found = [(self.ids.get(one[0], self.unk_token_id), one.span()) for one in WORD.finditer(text)]
        found = [(self.bos_token_id, (0, 0)), *found] if add_special_tokens else found
        return {"input_ids": [token for token, _ in found], "offset_mapping": [span for _, span in found]}


@pytest.fixture(scope="module")
def words() -> Words:
    return Words()


@cache
def model_of(architecture: str, layers: int, heads: int, vocabulary: int) -> BoundModel:
    sizes = {"vocab_size": vocabulary, "max_position_embeddings": 64, **SIZES[architecture]}
    module = random_module(architecture, layers=layers, heads=heads, **sizes)
    return bound(module, architecture, layers=layers, heads=heads)


def model_for(file: SpecFile, words: Words) -> BoundModel:
    shape = file.spec.model
    return replace(model_of(shape.architecture, shape.layers, shape.heads, len(words)), tokenizer=words)


def cut(name: str, folder: Path) -> SpecFile:
    """The spec with a few of its prompts, written anew by a YAML library."""
    file, data = published(name), yaml.safe_load(SPECS[name].read_text(encoding="utf-8"))
    kept = 1 if file.spec.edges else TEMPLATES
    if "file" in data["prompts"]:
        with SPECS[name].with_name(data["prompts"]["file"]).open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
        names = list(dict.fromkeys(row[-1] for row in rows))[:kept]
        rows = [row for one in names for row in [row for row in rows if row[-1] == one][:PAIRS]]
        with (folder / data["prompts"]["file"]).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([header, *rows])
    else:
        data["prompts"]["templates"] = data["prompts"]["templates"][:kept]
        data["prompts"]["per_template"] = PAIRS
    path = folder / SPECS[name].name
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return load_spec(path, root=folder)


def test_all_of_them_are_found() -> None:
    assert len(SPECS) == 16
    assert {path.parent.name for path in SPECS.values()} == {"gpt2", "pythia", "llama2", "gemma"}


def test_lint_finds_nothing_and_tells_that_none_is_verified() -> None:
    result = CliRunner().invoke(main, ["lint", *map(str, SPECS.values())])

    assert result.exit_code == 0
    told = [line for line in result.stdout.splitlines() if ": not verified: " in line]
    assert [line.partition(":")[0] for line in told] == [f"specs/{name}" for name in SPECS]
    assert told == result.stdout.splitlines(), "a notice"


@pytest.mark.parametrize("name", SPECS)
def test_the_choices_that_a_published_number_depends_on_are_written_out(name: str) -> None:
    data = yaml.safe_load(SPECS[name].read_text(encoding="utf-8"))

    assert data["measure"].keys() == {"metric", "position"}
    assert data["ablation"].keys() == {"value", "source", "granularity", "positions", "floor"}
    assert data["source"]
    assert data["verification"]["verified"] is False
    assert "No weights" in data["verification"]["reason"]
    assert "\n# In the literature" in SPECS[name].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SPECS)
def test_every_pair_can_be_asked(name: str, words: Words) -> None:
    file = published(name)
    pairs = pairs_of(file).pairs
    strata = [pair.template for pair in pairs]
    encoded = ask(pairs, model_for(file, words), file.spec.tokens, file.spec.ablation)

    assert len(set(strata)) == 8
    assert {strata.count(template) for template in strata} <= {16, 24}
    assert all(len(row.clean) == len(row.corrupt or ()) for row in encoded)


@pytest.mark.parametrize("name", SPECS)
def test_it_is_measured_on_a_model_of_its_shape(name: str, words: Words, tmp_path: Path) -> None:
    file = cut(name, tmp_path)
    found = Measurements(file, model_for(file, words))
    comparison = Comparison(file, "random", found, found, "random", True, None, None)

    for check in file.spec.declared:
        records = judge(check, comparison).records
        assert records
        assert [record.message for record in records if record.verdict is Verdict.ERROR] == []
        assert [record for record in records if record.value is None and not record.message] == []


@pytest.mark.parametrize("name", SPECS)
def test_its_heads_survive_another_writer_of_yaml(name: str, tmp_path: Path) -> None:
    spec, again = published(name).spec, cut(name, tmp_path).spec

    assert (again.circuit, again.edges, again.members) == (spec.circuit, spec.edges, spec.members)


def test_head_10_is_not_taken_for_head_1() -> None:
    written = re.findall(r'"(\d+)\.(\d+)"', "".join(path.read_text(encoding="utf-8") for path in SPECS.values()))
    named = {str(head) for name in SPECS for head in published(name).spec.member_heads}

    assert {f"L{layer}H{head}" for layer, head in written} == named
    assert {"L10H10", "L8H10", "L9H1", "L0H1", "L0H10"} <= named
    assert "L9H10" not in named


def rows_of(name: str) -> list[tuple[str, str, str, str]]:
    return [(pair.clean, str(pair.corrupt), pair.answer, pair.foil) for pair in pairs_of(published(name)).pairs]


def test_of_two_people_the_one_who_is_named_once_is_the_answer_and_the_twin_has_three_others() -> None:
    found = rows_of("gpt2/ioi")
    for clean, corrupt, answer, foil in found:
        words, others = WORD.findall(clean), WORD.findall(corrupt)
        changed = [(one, other) for one, other in zip(words, others, strict=True) if one != other]
        assert (words.count(answer), words.count(foil)) == (1, 2)
        assert sorted(one for one, _ in changed) == sorted([answer, foil, foil])
        assert len({other for _, other in changed}) == 3
        assert {answer, foil}.isdisjoint(others)
    first = sum(WORD.findall(clean).index(answer) < WORD.findall(clean).index(foil) for clean, _, answer, foil in found)
    assert 40 < first < 88, "one order of the two has too few prompts"


@pytest.mark.parametrize("name", [name for name in SPECS if "greater-than" in name])
def test_of_two_years_the_answer_is_as_much_greater_as_the_foil_is_smaller(name: str) -> None:
    for clean, corrupt, answer, foil in rows_of(name):
        century, year = re.findall(r"(\d\d)(\d\d)\b", clean)[-1]
        assert clean.endswith(f" {century}")
        assert corrupt == clean.replace(f"{century}{year}", f"{century}01")
        assert 1 < int(foil) < int(year) < int(answer) < 99
        assert int(answer) - int(year) == int(year) - int(foil)


@pytest.mark.parametrize("name", [*(f"gpt2/{one}" for one in SEQUENCES), "pythia/successor", "llama2/successor"])
def test_the_answer_follows_the_last_member_and_in_the_twin_the_same_members_are_in_no_order(name: str) -> None:
    tasks = [[word.lower() for word in task.words] for task in successor.TASKS.values()]
    for clean, corrupt, answer, foil in rows_of(name):
        task = next(task for task in tasks if {answer.lower(), foil.lower()} <= {*task})
        shown, mixed = ([word for word in WORD.findall(text) if word.lower() in task] for text in (clean, corrupt))
        places, wrong = ([task.index(word.lower()) for word in words] for words in (shown, mixed))
        steps = [(after - before) % len(task) for before, after in pairwise([*places, task.index(answer.lower())])]
        assert (steps, shown[-1]) == ([1] * 4, foil)
        assert sorted(mixed) == sorted(shown)
        assert 1 not in [(after - before) % len(task) for before, after in pairwise(wrong)]
        assert task[(wrong[-1] + 1) % len(task)] not in (answer.lower(), foil.lower())


def writer() -> ModuleType:
    found = spec_from_file_location("write_prompts", ROOT / "specs/write_prompts.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_prompt_files_are_those_that_the_script_writes() -> None:
    script = writer()

    assert {f"specs/{name}.csv" for name in script.FILES} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "specs").rglob("*.csv") if path.parent.name != "tiny"
    }
    for name in script.FILES:
        assert script.text_of(name) == (ROOT / f"specs/{name}.csv").read_text(encoding="utf-8"), name

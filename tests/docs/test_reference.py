"""The reference is complete and says what the code does: keys, options, verdicts, constants and formats."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from small_models import random_module

import pytest_circuits
from pytest_circuits.baselines import encoding
from pytest_circuits.baselines.reading import ALWAYS, ON_DEMAND
from pytest_circuits.checkpoints.architectures import ARCHITECTURES
from pytest_circuits.checkpoints.attention import dispatches
from pytest_circuits.checks import moves
from pytest_circuits.checks.overview import ANYWHERE, OF_ANSWERS
from pytest_circuits.cli import COMMANDS, main
from pytest_circuits.cli.cache import command as cache
from pytest_circuits.gate.effects import LEAST_STANDARD_ERRORS
from pytest_circuits.records import SEVERITY, HeadEffect, HeadView, Overview, Record
from pytest_circuits.report.heads import LEAST_SCORE, MOST_ROLES
from pytest_circuits.report.json import result_document
from pytest_circuits.report.progress import LIVE, LOG, Progress
from pytest_circuits.report.terminal import BELOW, WORDS
from pytest_circuits.roles.successor import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
SCHEMA = json.loads((ROOT / "pytest_circuits/spec/schema.json").read_text(encoding="utf-8"))


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, as the text of their cells."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    if heading:
        text = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.M)[1]
        text = re.split(r"^#", text, maxsplit=1, flags=re.M)[0]
    tables = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]
    heads = [index - 1 for index, cells in enumerate(split) if set("".join(cells)) <= {"-"}]
    return [cells for index, cells in enumerate(split) if index not in heads and index - 1 not in heads]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# -- spec.md -----------------------------------------------------------------------------------------------------------


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def keys(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every key of the schema below a node: its path, its type and its default, in the words of the page."""
    for key, value in node.get("properties", {}).items():
        here = f"{path}.{key}".strip(".")
        yield here, kind(value), default(key, value, node)
        for variant, suffix in inner(value):
            yield from keys(resolved(variant), here + suffix)


def inner(value: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the mappings that a value may be or hold."""
    for variant in (value, *value.get("anyOf", ()), *value.get("oneOf", ())):
        if "$ref" in variant:
            yield variant, ""
        if "$ref" in variant.get("items", {}):
            yield variant["items"], "[]"
        yield from ((named, ".GROUP") for named in variant.get("patternProperties", {}).values() if "$ref" in named)


def kind(value: dict[str, Any]) -> str:
    variants = [kind(one) for one in (*value.get("anyOf", ()), *value.get("oneOf", ())) if one.get("type") != "null"]
    if variants:
        return ", or ".join(dict.fromkeys(variants))
    if "const" in value or "enum" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "string":
        return "name" if "pattern" in value else "text"
    if value.get("type") == "array":
        return f"list of {kind(value['items'])}"
    words = {"boolean": "true or false", "integer": "integer", "number": "number"}
    return words.get(value.get("type", ""), "mapping") + bounds(value)


def bounds(value: dict[str, Any]) -> str:
    if value.get("type") == "integer":
        low, high = value["minimum"], value.get("maximum")
        return f", at least {low}" if high is None else f", {low} to {high}"
    told = {"exclusiveMinimum": " above {}", "exclusiveMaximum": ", below {}", "maximum": ", at most {}"}
    return "".join(words.format(value[bound]) for bound, words in told.items() if bound in value)


def default(key: str, value: dict[str, Any], node: dict[str, Any]) -> str:
    if key in node.get("required", ()):
        return "required"
    if value.get("default", {}) == {} or isinstance(value.get("default"), dict):
        return "none" if key == "vocabulary" else "optional"
    if value["default"] in (None, "", []):
        return "none"
    plain = value["default"]
    return f"`{json.dumps(plain) if not isinstance(plain, str) or plain != plain.strip() else plain}`"


def test_spec_keys_types_and_defaults_are_those_of_the_schema() -> None:
    documented = [(codes(cells[0])[0], cells[1], cells[2]) for cells in rows("spec.md", "")]

    assert sorted(documented) == sorted(set(keys(SCHEMA)))


def test_every_spec_key_says_what_it_does() -> None:
    assert [cells[0] for cells in rows("spec.md", "") if len(cells[3]) < 10] == []


def test_supported_architectures_are_named() -> None:
    table = rows("architectures.md", "Architectures")

    assert [codes(cells[0])[0] for cells in table] == sorted(ARCHITECTURES)


SINCE_TRANSFORMERS_5_24 = {"codegen", "gptj"}
"""Architectures that call their attention by name in newer libraries only."""


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (
            "queries cannot be replaced",
            lambda row, module: not dispatches(module) and row.model_type not in SINCE_TRANSFORMERS_5_24,
        ),
        ("pass a norm before they are added", lambda row, module: row.attention_adds and row.mlp_adds),
        ("mixture of experts", lambda row, module: any("expert" in name for name, _ in module.named_parameters())),
        ("no role `successor`", lambda row, module: row.value_layout == "latent"),
        ("a part of each head's attention goes nowhere", lambda row, module: row.sinks),
        ("refused with `", lambda row, module: row.needs),
    ],
)
def test_what_is_particular_of_an_architecture_is_true(words: str, holds: Callable[..., Any]) -> None:
    told = {codes(cells[0])[0] for cells in rows("architectures.md", "Architectures") if words in cells[2]}

    assert told == {name for name, row in ARCHITECTURES.items() if holds(row, random_module(name))}


# -- command-line.md ---------------------------------------------------------------------------------------------------


def test_options_and_ini_keys_are_those_that_pytest_tells(pytester: pytest.Pytester) -> None:
    told = pytester.runpytest_inprocess("--help").stdout.str()
    options = dict(re.findall(r"^  (--circuits-[a-z-]+)(?:=(\S+))?", told, re.M))
    ini = set(re.findall(r"^  (circuits_[a-z_]+) \(", told, re.M))
    table = rows("command-line.md", "pytest")

    assert {codes(cells[0])[0] for cells in table if cells[0]} == set(options)
    assert {codes(cells[1])[0] for cells in table if cells[1]} == ini
    for cells in table:
        choices = options.get(codes(cells[0])[0], "") if cells[0] else ""
        if choices.startswith("{"):
            assert codes(cells[2]) == choices.strip("{}").split(",")


def test_defaults_of_settings_are_those_of_the_ini_keys(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    for cells in rows("command-line.md", "pytest"):
        stored = config.getini(codes(cells[1])[0]) if cells[1] else ""
        if stored not in ("", []):
            assert codes(cells[3]) == [str(stored).lower()]


@pytest.mark.parametrize("name", [*COMMANDS, *(f"cache {name}" for name in cache.commands)])
def test_a_command_is_told_with_its_options(name: str) -> None:
    group, _, inner = name.partition(" ")
    command = cache.commands[inner] if inner else main.get_command(click.Context(main), group)
    options = {option.opts[0] for option in command.params if isinstance(option, click.Option)}

    assert {codes(cells[0])[0] for cells in rows("command-line.md", f"pytest-circuits {name}")} == options


def test_no_command_is_told_that_does_not_exist() -> None:
    told = re.findall(r"^### pytest-circuits (\w+)$", (REFERENCE / "command-line.md").read_text(), re.M)

    assert sorted(told) == sorted(COMMANDS)


def test_the_line_of_an_item_that_measures_is_the_one_on_the_page() -> None:
    times = iter([0.0, 60.0, 60.0 + 199.5 * 119 / 648])
    watched = Progress("specs/tiny/verb-agreement", LIVE, lambda: next(times))
    for done in (1, 120):
        watched.heard("tuned: one head out", done, 768)
    page = (REFERENCE / "command-line.md").read_text(encoding="utf-8")

    assert f"\n{watched.line(79)}\n" in page
    assert "longer than a second" in page
    assert "ten times a second" in page
    assert f"every {LOG.every:.0f} seconds" in page
    assert (LIVE.after, LIVE.every, LOG.after) == (1, 0.1, LOG.every)


# -- verdicts.md, numbers.md, roles.md ---------------------------------------------------------------------------------


def test_verdicts_stand_in_the_order_of_their_severity_with_the_words_of_the_table() -> None:
    table = [(codes(cells[0])[0], codes(cells[1])[0]) for cells in rows("verdicts.md", "Verdicts")]
    expected = [(str(verdict), WORDS[verdict]) for verdict in SEVERITY]

    assert [row for row in table if row[1] != BELOW] == expected
    assert ("drift", BELOW) in table


def test_the_words_of_a_failed_heads_check_are_the_ones_that_it_uses() -> None:
    used = set(re.findall(r'"([a-z ]+)"', inspect.getsource(moves.fate))) - {"share", "strength", "keep"}

    assert {cells[0] for cells in rows("verdicts.md", "Words in a failed `heads` check")} == used


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        (REFERENCE / "verdicts.md", "Causes of `error`"),
        (ROOT / "docs/how-to/update-a-baseline.md", "When it is refused"),
    ],
    ids=["verdicts", "update"],
)
def test_messages_that_a_page_quotes_are_in_the_code(page: Path, heading: str) -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in Path(pytest_circuits.__file__).parent.rglob("*.py"))
    texts = [text for cells in rows(str(page), heading) for text in codes(cells[0])]

    assert texts
    assert [part for text in texts for part in re.split("…|\\.\\.\\.", text) if part.strip() not in code] == []


@pytest.mark.parametrize(
    ("page", "heading"),
    [("numbers.md", "Constants"), ("command-line.md", "Constants of discover")],
    ids=["numbers", "discover"],
)
def test_constants_have_the_values_of_the_code(page: str, heading: str) -> None:
    for _, value, where in rows(page, heading):
        module, _, name = codes(where)[0].rpartition(".")
        assert float(value) == getattr(import_module(f"pytest_circuits.{module}"), name), name


def test_metrics_are_those_of_the_schema() -> None:
    metrics = [codes(cells[0])[0] for cells in rows("numbers.md", "Metrics")]

    assert metrics == SCHEMA["definitions"]["Measure"]["properties"]["metric"]["enum"]


def test_claims_are_those_that_the_checks_make() -> None:
    folder = Path(pytest_circuits.__file__).parent / "checks"
    code = "\n".join((folder / f"{check}.py").read_text() for check in SCHEMA["definitions"]["Claims"]["properties"])
    code += (folder / "case.py").read_text()

    documented = {codes(cells[1])[0] for cells in rows("numbers.md", "Claims")}
    made = set(re.findall(r'(?:claim\(|Claim\(|name=)\s*"([a-z_]+)"', code))
    assert documented == made


def test_successor_tasks_are_those_that_are_scored() -> None:
    documented = [
        (cells[0], *cells[1].split(" to "), cells[2] == "yes")
        for cells in rows("roles/successor.md", "How it is measured")
    ]

    assert documented == [(name, task.words[0], task.words[-1], task.cyclic) for name, task in TASKS.items()]


# -- files -------------------------------------------------------------------------------------------------------------


def first_cells(page: str, heading: str) -> list[str]:
    return [codes(cells[0])[0] for cells in rows(page, heading)]


def test_the_result_file_has_the_keys_that_are_told() -> None:
    document = result_document(
        complete=True, collected=[], results=[], specs={}, checkpoints={}, environment={}, unverified={}
    )

    assert first_cells("result-file.md", "The result file") == list(document)
    assert first_cells("result-file.md", "A record") == [field.name for field in fields(Record)]
    assert first_cells("result-file.md", "A head") == [field.name for field in fields(HeadEffect)]


def test_the_json_of_heads_has_the_keys_that_are_told() -> None:
    told = first_cells("command-line.md", "What heads writes as JSON")

    assert told == ["format", *(field.name for field in fields(Overview))]
    assert first_cells("command-line.md", "A head in that JSON") == [field.name for field in fields(HeadView)]


def test_the_roles_that_heads_scores_are_those_of_the_code() -> None:
    page = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"- \*\*Roles\*\*(.*?)every prompt", page, re.S)

    assert codes(told.replace("\n", " ")) == [*ANYWHERE, *OF_ANSWERS]
    assert f"at most {MOST_ROLES} scores, and none below {LEAST_SCORE}" in page
    assert f"at least {LEAST_STANDARD_ERRORS:g} of its standard errors" in page


def test_the_baseline_has_the_keys_that_are_told() -> None:
    told = first_cells("baseline-file.md", "The baseline file")

    assert sorted(told) == sorted([*encoding.KEYS, "sha256", *ALWAYS, *ON_DEMAND])

"""The JSON Schema that editors read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pytest_circuits.spec
from pytest_circuits.spec.json_schema import json_schema, keys_at, schema_text

STORED = Path(pytest_circuits.spec.__file__).parent / "schema.json"


def test_the_stored_schema_is_the_generated_one() -> None:
    assert STORED.read_text(encoding="utf-8") == schema_text(), (
        "run: pytest-circuits schema --output pytest_circuits/spec/schema.json"
    )


def test_the_schema_speaks_draft_7() -> None:
    words = {key for node in _nodes(json_schema()) for key in node}

    assert json.loads(schema_text())["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert not words & {"$defs", "prefixItems", "unevaluatedProperties", "dependentSchemas", "discriminator"}


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    references = [node["$ref"] for node in _nodes(schema) if isinstance(node.get("$ref"), str)]

    assert references
    assert all(reference.removeprefix("#/definitions/") in schema["definitions"] for reference in references)


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (
            (),
            [
                "format",
                "about",
                "source",
                "verification",
                "model",
                "tokens",
                "prompts",
                "measure",
                "ablation",
                "circuit",
                "edges",
                "claims",
                "rates",
            ],
        ),
        (("prompts",), ["include", "vocabulary", "templates", "per_template", "seed", "file"]),
        (("prompts", "templates", 3), ["id", "text", "answer", "flip"]),
        (("circuit", "any"), ["heads", "mlps", "layers", "embed", "role"]),
        (("circuit", "any", "role"), ["name", "to", "at_least", "percentile_at_least", "effect"]),
        (("claims", "necessity"), ["of", "at_least", "drift_at_most"]),
        (("about",), []),
    ],
)
def test_the_keys_that_are_known_at_a_path_are_those_of_the_schema(
    path: tuple[str | int, ...], keys: list[str]
) -> None:
    assert keys_at(path) == keys


def _nodes(node: object) -> list[dict[str, object]]:
    if isinstance(node, dict):
        return [node, *(deep for value in node.values() for deep in _nodes(value))]
    return [deep for value in node for deep in _nodes(value)] if isinstance(node, list) else []

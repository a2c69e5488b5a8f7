"""The JSON Schema of spec files: what editors read, and which keys are known where."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from .schema import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .document import Path


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec file in the words of draft 7, which YAML editors read."""
    schema = Spec.model_json_schema(ref_template="#/definitions/{model}")
    schema["definitions"] = schema.pop("$defs")
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def schema_text() -> str:
    """Return the JSON Schema as the file `schema.json` beside this module holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"


def keys_at(path: Path) -> list[str]:
    """Return the keys that the schema knows in the mapping at a path."""
    nodes = list(_variants(json_schema()))
    for part in path:
        nodes = [deep for node in nodes for child in _children(node, part) for deep in _variants(child)]
    return list(dict.fromkeys(key for node in nodes for key in node.get("properties", {})))


def _variants(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema node and its alternatives, references followed."""
    yield node
    if "$ref" in node:
        yield from _variants(json_schema()["definitions"][node["$ref"].rpartition("/")[2]])
    for alternative in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _variants(alternative)


def _children(node: dict[str, Any], part: str | int) -> Iterator[dict[str, Any]]:
    """Yield the schemas of what stands at a key or an index of a node."""
    if isinstance(part, int):
        candidates = [node.get("items")]
    else:
        candidates = [node.get("properties", {}).get(part), *node.get("patternProperties", {}).values()]
    yield from (child for child in candidates if isinstance(child, dict))

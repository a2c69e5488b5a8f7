"""A baseline as text: sorted, 6 significant digits, sealed with a sha256, made to be read in a git diff."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any, NoReturn

from ..records import PER_PROMPT
from .reading import ALWAYS, LATER, ON_DEMAND, Baseline, Reference, StoredReading

FORMAT = 1
ROW = 8  # items a line: a number that gains a digit must not move the lines after it
LARGEST = 1e39  # no two logits in float32 are further apart, and sums of squares below it stay finite
TEXTS = ("circuit", "identity", "created", "reason")
KEYS = {"format", "reference", "measured", "environment", *TEXTS}


def body(baseline: Baseline) -> dict[str, Any]:
    """Return what the file holds apart from its seal, as plain builtins.

    Raises:
        ValueError: a part's shape is not what `decode` would read back.
    """
    plain = {
        "format": FORMAT,
        "circuit": baseline.circuit,
        "identity": baseline.identity,
        "reference": asdict(baseline.reference),
        "measured": dict(baseline.measured.parts),
        "environment": dict(baseline.environment),
        "created": baseline.created,
        "reason": baseline.reason,
    }
    _check(plain)
    return plain


def encode(baseline: Baseline) -> str:
    """Return the whole file: the same text for the same baseline."""
    plain = body(baseline)
    return _layout(plain | {"sha256": digest(plain)}) + "\n"


def decode(text: str) -> Baseline:
    """Return the baseline that `encode` wrote.

    Raises:
        ValueError: the text is damaged; its message says how.
    """
    plain = unsealed(text, FORMAT)
    _check(plain)
    return Baseline(
        reference=Reference(**plain["reference"]),
        measured=StoredReading(plain["measured"], plain["circuit"]),
        environment=plain["environment"],
        **{name: plain[name] for name in TEXTS},
    )


def unsealed(text: str, version: int) -> dict[str, Any]:
    """Return the body of a JSON object whose `format` is the version and whose `sha256` is that of the rest.

    Raises:
        ValueError: the text is damaged; its message says how.
    """
    try:
        return _unsealed(json.loads(text, parse_constant=_refuse), version)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None


def _unsealed(plain: Any, version: int) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ValueError("it is not a JSON object")
    if plain.get("format") != version:
        raise ValueError(f"its format is {plain.get('format')!r:.40}, and this version reads format {version}")
    seal = plain.pop("sha256", None)
    if seal != digest(plain):
        raise ValueError("its content does not match its sha256, so it was edited or merged by hand")
    return plain


def digest(plain: Any) -> str:
    """Return the sha256 of the canonical JSON of plain builtins; ValueError where one is NaN or infinite."""
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, and every number must be finite")


def _layout(value: Any, margin: str = "") -> str:
    """Return JSON with sorted keys, one key a line, and lists in rows of `ROW` items."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        rows = [f"{json.dumps(key)}: {_layout(item, inner)}" for key, item in sorted(value.items())]
        opening, closing = "{", "}"
    elif isinstance(value, list) and len(value) > ROW:
        rows = [", ".join(map(json.dumps, value[start : start + ROW])) for start in range(0, len(value), ROW)]
        opening, closing = "[", "]"
    else:
        return json.dumps(value)
    return f"{opening}\n{inner}" + f",\n{inner}".join(rows) + f"\n{margin}{closing}"


def _check(plain: dict[str, Any]) -> None:
    """Raise ValueError unless every key is there and every part has its shape."""
    if plain.keys() != KEYS:
        raise ValueError(f"it should have the keys {sorted(KEYS)}, and has {sorted(plain)}")
    reference, environment = plain["reference"], plain["environment"]
    _expect(all(isinstance(plain[name], str) for name in TEXTS), f"{', '.join(TEXTS)} must be text")
    _expect(
        isinstance(reference, dict)
        and reference.keys() == {"name", "source", "fingerprint", "revision"}
        and all(isinstance(value, str) for name, value in reference.items() if name != "revision")
        and isinstance(reference["revision"], str | None),
        "reference must have the texts name, source, fingerprint and revision",
    )
    _expect(
        isinstance(environment, dict) and all(isinstance(value, str) for value in environment.values()),
        "environment must map texts to texts",
    )
    _check_parts(plain["measured"])


def _check_parts(parts: Any) -> None:
    names = {*ALWAYS, *ON_DEMAND}
    _expect(
        isinstance(parts, dict) and names - {*LATER} <= parts.keys() <= names,
        f"measured must have the parts {sorted(names - {*LATER})}, and may have {' and '.join(LATER)}",
    )
    templates = parts["templates"]
    _expect(
        isinstance(templates, list) and bool(templates) and all(isinstance(name, str) for name in templates),
        "the part 'templates' must be a list of texts, one a prompt",
    )
    for name in (*ALWAYS, *ON_DEMAND):
        if name != "templates" and (parts.get(name) is not None or name in ALWAYS):
            check_part(name, parts[name], prompts=len(templates))


def check_part(name: str, value: Any, *, prompts: int) -> None:
    """Raise ValueError unless a part, or an entry of one such as `heads.L2H0`, has its shape."""
    part, dot, _ = name.partition(".")
    if part in ("heads", "roles", "attribution", "edges") and not dot:
        keys = part if part in ("roles", "edges") else "heads"
        _expect(isinstance(value, dict), f"the part {part!r} must map {keys} to values")
        for entry, inner in value.items():
            check_part(f"{part}.{entry}", inner, prompts=prompts)
    elif part in ("roles", "successor"):
        _check_role(name, value, prompts)
    elif part == "noise":
        _expect(is_number(value) and value >= 0, "the part 'noise' must be a number of at least 0")
    else:
        _expect(
            isinstance(value, list) and len(value) == prompts and all(map(is_number, value)),
            f"the part {name!r} must be {prompts} numbers, one a prompt",
        )


def _check_role(name: str, heads: Any, prompts: int) -> None:
    """Raise ValueError unless every head has the same numbers of a role, and of those of prompts one a prompt."""
    _expect(
        isinstance(heads, dict) and bool(heads) and all(isinstance(one, dict) and bool(one) for one in heads.values()),
        f"the part {name!r} must map each head to its numbers, by name",
    )
    for head, named in heads.items():
        for factor, numbers in named.items():
            count = f"{prompts} numbers, one a prompt" if factor in PER_PROMPT else "numbers, at least one"
            _expect(
                isinstance(numbers, list)
                and bool(numbers)
                and (factor not in PER_PROMPT or len(numbers) == prompts)
                and all(map(is_number, numbers)),
                f"{factor!r} of {head!r} in the part {name!r} must be {count}",
            )
    shapes = {tuple(sorted((factor, len(numbers)) for factor, numbers in named.items())) for named in heads.values()}
    _expect(len(shapes) == 1, f"the part {name!r} must have as many numbers of every head, under the same names")


def is_number(value: Any) -> bool:
    """Say whether a value is a number that can have been measured."""
    return type(value) in (int, float) and abs(value) < LARGEST


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)

"""A baseline as text: sorted, 6 significant digits, sealed with a sha256, made to be read in a git diff."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any, NoReturn

from .reading import ALWAYS, ON_DEMAND, Baseline, Reference, StoredReading

FORMAT = 1
ROW = 8  # items a line: a number that gains a digit must not move the lines after it
TEXTS = ("circuit", "identity", "created", "reason")
KEYS = {"format", "reference", "measured", "environment", *TEXTS}
PER_PROMPT = ("clean", "clean_logit_diff", "corrupt", "circuit", "knockout", "floor")


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
    _expect(isinstance(parts, dict) and parts.keys() == names, f"measured must have the parts {sorted(names)}")
    templates = parts["templates"]
    _expect(
        isinstance(templates, list) and bool(templates) and all(isinstance(name, str) for name in templates),
        "the part 'templates' must be a list of texts, one a prompt",
    )
    _expect(_is_number(parts["noise"]) and parts["noise"] >= 0, "the part 'noise' must be a number of at least 0")
    lists = {name: parts[name] for name in PER_PROMPT}
    for part in ("heads", "attention"):
        lists |= _entries(parts, part)
    for name, numbers in lists.items():
        if name in ON_DEMAND and numbers is None:
            continue
        _expect(
            isinstance(numbers, list) and len(numbers) == len(templates) and all(map(_is_number, numbers)),
            f"the part {name!r} must be {len(templates)} numbers, one a prompt",
        )
    for name, tasks in _entries(parts, "successor").items():
        _expect(
            isinstance(tasks, dict) and all(map(_is_count, tasks.values())),
            f"the part {name!r} must map each task to two counts, the first not above the second",
        )


def _entries(parts: dict[str, Any], part: str) -> dict[str, Any]:
    """Return a part's entries by their path `heads.L2H0`; none when the part is absent."""
    entries = parts[part]
    _expect(entries is None or isinstance(entries, dict), f"the part {part!r} must map heads to values")
    return {f"{part}.{head}": entry for head, entry in (entries or {}).items()}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_count(value: Any) -> bool:
    return isinstance(value, list) and [type(part) for part in value] == [int, int] and 0 <= value[0] <= value[1]


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)

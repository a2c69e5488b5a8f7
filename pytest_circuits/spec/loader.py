"""A spec file becomes a `SpecFile`, or a SpecError that lists every problem with file:line:col."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from ..errors import SpecError
from .document import LARGEST_FILE, Document, Place, Problem, read_document
from .includes import file_inside, merge_includes
from .rules import broken_rules
from .schema import Spec
from .wording import note_odd_numbers, note_refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".circuit.yaml"


@dataclass(frozen=True)
class SpecFile:
    """A spec and the file that it came from.

    `circuit` is its id everywhere: the path from the root with `/`, without `.circuit.yaml`. `lines` holds the line of
    each key and item, from 1. `sha256` is of the file's bytes. `measured` is what changes a measurement, as plain
    builtins by section: it stays when a limit, a comment or a checkpoint changes.
    """

    path: Path
    circuit: str
    spec: Spec
    lines: Mapping[tuple[str | int, ...], int]
    sha256: str
    measured: Mapping[str, Any]

    @cached_property
    def identity(self) -> str:
        """The sha256 of the canonical JSON of `measured`."""
        canonical = json.dumps(self.measured, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def line(self, *path: str | int) -> int:
        """Return the line of a key or item, such as `line("claims", "heads")`, or of what is nearest above it."""
        return next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), 1)

    @property
    def unverified(self) -> str | None:
        """Why nobody has found the circuit to be as stated; None where somebody has, or nothing is said of it."""
        said = self.spec.verification
        return None if said is None or said.verified else " ".join(said.reason.split())

    @property
    def name(self) -> str:
        """How messages call the file: its path from the root."""
        return self.circuit + (SUFFIX if self.path.name.endswith(SUFFIX) else "")


def load_spec(path: Path | str, *, root: Path | str | None = None) -> SpecFile:
    """Read a spec file.

    Args:
        path: the file, which ends in `.circuit.yaml`.
        root: the project's root, by default the current folder; ids count from it, and nothing that the spec names may
            lie outside.

    Raises:
        SpecError: all problems of the file, each `path:line:col: dotted.path: message`.
    """
    path, root = Path(path).absolute(), Path(root or Path.cwd()).absolute()
    name = _from_root(path, root)
    raw = _read(path, name)
    document = read_document(raw, name)
    if isinstance(document.data, dict):
        merge_includes(document, path.parent, root)
        spec = _validate(document)
        contents = _prompt_file(document, path.parent, root)
        if spec is not None and not document.problems:
            return SpecFile(
                path=path,
                circuit=name.removesuffix(SUFFIX),
                spec=spec,
                lines=_lines(document),
                sha256=hashlib.sha256(raw).hexdigest(),
                measured=_measured(spec, contents),
            )
    elif not document.problems:
        document.problem((), "a spec is a mapping that begins with `format: 1`")
    raise SpecError("\n".join(str(problem) for problem in sorted(document.problems, key=lambda it: it.place)))


def _from_root(path: Path, root: Path) -> str:
    """Return the path from the root with `/`; outside the root the whole path."""
    whole = path.absolute()
    for start in (root.absolute(), root.resolve()):
        if whole.is_relative_to(start):
            return whole.relative_to(start).as_posix()
    return whole.as_posix()


def _read(path: Path, name: str) -> bytes:
    """Return the file's bytes, and of a file that is too large only enough to show it."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SpecError(str(Problem(Place(name, 1, 1), (), f"the file cannot be read: {error.strerror}"))) from error


def _validate(document: Document) -> Spec | None:
    """Check the data against the schema and the rules, noting every problem; return the spec if there is one."""
    spec, context = None, _size(document.data)
    try:
        spec = Spec.model_validate(document.data, context=context)
        sections: dict[str, Any] = {name: getattr(spec, name) for name in Spec.model_fields}
    except ValidationError as error:
        note_refusals(document, error.errors(include_url=False))
        sections = _valid_sections(document.data, context)
    note_odd_numbers(document)
    for path, text in broken_rules(sections):
        document.problem(path, text)
    return spec


def _size(data: dict[str, Any]) -> dict[str, int]:
    """Return the model's layers and heads as far as they are numbers, so that components are checked against them."""
    model = data.get("model")
    found = {axis: model.get(axis) for axis in ("layers", "heads")} if isinstance(model, dict) else {}
    return {axis: size for axis, size in found.items() if type(size) is int and size > 0}


def _valid_sections(data: dict[str, Any], context: dict[str, int]) -> dict[str, Any]:
    """Return the sections that the schema accepts by themselves, so that the rules can speak of them at once."""
    found: dict[str, Any] = {}
    for name, field in Spec.model_fields.items():
        if name in data:
            adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
            with suppress(ValidationError):  # noted already
                found[name] = adapter.validate_python(data[name], context=context)
        elif not field.is_required():
            found[name] = field.get_default(call_default_factory=True)
    return found


def _prompt_file(document: Document, folder: Path, root: Path) -> bytes | None:
    """Return the bytes of the prompt file, noting a problem where there is none to read."""
    prompts = document.data.get("prompts")
    text = prompts.get("file") if isinstance(prompts, dict) else None
    if not isinstance(text, str):
        return None
    found = file_inside(document, ("prompts", "file"), text, folder, root)
    return None if found is None else found[1]


def _lines(document: Document) -> dict[tuple[str | int, ...], int]:
    """Return the lines of the file's own keys and items, not of what it includes."""
    places = {**document.values, **document.keys}
    return {path: place.line for path, place in places.items() if place.file == document.name}


def _measured(spec: Spec, prompt_file: bytes | None) -> dict[str, Any]:
    """Return what changes a measurement; of a prompt file it is the content."""
    return {
        "tokens": spec.tokens.model_dump(),
        "prompts": spec.prompts.model_dump(exclude={"include"})
        if prompt_file is None
        else {"sha256": hashlib.sha256(prompt_file).hexdigest()},
        "measure": spec.measure.model_dump(),
        "ablation": spec.ablation.model_dump(),
        **_of_claims(spec),
        "circuit": {
            "members": [str(part) for part in sorted(spec.members, key=str)],
            "embed": spec.embed,
            "roles": {key: [str(head) for head in spec.movers(key)] for key in spec.roles},
            "knockout": spec.necessity_of,
        },
    }


def _of_claims(spec: Spec) -> dict[str, Any]:
    """Return what single claims measure, of those that are declared: another spec's identity knows nothing of them."""
    attribution, heads = spec.claims.attribution, [str(head) for head in spec.roles.get("successor", ())]
    found: dict[str, Any] = {} if attribution is None else {"attribution": attribution.method}
    if spec.claims.edges is not None:
        found["edges"] = sorted(spec.edges)
    return found if spec.claims.successor is None else {**found, "successor": heads}

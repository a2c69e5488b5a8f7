"""A spec's reading of a checkpoint, part by part from the cache; what the cache lacks is measured and put there."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..baselines.encoding import check_part, digest, is_number
from ..baselines.reading import Parts, arrays, names, of_role, plain_part
from ..checkpoints.devices import describe_device
from ..gate.controls import RandomCircuits
from ..gate.limits import model_heads
from ..records import EDGES_ALONE, EDGES_NONE, EDGES_OUT
from ..spec.roles import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..baselines.cache import Cache
    from ..checkpoints.handle import CheckpointModel
    from ..records import OfRole, PerPrompt
    from ..spec.loader import SpecFile
    from .measurements import Measurements

FORMAT = 1
PACKAGE = Path(__file__).parents[1]
MEASURING = (
    *("checkpoints", "engine", "attribution", "roles", "prompts"),
    *("checks/measurements.py", "checks/cached.py", "gate/controls.py", "gate/estimates.py"),
)
"""The source of what lies between a spec and its numbers; what the spec asks for stands in the key itself."""
VERSIONED = ("pytest-circuits", "torch", "transformers", "tokenizers", "numpy")


@cache
def instrument() -> Mapping[str, str]:
    """Return what measures: versions, the kind of processor, and the sha256 of our own measuring source."""
    source = hashlib.sha256()
    for place in (PACKAGE / name for name in MEASURING):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            source.update(f"{path.relative_to(PACKAGE).as_posix()}:{content}\n".encode())
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {name: version(name) for name in VERSIONED}
    return {**versions, "python": python, "processor": platform.machine(), "source": source.hexdigest()}


@dataclass(frozen=True)
class Key:
    """Says under which key a part of a spec's reading of a checkpoint is kept."""

    file: SpecFile
    model: CheckpointModel

    def of(self, part: str) -> str:
        """Return the sha256 of everything that the part's numbers depend on."""
        return digest({**self._same, "part": part, "spec": asked(self.file, part)})

    @cached_property
    def _same(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "checkpoint": self.model.fingerprint,
            "dtype": self.model.dtype,
            "device": describe_device(self.model.device),
            "instrument": instrument(),
        }


def asked(file: SpecFile, part: str) -> dict[str, Any]:
    """Return what of a spec a part depends on, so that what it does not depend on may change."""
    measured, controls = file.measured, file.spec.claims.controls
    circuit = measured["circuit"]
    members = {"members": circuit["members"], "embed": circuit["embed"]}
    own: dict[str, dict[str, Any]] = {
        "prompts": {"told as": _told_as(file), "refused for": _refused_for(file)},
        "circuit": members,
        "knockout": {**members, "of": circuit["knockout"]},
        "random_circuits": {**members, "match": controls and controls.match},  # their seed is the prompts'
        **{name: {name: measured[name]} for name in ("attribution", "successor", "edges") if name in measured},
        **{f"roles.{key}": {"role": key, "movers": movers} for key, movers in circuit["roles"].items()},
    }
    return {name: measured[name] for name in ("tokens", "prompts", "measure", "ablation")} | own.get(part, {})


def _told_as(file: SpecFile) -> list[Any]:
    """Return the names and lines by which notices about prompts call them."""
    prompts = file.spec.prompts
    lines = [file.line("prompts", "templates", at) for at in range(len(getattr(prompts, "templates", ())))]
    return [file.name, getattr(prompts, "file", None), lines]


def _refused_for(file: SpecFile) -> list[bool]:
    """Return what of the claims and the circuit can refuse prompts without a corrupt twin, as a prompt file's may be.

    Prompts that were fine for fewer claims are so asked again.
    """
    spec = file.spec
    has_file = getattr(spec.prompts, "file", None) is not None
    roles = any(kind_of(key).needs_twin for key in spec.roles)
    return [spec.claims.behaviour is not None, roles] if has_file else []


class Cached(Parts):
    """A `records.Reading` of one spec on one checkpoint: there it says what each part is.

    It holds numbers and texts only. What is measured, and the model, stay with whoever `measure` belongs to, so they
    can be let go of at any time. `cached` says of each part that was read whether it came from the cache.
    """

    def __init__(
        self, file: SpecFile, model: CheckpointModel, *, store: Cache | None, measure: Callable[[], Measurements]
    ) -> None:
        """Read what is to be known of the prompts; where it is not cached, the model is bound and they are encoded.

        Args:
            file: the spec.
            model: a checkpoint of its shape; only `measure` binds it.
            store: where parts are kept; None measures every part.
            measure: gives the live measurements, of which a part runs when it is asked for.

        Raises:
            CircuitsError: the checkpoint or the prompts are refused.
        """
        self.cached: dict[str, bool] = {}
        self._key, self._store, self._measure = Key(file, model), store, measure
        self._model_heads = [str(head) for head in model_heads(file.spec)]
        self._edges = file.spec.edges
        self._successor_heads = [str(head) for head in file.spec.roles.get("successor", ())]
        prompts = self.found_or_measured(
            "prompts", lambda live: {"templates": live.templates, "notices": live.of_prompts}
        )
        self.templates, self.notices = names(prompts["templates"]), names(prompts["notices"])
        self.heads: Mapping[str, PerPrompt] = _Heads(self, self._model_heads)
        self.roles: Mapping[str, OfRole] = _Roles(self, list(file.spec.roles))

    @cached_property
    def random_circuits(self) -> RandomCircuits:
        """Faithfulness of circuits with the same MLPs and other heads."""
        plain = self.found_or_measured("random_circuits", lambda live: asdict(live.random_circuits))
        return RandomCircuits(**{**plain, "faithfulness": tuple(plain["faithfulness"])})

    def part(self, name: str) -> Any:
        """Return a part's JSON form."""
        return self.found_or_measured(name, lambda live: getattr(live, name))

    def found_or_measured(self, name: str, measured: Callable[[Measurements], Any]) -> Any:
        """Return a part's JSON form from the cache, else measure it and put it there: the same numbers either way."""
        found = self.found(name)
        if found is None:
            found = plain_part(measured(self._measure()), _exact)
            self.cached[name] = False
            if self._store is not None:
                self._store.put(self._key.of(name), found)
        return found

    def found(self, name: str) -> Any:
        """Return a part's JSON form if it is cached, else None."""
        found = None if self._store is None else self._store.get(self._key.of(name))
        if found is None or not self._has_shape(name, found):
            return None
        self.cached[name] = True
        return found

    def _has_shape(self, name: str, found: Any) -> bool:
        """Say whether a part's JSON form is one that measuring could have given here; another is measured again."""
        if name == "prompts":
            return _is_prompts(found)
        if name == "random_circuits":
            return _is_random_circuits(found)
        try:
            check_part(name, found, prompts=len(self.templates))
        except ValueError:
            return False
        if name == "edges":
            return set(found) == {EDGES_ALONE, EDGES_OUT, EDGES_NONE, *self._edges}
        if name == "successor":
            return set(found) == set(self._successor_heads)
        of_heads = name in ("heads", "attribution") or name.startswith("roles.")
        return not of_heads or found.keys() == set(self._model_heads)


class _Heads(Mapping[str, "PerPrompt"]):
    """The runs with one head out: one entry for all of them, and one for each head that was asked for alone.

    As in a live reading, who goes through them gets all in one sweep, and who asks for one gets that one: a role needs
    only its own head's. An entry a head would be a thousand files for a model of a thousand heads, an entry a layer
    would make a role pay for its whole layer.
    """

    def __init__(self, reading: Cached, heads: list[str]) -> None:
        self._reading, self._heads = reading, heads
        self._made: dict[str, PerPrompt] = {}

    def __getitem__(self, head: str) -> PerPrompt:
        if head not in self._heads:
            raise KeyError(head)
        if head not in self._made:
            swept = self._reading.found("heads")
            if swept is None:
                one = self._reading.found_or_measured(f"heads.{head}", lambda live: live.heads[head])
            self._made |= arrays({head: one} if swept is None else swept)
        return self._made[head]

    def __iter__(self) -> Iterator[str]:
        if len(self._made) < len(self._heads):
            self._made = dict(arrays(self._reading.part("heads")))
        return iter(self._heads)

    def __len__(self) -> int:
        return len(self._heads)


class _Roles(Mapping[str, "OfRole"]):
    """What the roles' scores are made of: an entry for each role, with all heads of the model."""

    def __init__(self, reading: Cached, keys: list[str]) -> None:
        self._reading, self._keys = reading, keys
        self._made: dict[str, OfRole] = {}

    def __getitem__(self, key: str) -> OfRole:
        if key not in self._keys:
            raise KeyError(key)
        if key not in self._made:
            found = self._reading.found_or_measured(f"roles.{key}", lambda live: live.roles[key])
            self._made[key] = of_role(found)
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _is_prompts(found: Any) -> bool:
    if not isinstance(found, dict) or found.keys() != {"templates", "notices"} or not found["templates"]:
        return False
    return all(isinstance(texts, list) and all(isinstance(one, str) for one in texts) for texts in found.values())


def _is_random_circuits(found: Any) -> bool:
    kinds = {"faithfulness": list, "possible": int, "exhaustive": bool}
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != kinds:
        return False
    return all(map(is_number, found["faithfulness"]))


def _exact(number: Any) -> float:
    """Return a number as a builtin of the same value; what is whole stays whole."""
    return number if isinstance(number, int) else float(number)

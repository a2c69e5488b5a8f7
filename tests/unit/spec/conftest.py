"""A good spec to break, and what the loader says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_circuits.errors import SpecError
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = """\
format: 1
about: a test
model: {checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 12}
tokens: {bos: auto, join: " "}
prompts:
  vocabulary:
    subject: {singular: [dog, author, key], plural: [dogs, authors, keys]}
    verb: {singular: [is, was], plural: [are, were]}
    near: [near, behind]
    unused: [words, that, nothing, names]
  templates:
    - {id: near, text: "the {subject} {near} it", answer: "{verb}", flip: subject}
    - {id: plain, text: "the {subject}", answer: "{verb}", flip: subject}
  per_template: 16
  seed: 1
measure: {metric: logit_diff, position: last}
ablation: {value: resample, source: corrupt, positions: all, floor: empty, align: equal}
circuit:
  number_mover: {heads: [L2H0, L3.attn], role: {name: number_mover, at_least: 0.5}}
  readers: {mlps: [L0.mlp], layers: [L1], embed: true}
claims:
  behaviour: {accuracy_at_least: 0.90, loss_at_most: 0.20}
  heads: {share_drift_at_most: 0.10, keep_at_least: 0.5}
  roles:
rates: {false_alarm: 0.01, missed_drift: 0.01}
"""


class Project:
    """A folder with specs; `broken` returns the good spec with a part of its text replaced."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, text: str | bytes, name: str = "specs/a.circuit.yaml") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def load(self, text: str | bytes = GOOD) -> SpecFile:
        return load_spec(self.write(text), root=self.root)

    def problems(self, text: str | bytes) -> list[str]:
        with pytest.raises(SpecError) as caught:
            self.load(text)
        return str(caught.value).split("\n")


def broken(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the good spec"
        text = text.replace(old, new)
    return text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def change() -> Callable[..., str]:
    return broken

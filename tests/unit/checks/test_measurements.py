"""What a spec measures equals a naive loop: one prompt at a time, plain hooks, no batches."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.checks import measurements
from pytest_circuits.checks.measurements import Measurements
from pytest_circuits.errors import CheckpointRefused
from pytest_circuits.spec.components import Head
from pytest_circuits.spec.loader import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.pair import Pair
    from pytest_circuits.spec.loader import SpecFile

LAYERS, HEADS, WIDTH = 4, 4, 32
EVERY_HEAD = {(layer, head) for layer in range(LAYERS) for head in range(HEADS)}
NAMED, NAMED_MLPS = {(1, 1), (2, 0)}, {0, 2}
SPEC = """\
format: 1
model: {{checkpoint: "builtin:tiny", architecture: gpt2, layers: 4, heads: 4}}
prompts:
  vocabulary:
    subject: {{singular: [dog, author, car, king], plural: [dogs, authors, cars, kings]}}
    verb: {{singular: [is, was], plural: [are, were]}}
    near: [beside, above]
  templates:
    - {{id: long, text: "the {{subject}} {{near}} the lamp", answer: "{{verb}}", flip: subject}}
    - {{id: last, text: "{{near}} the {{subject}}", answer: "{{verb}}", flip: subject}}
  per_template: 8
ablation: {{floor: {floor}}}
circuit:
  heads: {{heads: [L1H1, L2H0]}}
  rest: {{mlps: [L0.mlp, L2.mlp], embed: {embed}}}
claims: {{necessity: {{of: {of}}}}}
"""


@pytest.fixture(scope="module")
def tiny() -> BoundModel:
    return open_checkpoint("builtin:tiny", device="cpu").bound


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., SpecFile]:
    def spec(*, of: str = "heads", embed: str = "false", floor: str = "empty") -> SpecFile:
        path = tmp_path / "a.circuit.yaml"
        path.write_text(SPEC.format(of=of, embed=embed, floor=floor))
        return load_spec(path, root=tmp_path)

    return spec


class Naive:
    """The oracle: forwards of single prompts with hooks of its own, by the names that transformers gives to GPT-2."""

    def __init__(self, model: BoundModel) -> None:
        self.module, self.tokenizer = model.module, model.tokenizer
        self.blocks = self.module.transformer.h

    def ids(self, text: str) -> torch.Tensor:
        return torch.tensor([self.tokenizer(text)["input_ids"]])

    def run(self, pair: Pair, hooks: Iterable[tuple[torch.nn.Module, str, Any]], *, corrupt: bool = False) -> float:
        """Return answer minus foil in logits, with these hooks."""
        answer, foil = (
            self.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in (pair.answer, pair.foil)
        )
        with ExitStack() as stack, torch.no_grad():
            for module, kind, hook in hooks:
                stack.enter_context(getattr(module, kind)(hook))
            logits = self.module(self.ids(pair.corrupt if corrupt and pair.corrupt else pair.clean)).logits[0, -1]
        return float(logits[answer] - logits[foil])

    def corrupt_values(self, pair: Pair) -> dict[Any, torch.Tensor]:
        seen: dict[Any, torch.Tensor] = {}
        hooks: list[tuple[torch.nn.Module, str, Any]] = []
        for layer, block in enumerate(self.blocks):

            def keep_z(_: Any, args: Any, layer: int = layer) -> None:
                seen["z", layer] = args[0].clone()

            def keep_mlp(_: Any, args: Any, out: torch.Tensor, layer: int = layer) -> None:
                seen["mlp", layer] = out.clone()

            hooks.append((block.attn.c_proj, "register_forward_pre_hook", keep_z))
            hooks.append((block.mlp, "register_forward_hook", keep_mlp))

        def keep_embedding(_: Any, args: Any, out: torch.Tensor) -> None:
            seen["embed"] = out.clone()

        hooks.append((self.module.transformer.drop, "register_forward_hook", keep_embedding))
        self.run(pair, hooks, corrupt=True)
        return seen

    def ablated(
        self, pair: Pair, heads: set[tuple[int, int]], mlps: Iterable[int] = (), *, embed: bool = False
    ) -> float:
        values = self.corrupt_values(pair)
        hooks: list[tuple[torch.nn.Module, str, Any]] = []
        for layer, head in heads:

            def replace_z(_: Any, args: Any, layer: int = layer, head: int = head) -> Any:
                z, piece = args[0].clone(), slice(head * WIDTH, (head + 1) * WIDTH)
                z[..., piece] = values["z", layer][..., piece]
                return (z, *args[1:])

            hooks.append((self.blocks[layer].attn.c_proj, "register_forward_pre_hook", replace_z))
        for layer in mlps:
            hooks.append((self.blocks[layer].mlp, "register_forward_hook", lambda *_, at=layer: values["mlp", at]))
        if embed:
            hooks.append((self.module.transformer.drop, "register_forward_hook", lambda *_: values["embed"]))
        return self.run(pair, hooks)


@pytest.mark.parametrize("floor", ["empty", "corrupt"])
@pytest.mark.parametrize(("of", "embed"), [("heads", "false"), ("heads", "true"), ("all", "false"), ("all", "true")])
def test_measurements_equal_the_naive_loop(
    of: str, embed: str, floor: str, tiny: BoundModel, spec: Callable[..., SpecFile]
) -> None:
    found = Measurements(spec(of=of, embed=embed, floor=floor), tiny, batch_size=3)
    naive, pairs = Naive(tiny), found.prompts.pairs
    mlps = set(range(LAYERS))
    out = {"heads": ((), False), "all": (NAMED_MLPS, embed == "true")}[of]
    expected = {
        "clean": [naive.run(pair, ()) for pair in pairs],
        "corrupt": [naive.run(pair, (), corrupt=True) for pair in pairs],
        "circuit": [naive.ablated(pair, EVERY_HEAD - NAMED, mlps - NAMED_MLPS) for pair in pairs],
        "knockout": [naive.ablated(pair, NAMED, out[0], embed=out[1]) for pair in pairs],
        "floor": [
            naive.run(pair, (), corrupt=True) if floor == "corrupt" else naive.ablated(pair, EVERY_HEAD, mlps)
            for pair in pairs
        ],
    }

    for part, values in expected.items():
        assert np.abs(getattr(found, part) - values).max() < 1e-4, part
    assert np.abs(found.heads["L2H0"] - [naive.ablated(pair, {(2, 0)}) for pair in pairs]).max() < 1e-4
    assert np.abs(found.knockout - found.clean).max() > 0.1  # what is taken out matters, so equality says something


def test_what_is_taken_out_and_the_floor_tell_the_choices_apart(
    tiny: BoundModel, spec: Callable[..., SpecFile]
) -> None:
    heads, everything, embedded = (
        Measurements(spec(of=of, embed=embed), tiny).knockout
        for of, embed in (("heads", "true"), ("all", "false"), ("all", "true"))
    )
    floors = [Measurements(spec(floor=floor), tiny).floor for floor in ("empty", "corrupt")]

    for one, other in ((heads, everything), (everything, embedded), (heads, embedded), floors):
        assert np.abs(one - other).max() > 0.01  # a hundred times what the oracle may differ


class Shifted:
    """A tokenizer whose word stands beyond what the model has embeddings for, as one that was enlarged alone."""

    def __init__(self, tokenizer: Any, word: str, token: int) -> None:
        self.tokenizer, self.old, self.token = tokenizer, tokenizer.convert_tokens_to_ids(word), token

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        read = self.tokenizer(text, **options)
        return {**read, "input_ids": [self.token if at == self.old else at for at in read["input_ids"]]}


@pytest.mark.parametrize("word", ["beside", "dog", "is", "were"])
def test_a_token_without_an_embedding_is_refused(word: str, tiny: BoundModel, spec: Callable[..., SpecFile]) -> None:
    rows = tiny.module.transformer.wte.weight.shape[0]
    with pytest.raises(CheckpointRefused) as caught:
        Measurements(spec(), replace(tiny, tokenizer=Shifted(tiny.tokenizer, word, rows)))

    text = str(caught.value)
    assert text.startswith(f"refused: the tokenizer of 'tiny' gives token {rows} for 'the ")
    assert f"the model has embeddings for {rows} tokens, counted from 0.\n" in text


def test_the_last_token_that_has_an_embedding_is_measured(tiny: BoundModel, spec: Callable[..., SpecFile]) -> None:
    rows = tiny.module.transformer.wte.weight.shape[0]
    shifted = replace(tiny, tokenizer=Shifted(tiny.tokenizer, "beside", rows - 1))

    assert np.isfinite(Measurements(spec(), shifted).clean).all()


ROLES = """\
  names: {heads: [L3H1, L3H0], role: {name: name_mover}}
  inhibition: {heads: [L1H0], role: {name: s_inhibition}}
  looks: {heads: [L1H2], role: {name: number_mover, to: near}}
"""


def test_a_role_is_read_once_when_it_is_asked_for_with_the_heads_that_it_is_defined_through(
    tiny: BoundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.circuit.yaml"
    near = SPEC.format(of="heads", embed="false", floor="empty").replace("claims:", ROLES + "claims:")
    path.write_text(near)
    read = []

    def read_role(key: str, runs: Any, movers: tuple[Head, ...]) -> dict[Head, dict[str, Any]]:
        read.append((key, movers))
        return {Head(0, 3): {"attention": np.ones(16)}}

    monkeypatch.setattr(measurements, "read_role", read_role)
    found = Measurements(load_spec(path, root=tmp_path), tiny).roles

    assert (list(found), len(found), read) == (["name_mover", "s_inhibition", "number_mover:near"], 3, [])
    assert found["s_inhibition"].keys() == {"L0H3"}
    assert found["s_inhibition"] is found["s_inhibition"]
    assert found["number_mover:near"]["L0H3"]["attention"].sum() == 16
    assert read == [("s_inhibition", (Head(3, 0), Head(3, 1))), ("number_mover:near", ())]


def test_roles_of_a_real_model_have_numbers_of_every_head(tiny: BoundModel, tmp_path: Path) -> None:
    path = tmp_path / "a.circuit.yaml"
    text = SPEC.format(of="heads", embed="false", floor="empty").replace("claims:", ROLES.splitlines()[2] + "\nclaims:")
    path.write_text(text)
    (found,) = Measurements(load_spec(path, root=tmp_path), tiny).roles.values()

    assert found.keys() == {f"L{layer}H{head}" for layer, head in EVERY_HEAD}
    for named in found.values():
        assert {name: values.shape for name, values in named.items()} == {"attention": (16,)}
        assert ((named["attention"] >= 0) & (named["attention"] <= 1)).all()

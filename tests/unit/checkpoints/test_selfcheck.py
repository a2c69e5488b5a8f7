"""Each self-check catches the fault it is there for, planted in the model or in the instrument."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_models import VARIANT_NAMES, bound, random_module

from pytest_circuits.checkpoints import selfcheck
from pytest_circuits.checkpoints.model import BoundModel, Edit, Site
from pytest_circuits.checkpoints.past import Known, Past, Resumed
from pytest_circuits.checkpoints.selfcheck import check_instrument, probe_ids
from pytest_circuits.errors import InstrumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def gpt2() -> BoundModel:
    return bound(random_module("gpt2"), "gpt2")


def with_part(model: BoundModel, **paths: str) -> BoundModel:
    return replace(model, architecture=replace(model.architecture, **paths))


def small(architecture: str, **changes: Any) -> BoundModel:
    return bound(random_module(architecture, **changes), architecture)


@pytest.mark.parametrize("architecture", VARIANT_NAMES)
def test_a_sound_model_passes(architecture: str) -> None:
    check_instrument(small(architecture))


# the row names another part

EXCHANGED = "layer 0: another prompt's heads do not make attention add what it adds there"


def test_heads_read_from_another_module_are_caught(gpt2: BoundModel) -> None:
    with pytest.raises(InstrumentError, match="layer 0: heads put out 96 numbers, the residual has 32"):
        check_instrument(with_part(gpt2, projection="attn.c_attn"))


def test_an_mlp_path_that_is_not_what_is_added_is_caught(gpt2: BoundModel) -> None:
    with pytest.raises(InstrumentError, match="not the block's output|full patch"):
        check_instrument(with_part(gpt2, mlp="ln_2"))


@pytest.mark.parametrize(
    ("architecture", "paths", "complaint"),
    [
        ("bloom", {"mlp_adds": ""}, "layer 0: heads . MLP . input is not the block's output"),  # the residual twice
        ("mpt", {"mlp_adds": ""}, "layer 0: heads . MLP . input is not the block's output"),
        ("granite", {"scale_key": ""}, "layer 0: heads . MLP . input is not the block's output"),
        ("gemma2", {"attention_adds": ""}, "layer 0: heads . MLP . input is not the block's output"),
        ("olmo2", {"mlp_adds": ""}, "layer 0: heads . MLP . input is not the block's output"),
        ("llama", {"attention_adds": "mlp", "mlp_adds": "self_attn"}, EXCHANGED),
        ("phi", {"attention_adds": "mlp", "mlp_adds": "self_attn"}, EXCHANGED),  # side by side
        (
            "gemma2",
            {"attention_adds": "post_feedforward_layernorm", "mlp_adds": "post_attention_layernorm"},
            EXCHANGED,
        ),
        ("gpt_oss", {"sinks": False}, "layer 0: heads do not put out the values that they read"),
        ("gpt2", {"value_layout": "interleaved"}, "layer 0: values are not laid out as 'interleaved'"),
        ("gpt_neox", {"value_layout": "packed"}, "layer 0: values are not laid out as 'packed'"),
        ("falcon-grouped", {"value_layout": "packed"}, "layer 0: values are not laid out as 'packed'"),
        ("codegen", {"value_layout": "packed"}, "layer 0: values are not laid out as 'packed'"),
        ("gptj", {"values": "attn.k_proj"}, "layer 0: values are not laid out as 'own'"),
    ],
)
def test_a_wrong_row_is_caught(architecture: str, paths: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InstrumentError, match=complaint):
        check_instrument(with_part(small(architecture), **paths))


# the hooks


def test_heads_read_behind_the_projection_are_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BoundModel._register

    def behind(model: BoundModel, site: Site, passed: Callable[..., Any]) -> Any:
        if site.kind != "z":
            return plain(model, site, passed)
        return model.part(site.layer, model.architecture.projection).register_forward_hook(
            lambda _, args, output: model._by_head(output, lambda z: passed(site, z))
        )

    monkeypatch.setattr(BoundModel, "_register", behind)

    with pytest.raises(InstrumentError, match="layer 0: heads do not give what their projection puts out"):
        check_instrument(gpt2)


def test_heads_off_by_one_are_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(model: BoundModel, value: torch.Tensor, edit: Edit) -> torch.Tensor:
        return edit(value.unflatten(-1, (model.heads, -1)).roll(1, dims=2)).roll(-1, dims=2).flatten(-2)

    monkeypatch.setattr(BoundModel, "_by_head", shifted)

    with pytest.raises(InstrumentError, match="layer 0: heads"):
        check_instrument(gpt2)


def test_a_hook_that_never_fires_is_caught(gpt2: BoundModel) -> None:
    elsewhere = replace(gpt2, blocks=copy.deepcopy(gpt2.blocks))

    with pytest.raises(InstrumentError, match="should fire once"):
        check_instrument(elsewhere)


def test_a_hook_that_stays_is_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BoundModel._hooked

    @contextmanager
    def leaking(model: BoundModel, watched: Any, passed: Callable[..., Any]) -> Iterator[None]:
        model.blocks[0].register_forward_hook(lambda *_: None)
        with plain(model, watched, passed):
            yield

    monkeypatch.setattr(BoundModel, "_hooked", leaking)

    with pytest.raises(InstrumentError, match="hooks are left on the model"):
        check_instrument(gpt2)


def test_a_model_in_training_mode_is_caught(gpt2: BoundModel) -> None:
    gpt2.blocks[1].train()

    with pytest.raises(InstrumentError, match="training mode, first 'transformer.h.1'"):
        check_instrument(gpt2)


def test_heads_that_do_nothing_are_caught(gpt2: BoundModel) -> None:
    for block in gpt2.blocks:
        block.attn.c_proj.weight.data.zero_()  # type: ignore[union-attr, operator]

    with pytest.raises(InstrumentError, match="zeroing every head changes nothing"):
        check_instrument(gpt2)


def test_a_kept_value_that_the_block_changes_in_place_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    falcon = small("falcon")
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: tensor)

    with pytest.raises(InstrumentError, match="patch with a model's own values|is not the block's output"):
        check_instrument(falcon)


# the forward


def test_a_model_that_reads_padding_is_caught(gpt2: BoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BoundModel._logits

    def maskless(model: BoundModel, ids: torch.Tensor, lengths: torch.Tensor | None, *others: Any) -> torch.Tensor:
        return plain(model, ids, None, *others)

    monkeypatch.setattr(BoundModel, "_logits", maskless)

    with pytest.raises(InstrumentError, match="padding changes the logits"):
        check_instrument(gpt2)


def test_a_mask_that_hides_only_padding_is_caught(gpt2: BoundModel) -> None:
    gpt2.module.config.is_causal = False

    with pytest.raises(InstrumentError, match=r"later tokens change Site\(kind='z', layer=0\)"):
        selfcheck.attention_is_causal_and_padding_inert(gpt2)


@pytest.mark.parametrize(
    ("architecture", "path", "neutral"),
    [
        ("gemma2", "config.final_logit_softcapping", None),
        ("cohere", "logit_scale", 1),
        ("granite", "logits_scaling", 1),
    ],
)
def test_a_reader_that_skips_what_follows_the_unembedding_is_caught(
    architecture: str, path: str, neutral: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(architecture)
    plain = BoundModel._logits
    owner = model.module.config if architecture != "cohere" else model.module
    key = path.rpartition(".")[2]

    def skipping(model: BoundModel, *args: Any) -> torch.Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(owner, key, neutral)
            return plain(model, *args)

    monkeypatch.setattr(BoundModel, "_logits", skipping)

    with pytest.raises(InstrumentError, match="the logits read are not the model's"):
        check_instrument(model)


# a run that starts late


RESUMED = "a run that starts from token 2 and layer 0 is not the whole run"


def test_a_resumed_run_with_positions_from_zero_is_caught(gpt2: BoundModel) -> None:
    def from_zero(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {key: at - at[:, :1] if key == "position_ids" else at for key, at in kwargs.items()}

    gpt2.module.register_forward_pre_hook(from_zero, with_kwargs=True)

    with pytest.raises(InstrumentError, match=RESUMED):
        check_instrument(gpt2)


@pytest.mark.parametrize("architecture", ["bloom", "llama", "mistral"])
def test_a_resumed_run_that_does_not_say_how_much_it_lends_is_caught(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(architecture)
    monkeypatch.setattr(Resumed, "get_seq_length", lambda *_, **__: 0)

    with pytest.raises(InstrumentError, match=RESUMED):
        check_instrument(model)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda lent, copies: lent.flip(0).repeat(copies, 1, 1, 1),
        lambda lent, copies: lent.repeat_interleave(copies, 0),
    ],
    ids=["another row", "another copy"],
)
def test_keys_and_values_of_another_row_are_caught(
    wrong: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small("llama")
    plain = Resumed.__init__

    def exchanged(cache: Resumed, known: Known, *args: Any, **options: Any) -> None:
        layers = {at: (wrong(k, known.copies), wrong(v, known.copies)) for at, (k, v) in known.past.layers.items()}
        plain(cache, replace(known, past=Past(known.past.tokens, layers), copies=1), *args, **options)

    monkeypatch.setattr(Resumed, "__init__", exchanged)

    with pytest.raises(InstrumentError, match=RESUMED):
        check_instrument(model)


# heads and groups


def test_heads_that_read_other_groups_are_caught() -> None:
    llama = small("llama")
    for block in llama.blocks:  # as if the groups alternated from head to head
        block.self_attn.o_proj.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda _, args: (args[0].unflatten(-1, (2, 2, -1)).transpose(-3, -2).flatten(-3), *args[1:])
        )

    with pytest.raises(InstrumentError, match="layer 0: heads do not put out the values that they read"):
        check_instrument(llama)


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        (4, r"layer 0: heads do not put out .* \(found \(2, 4, 8\), expected \(2, 2, 8\)\)"),
        (3, "4 heads cannot share 3"),
    ],
)
def test_another_number_of_groups_is_caught(groups: int, complaint: str) -> None:
    with pytest.raises(InstrumentError, match=complaint):
        check_instrument(replace(small("llama"), groups=groups))


def test_heads_that_the_projection_cannot_have_are_caught(gpt2: BoundModel) -> None:
    with pytest.raises(InstrumentError, match="layer 0: the projection takes 32 numbers, which 5 heads cannot share"):
        check_instrument(replace(gpt2, heads=5))


@pytest.mark.parametrize("kind", ["q", "k"])
def test_queries_or_keys_of_another_head_are_caught(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("gemma2")
    plain = BoundModel.forward

    def other(value: torch.Tensor) -> torch.Tensor:
        return value.flip(2)

    def exchanged(model: BoundModel, *args: Any, **options: Any) -> Any:
        edits = {
            site: (lambda value, edit=edit: other(edit(other(value)))) if site.kind == kind else edit
            for site, edit in (options.pop("edits", None) or {}).items()
        }
        run = plain(model, *args, **options, edits=edits)
        return replace(run, values={at: other(value) if at.kind == kind else value for at, value in run.values.items()})

    monkeypatch.setattr(BoundModel, "forward", exchanged)

    with pytest.raises(InstrumentError, match="layer 0: another prompt's queries, keys and values in one group do not"):
        check_instrument(model)


# the model


def test_weights_that_are_not_finite_are_caught(gpt2: BoundModel) -> None:
    gpt2.blocks[2].mlp.c_fc.weight.data[0, 0] = float("nan")  # type: ignore[union-attr, index]

    with pytest.raises(InstrumentError):
        check_instrument(gpt2)


def test_hooks_are_gone_after_an_edit_that_raises(gpt2: BoundModel) -> None:
    def broken(value: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("planted")

    ids, _ = probe_ids(gpt2)
    with pytest.raises(RuntimeError, match="planted"):
        gpt2.forward(ids, edits={Site("z", 1): broken})

    check_instrument(gpt2)


def test_a_kept_value_is_not_changed_by_what_the_model_does_later(gpt2: BoundModel) -> None:
    ids, _ = probe_ids(gpt2)
    site = Site("mlp", 0)
    expected = gpt2.forward(ids, keep=[site]).values[site]
    handle = gpt2.part(0, "mlp").register_forward_hook(lambda _, a, output: output.mul_(1.0))
    gpt2.blocks[0].register_forward_hook(lambda _, a, output: output.add_(1.0))
    found = gpt2.forward(ids, keep=[site]).values[site]
    handle.remove()

    assert torch.equal(found, expected)

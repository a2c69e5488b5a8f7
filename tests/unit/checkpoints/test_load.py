"""A checkpoint is loaded as transformers loads it, or refused: another model, changed files, what no library reads."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import VARIANT_NAMES, VOCABULARY, change, random_module
from transformers import AutoModelForCausalLM

from pytest_circuits.checkpoints import load
from pytest_circuits.checkpoints.handle import open_checkpoint
from pytest_circuits.errors import CheckpointRefused, PromptError
from pytest_circuits.prompts.encode import encode
from pytest_circuits.prompts.pair import Pair
from pytest_circuits.spec.schema import Ablation, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_circuits.checkpoints.handle import CheckpointModel

IDS = torch.arange(20)[None] * 5


def opened(folder: Path, **options: Any) -> CheckpointModel:
    return open_checkpoint(f"odd={folder}", device="cpu", **options)


def refusal(folder: Path) -> str:
    """What is told when the folder is opened; the handle remembers it."""
    handle = opened(folder)
    with pytest.raises(CheckpointRefused) as first:
        _ = handle.bound
    with pytest.raises(CheckpointRefused) as again:
        _ = handle.bound
    assert first.value is again.value
    return str(first.value)


def plain_logits(folder: Path, ids: torch.Tensor = IDS, **options: Any) -> torch.Tensor:
    """What the library computes by itself."""
    module = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options).eval()
    with torch.inference_mode():
        logits: torch.Tensor = module(ids).logits
    return logits


# the same model as the library's


@pytest.mark.parametrize("architecture", VARIANT_NAMES)
def test_an_opened_model_is_the_librarys(architecture: str, saved: Callable[..., Path]) -> None:
    folder = saved(architecture)

    found = opened(folder).bound.forward(IDS).logits

    torch.testing.assert_close(found, plain_logits(folder)[:, -1])
    with torch.inference_mode():
        torch.testing.assert_close(found, random_module(architecture)(IDS).logits[:, -1])


SCALED = {
    "linear": {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama3": {
        "rope_theta": 300.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        },
    },
}


@pytest.mark.parametrize("kind", SCALED)
def test_older_spellings_of_the_rotation_are_obeyed_as_the_library_does(kind: str, saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    before = plain_logits(folder)[:, -1]
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config | SCALED[kind]))
    found = opened(folder).bound.forward(IDS).logits

    torch.testing.assert_close(found, plain_logits(folder)[:, -1])
    assert (found - before).abs().max() > 1e-2  # the rotation matters, so equality says something


ROTATION = {"rope_parameters": None, "rope_theta": 300.0}
OLDER: list[tuple[str, dict[str, Any]]] = [
    ("cohere2", {"layer_types": None, "sliding_window_pattern": 3}),
    (
        "gemma3_text",
        {**ROTATION, "rope_local_base_freq": 50.0, "layer_types": None, "sliding_window_pattern": 3},
    ),
    ("glm4", {**ROTATION, "partial_rotary_factor": 1.0}),
    ("gpt_neox", {"rope_parameters": None, "rotary_emb_base": 300, "rotary_pct": 0.5}),
    ("phi", {**ROTATION, "partial_rotary_factor": 0.75}),
    ("phi3", {**ROTATION, "partial_rotary_factor": 0.5}),
    ("stablelm", {**ROTATION, "partial_rotary_factor": 0.5}),
]


@pytest.mark.parametrize(("architecture", "changes"), OLDER)
def test_older_spellings_are_obeyed_as_the_library_does(
    architecture: str, changes: dict[str, Any], saved: Callable[..., Path]
) -> None:
    folder = saved(architecture)
    before = plain_logits(folder)[:, -1]
    config = json.loads((folder / "config.json").read_text()) | changes
    gone = {key for key, value in changes.items() if value is None}
    (folder / "config.json").write_text(json.dumps({key: x for key, x in config.items() if key not in gone}))
    found = opened(folder).bound.forward(IDS).logits

    torch.testing.assert_close(found, plain_logits(folder)[:, -1])
    assert (found - before).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("architecture", "key", "older"),
    [
        ("bloom", "hidden_size", "n_embed"),
        ("falcon", "hidden_size", "n_embed"),
        ("qwen3_moe", "num_local_experts", "num_experts"),
    ],
)
def test_another_name_that_the_class_reads_is_obeyed(
    architecture: str, key: str, older: str, saved: Callable[..., Path]
) -> None:
    folder = saved(architecture)
    expected = plain_logits(folder)[:, -1]
    config = json.loads((folder / "config.json").read_text())
    config[older] = config.pop(key)
    (folder / "config.json").write_text(json.dumps(config))

    torch.testing.assert_close(opened(folder).bound.forward(IDS).logits, expected)


def test_half_precision_is_read_in_float32_at_each_rows_own_last_token(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    rows = [IDS[0, :9], IDS[0, 3:7], IDS[0, 5:20]]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    found = opened(folder, dtype="bfloat16").bound.forward(ids, torch.tensor([len(row) for row in rows])).logits
    exact = torch.stack([plain_logits(folder, row[None])[0, -1] for row in rows])
    coarse = torch.stack([plain_logits(folder, row[None], dtype=torch.bfloat16)[0, -1] for row in rows])

    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()
    assert (found - coarse.float()).abs().max() < 0.01 * exact.abs().max()
    assert not torch.equal(found, found.bfloat16().float())  # the read-out itself is not rounded to bfloat16


# a config that the library reads as another model

OTHER_MODELS = [
    ("gpt2", {"num_attention_heads": 8}, "'num_attention_heads' to 8 and 'n_head' to 4: one setting under two names"),
    ("llama", {"is_causal": False}, "'is_causal' to False, expected True or none: LlamaConfig does not declare it"),
    ("gpt2", {"is_causal": False}, "'is_causal' to False, expected True or none"),
    (
        "llama",
        {
            "original_max_position_embeddings": 4,
            "rope_parameters": SCALED["llama3"]["rope_scaling"] | {"rope_theta": 10.0},  # type: ignore[operator]
        },
        "'original_max_position_embeddings' to 4, expected None or none",
    ),
]


@pytest.mark.parametrize(("architecture", "changes", "expected"), OTHER_MODELS)
def test_what_the_library_obeys_undeclared_is_refused(
    architecture: str, changes: dict[str, Any], expected: str, saved: Callable[..., Path]
) -> None:
    folder = saved(architecture, **changes)
    other = plain_logits(folder)
    undeclared = next(iter(changes))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != undeclared}))
    assert (other - plain_logits(folder)).abs().max() > 1e-2  # it is another model

    change(folder / "config.json", **{undeclared: changes[undeclared]})

    assert f"refused: config.json sets {expected}" in refusal(folder)


@pytest.mark.parametrize(
    ("architecture", "changes", "expected"),
    [
        ("mistral", {"layer_types": ["full_attention"] * 3}, "MistralConfig does not declare it"),
        ("llama", {"per_layer_config": {"1": {"attention_bias": False}}}, "LlamaConfig does not declare it"),
        ("llama", {"partial_rotary_factor": 0.5}, "'partial_rotary_factor' to 0.5, expected 1.0 or none"),
        ("llama", {"is_causal": None}, "'is_causal' to None, expected True or none"),
    ],
)
def test_what_no_class_declares_and_the_library_looks_for_is_refused(
    architecture: str, changes: dict[str, Any], expected: str, saved: Callable[..., Path]
) -> None:
    assert expected in refusal(saved(architecture, **changes))


def test_another_name_of_a_setting_is_refused_where_its_own_is_missing(saved: Callable[..., Path]) -> None:
    folder = saved("gpt2")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"n_positions"', '"max_position_embeddings"'))

    assert "sets 'max_position_embeddings' to 32 and 'n_positions' to 'nothing'" in refusal(folder)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("gpt2", {"num_attention_heads": 4, "hidden_size": 32, "is_causal": True}),
        ("qwen2", {"layer_types": ["full_attention"] * 3}),
        ("mistral", {"layer_types": None, "partial_rotary_factor": 1.0}),
        ("llama", {"output_hidden_states": "x", "output_attentions": True, "problem_type": "x", "id2label": "x"}),
        ("llama", {"label2id": 3, "a key of a trainer": {"is_causal": False}}),
    ],
)
def test_what_changes_nothing_is_accepted(
    architecture: str, changes: dict[str, Any], saved: Callable[..., Path]
) -> None:
    plain = opened(saved(architecture)).bound.forward(IDS).logits

    assert torch.equal(opened(saved(architecture, **changes)).bound.forward(IDS).logits, plain)


# files that change

CHANGED = [
    ("model.safetensors", lambda path: path.write_bytes(path.read_bytes())),
    ("model.safetensors", lambda path: os.replace(shutil.copy2(path, path.with_suffix(".new")), path)),
    ("config.json", lambda path: change(path, x=1)),
    ("tokenizer.json", lambda path: change(path, x=1)),
    ("tokenizer_config.json", lambda path: path.unlink()),
    ("special_tokens_map.json", lambda path: path.write_text("{}")),
    ("model-00001-of-00002.safetensors", lambda path: path.write_bytes(b"")),
]


@pytest.mark.parametrize(("name", "write"), CHANGED)
def test_a_file_that_changed_after_it_was_checked_is_refused(
    name: str, write: Callable[[Path], Any], saved: Callable[..., Path]
) -> None:
    folder = saved("llama")
    handle = opened(folder)
    write(folder / name)

    with pytest.raises(CheckpointRefused, match=rf"'{name}' changed after it was checked \(1 such files\)\.\n.*Run ag"):
        _ = handle.bound


def test_a_file_that_changed_before_a_second_load_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    handle = opened(folder)
    _ = handle.bound
    handle.release()
    _ = handle.bound
    handle.release()
    change(folder / "config.json", x=1)

    for _ in range(2):
        with pytest.raises(CheckpointRefused, match="'config.json' changed after it was checked"):
            _ = handle.bound


def test_a_file_that_changes_while_it_is_loaded_is_refused(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("llama")
    plain = load._load_tokenizer

    def meanwhile(identified: Any) -> Any:
        change(folder / "config.json", x=1)
        return plain(identified)

    monkeypatch.setattr(load, "_load_tokenizer", meanwhile)

    assert "'config.json' changed while it was loaded" in refusal(folder)


def test_a_folder_that_is_gone_when_it_is_loaded_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    handle = opened(folder)
    shutil.rmtree(folder)

    with pytest.raises(CheckpointRefused, match="cannot be read"):
        _ = handle.bound


def test_what_else_changes_in_the_folder_is_no_matter(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    handle = opened(folder)
    (folder / "trainer_state.json").write_text("{}")

    assert handle.bound.layers == 3


def test_a_loaded_model_does_not_follow_its_file(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    model = opened(folder).bound
    before = model.forward(IDS).logits
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(4096)
        stream.write(bytes(stream.seek(0, os.SEEK_END) - 4096))
        stream.seek(4096)
        stream.write(bytes(8192))

    assert torch.equal(model.forward(IDS).logits, before)


# tensors and tokenizers


@pytest.mark.parametrize(
    ("architecture", "name"), [("gpt2", "transformer.ln_f.weight"), ("llama", "model.layers.0.mlp.up_proj.weight")]
)
def test_one_parameter_under_two_names_is_refused(architecture: str, name: str, saved: Callable[..., Path]) -> None:
    folder = saved(architecture)
    tensors = load_file(folder / "model.safetensors")
    short = name.partition(".")[2]
    save_file({**tensors, short: tensors[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})

    assert f"holds {name!r} and {short!r}: one parameter under two names (1 such)" in refusal(folder)


def test_parameters_without_the_prefix_are_read_as_the_library_does(saved: Callable[..., Path]) -> None:
    folder = saved("gpt2")
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})

    torch.testing.assert_close(opened(folder).bound.forward(IDS).logits, plain_logits(folder)[:, -1])


def tokenizer_json(model: dict[str, Any]) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": model,
        }
    )


WORDS = {"[?]": 0, "the": 1, "key": 2, "keys": 3, "is": 4, "are": 5}
MODELS = {
    "WordLevel": {"type": "WordLevel", "vocab": WORDS, "unk_token": "[?]"},
    "WordPiece": {
        "type": "WordPiece",
        "vocab": WORDS,
        "unk_token": "[?]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    },
    "BPE": {
        "type": "BPE",
        "vocab": {"[?]": 0, "a": 1, "b": 2},
        "merges": [],
        "unk_token": "[?]",
        "fuse_unk": False,
        "byte_fallback": False,
    },
    "Unigram": {"type": "Unigram", "vocab": [[word, -1.0] for word in WORDS], "unk_id": 0, "byte_fallback": False},
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("settings", [{}, {"unk_token": None}, {"unk_token": "key"}])
def test_the_token_of_unknown_words_is_the_one_that_encoding_gives(
    kind: str, settings: dict[str, Any], saved: Callable[..., Path]
) -> None:
    folder = saved("llama")
    (folder / "tokenizer.json").write_text(tokenizer_json(MODELS[kind]))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = opened(folder).bound.tokenizer

    assert (tokenizer.unk_token, tokenizer.unk_token_id) == ("[?]", 0)
    assert 0 in tokenizer("zzz", add_special_tokens=False)["input_ids"]


def test_unknown_words_are_refused_though_only_the_tokenizer_itself_names_the_token(
    saved: Callable[..., Path],
) -> None:
    folder = saved("llama")
    (folder / "tokenizer.json").write_text(tokenizer_json(MODELS["WordLevel"]))
    (folder / "tokenizer_config.json").write_text("{}")
    pair = Pair("the kee", "the keys", "is", "are", "t")

    with pytest.raises(PromptError, match="1 words are not in the tokenizer's vocabulary: 'kee'"):
        encode([pair], opened(folder).bound.tokenizer, Tokens(), Ablation())


def test_a_token_that_the_vocabulary_lacks_is_not_taken(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    (folder / "tokenizer.json").write_text(tokenizer_json({**MODELS["BPE"], "unk_token": "<none>"}))
    (folder / "tokenizer_config.json").write_text("{}")
    tokenizer = opened(folder).bound.tokenizer

    assert tokenizer.unk_token is None
    assert len(tokenizer) == 3


# what no library can read

BROKEN_TOKENIZERS = {
    "an unknown model": {"model": {"type": "Nonesuch"}},
    "an empty model": {"model": {}},
    "no model": {"model": None},
    "a bad regex": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": 0}},
    "an unknown token that is no text": {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": {}}},
    "an id outside": {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}},
    "a vocabulary of nothing": {"model": {"type": "WordLevel", "vocab": None, "unk_token": "a"}},
}


@pytest.mark.parametrize("kind", BROKEN_TOKENIZERS)
def test_a_tokenizer_that_cannot_be_read_is_refused(kind: str, saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    change(folder / "tokenizer.json", **BROKEN_TOKENIZERS[kind])

    assert refusal(folder).startswith(f"refused: the tokenizer of 'odd' cannot be made from {str(folder)!r}: ")


BROKEN_CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"num_key_value_heads": 0}),
    ("llama", {"hidden_act": None}),
    ("llama", {"hidden_size": 10**400}),
    ("llama", {"hidden_size": "x"}),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 0.0}}),
    ("llama", {"rope_parameters": {"rope_type": "nonesuch", "rope_theta": 10.0}}),
    ("llama", {"rope_parameters": [1]}),
    ("llama", {"pad_token_id": 10**30}),
    ("llama", {"pad_token_id": VOCABULARY}),
    ("llama", {"head_dim": 0}),
    ("gpt2", {"n_embd": 0}),
    ("gpt2", {"vocab_size": -1}),
    ("gpt2", {"activation_function": "nonesuch"}),
    ("gpt2", {"layer_norm_epsilon": "x"}),
]


@pytest.mark.parametrize(("architecture", "changes"), BROKEN_CONFIGS)
def test_a_config_that_makes_no_model_is_refused(
    architecture: str, changes: dict[str, Any], saved: Callable[..., Path]
) -> None:
    assert refusal(saved(architecture, **changes)).startswith("refused: ")


def test_a_model_of_fewer_positions_than_a_check_needs_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved("gpt2", n_positions=4)
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:4].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    assert "refused: the model of 'odd' cannot be made from" in refusal(folder)


def test_a_full_gpu_says_nothing_about_a_checkpoint(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("planted")

    handle = opened(saved("llama"))
    with monkeypatch.context() as patch:
        patch.setattr(load, "bind", full)
        with pytest.raises(torch.OutOfMemoryError, match="planted"):
            _ = handle.bound

    assert handle.bound.layers == 3


@pytest.mark.parametrize("architecture", ["llama", "arcee"])
@pytest.mark.parametrize("key", ["vocab_size", "intermediate_size"])
def test_a_config_far_larger_than_its_weights_is_refused_before_memory_is_taken(
    architecture: str, key: str, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(architecture, **{key: 10**12})
    monkeypatch.setattr(load, "_refuse_two_names", lambda *_: pytest.fail("the weights would be made next"))

    found = refusal(folder)
    assert f"refused: 'odd' does not hold the tensors of a {architecture}: config.json describes " in found
    assert "Most of the model would be random, and it may not fit into memory." in found

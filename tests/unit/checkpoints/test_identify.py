"""A folder is identified, or refused before any library parses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pytest_circuits.checkpoints.identify import identify
from pytest_circuits.checkpoints.naming import Checkpoint
from pytest_circuits.errors import CheckpointRefused

SHARED = Path(__file__).resolve().parents[4].joinpath("shared", "models", "stories260K").resolve()


def refusal(folder):
    """What the user reads when the folder is refused."""
    with pytest.raises(CheckpointRefused) as caught:
        identify(Checkpoint("tuned", str(folder)))
    prefix = f"refused: {str(folder)!r}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def fingerprint(folder):
    return identify(Checkpoint("tuned", str(folder))).fingerprint


def change(path, **keys):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | keys))


# what is accepted


def test_a_whole_checkpoint_is_identified(folder):
    found = identify(Checkpoint("tuned", str(folder)))

    assert (found.name, found.source, found.directory, found.revision) == ("tuned", str(folder), folder, None)
    assert found.config["n_layer"] == 2
    assert found.weight_files == (folder / "model.safetensors",)
    assert len(found.fingerprint) == 64


def test_a_file_of_the_safetensors_library_is_accepted(folder):
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    before = fingerprint(folder)
    library.save_file(
        {"w": numpy.ones((2, 2), "float16"), "e": numpy.zeros((0, 4), "int8")}, folder / "model.safetensors"
    )

    assert fingerprint(folder) != before


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real model is not beside this checkout")
def test_a_real_model_is_identified():
    found = identify(Checkpoint("stories", str(SHARED)))

    assert found.config["num_attention_heads"] == 8
    assert found.weight_files == (SHARED / "model.safetensors",)


def test_what_is_never_read_is_tolerated(folder):
    for name in ("training_args.bin", "pytorch_model.bin", "adapter_model.safetensors", "README.md"):
        (folder / name).write_bytes(b"\x80\x04.")
    (folder / "runs").mkdir()

    assert identify(Checkpoint("tuned", str(folder))).weight_files == (folder / "model.safetensors",)


def test_settings_with_a_slash_where_no_name_is_expected_are_fine(folder):
    change(folder / "tokenizer_config.json", name_or_path="org/base", eos_token="</s>", chat_template="{% if a / b %}")

    identify(Checkpoint("tuned", str(folder)))


def test_links_within_the_folder_are_fine(folder):
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")

    identify(Checkpoint("tuned", str(folder)))


def test_a_link_to_the_folder_itself_is_followed(folder):
    (folder.parent / "latest").symlink_to(folder)

    assert identify(Checkpoint("latest", str(folder.parent / "latest"))).directory == folder


def test_no_library_that_could_load_a_model_is_imported(folder):
    code = (
        "import sys; from pytest_circuits.checkpoints.identify import identify; "
        "from pytest_circuits.checkpoints.naming import Checkpoint; "
        f"identify(Checkpoint('x', {str(folder)!r})); "
        "print([name for name in ('torch', 'transformers', 'safetensors', 'huggingface_hub') if name in sys.modules])"
    )
    root = str(Path(__file__).parents[3])

    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


# the fingerprint


def test_the_fingerprint_is_the_same_however_the_weights_are_split(folder, tensors, pack):
    before = fingerprint(folder)
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {"mask": names[0], "b": names[0], "none": names[1], "a": names[1]}
    for name in names:
        (folder / name).write_bytes(pack({t: tensors[t] for t in places if places[t] == name}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    found = identify(Checkpoint("tuned", str(folder)))

    assert found.fingerprint == before
    assert found.weight_files == tuple(folder / name for name in names)


def test_the_fingerprint_forgets_who_saved_the_config_from_where_and_in_which_order(folder):
    before = fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"transformers_version": "9.9", "_name_or_path": "x", "torch_dtype": "float16", "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=4))

    assert fingerprint(folder) == before


def test_the_fingerprint_sees_the_config(folder):
    before = fingerprint(folder)
    change(folder / "config.json", n_layer=3)

    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"]
)
def test_the_fingerprint_sees_each_tokenizer_file(folder, name):
    before = fingerprint(folder)
    change(folder / name, added="x")

    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a", ("F32", [2, 3], bytes(range(1, 25)))),
        ("a", ("F32", [3, 2], bytes(range(24)))),
        ("a", ("I32", [2, 3], bytes(range(24)))),
        ("c", ("F32", [1], bytes(4))),
    ],
)
def test_the_fingerprint_sees_bytes_shapes_dtypes_and_names(folder, tensors, pack, name, tensor):
    before = fingerprint(folder)
    (folder / "model.safetensors").write_bytes(pack(tensors | {name: tensor}))

    assert fingerprint(folder) != before


def test_the_fingerprint_sees_a_byte_beyond_the_first_chunk(folder, tensors, pack):
    data = bytearray(3 * 2**20)
    (folder / "model.safetensors").write_bytes(pack({"big": ("I8", [len(data)], bytes(data))}))
    before = fingerprint(folder)
    data[-1] = 1
    (folder / "model.safetensors").write_bytes(pack({"big": ("I8", [len(data)], bytes(data))}))

    assert fingerprint(folder) != before


def test_the_fingerprint_sees_a_renamed_tensor(folder, tensors, pack):
    before = fingerprint(folder)
    (folder / "model.safetensors").write_bytes(pack({"aa": tensors.pop("a")} | tensors))

    assert fingerprint(folder) != before


# where it is


def test_a_directory_that_is_gone_is_refused(tmp_path):
    assert refusal(tmp_path / "gone") == "there is no such directory. Check the spelling."


def test_a_file_that_cannot_be_read_is_refused(folder, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", closed)

    with pytest.raises(CheckpointRefused, match=r"cannot be read: .*Permission denied"):
        identify(Checkpoint("tuned", str(folder)))


def test_a_builtin_checkpoint_is_found_by_its_name(folder, monkeypatch):
    builtin = types.SimpleNamespace(
        builtin_directory={"tiny": folder}.__getitem__, builtin_names=lambda: ("tiny", "tiny-b")
    )
    monkeypatch.setitem(sys.modules, "pytest_circuits.builtin", builtin)

    assert identify(Checkpoint("tiny", "builtin:tiny")).directory == folder
    with pytest.raises(CheckpointRefused) as caught:
        identify(Checkpoint("big", "builtin:big"))
    assert str(caught.value) == (
        "refused: 'builtin:big': there is no built-in checkpoint 'big'; there are builtin:tiny, builtin:tiny-b."
    )


# code and links


@pytest.mark.parametrize("name", ["modeling_x.py", "X.PY", "custom_generate/generate.py"])
def test_python_code_is_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")

    assert refusal(folder).startswith(f"{name!r} is Python code; a checkpoint is data, and code from it is never run.")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.json"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    outside = tmp_path.resolve() / "outside"
    (folder / name).rename(outside) if (folder / name).exists() else outside.touch()
    (folder / name).symlink_to(outside)

    text = refusal(folder)

    assert text.startswith(f"{name!r} is a link out of the checkpoint, to {str(outside)!r}; what it names can change")
    assert "`cp -rL`" in text


def test_a_link_into_a_hub_cache_is_refused_for_a_folder_that_the_hub_did_not_resolve(folder, tmp_path):
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "c", tmp_path / "repo" / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    folder.rename(snapshot)
    (snapshot / "config.json").rename(blobs / "1")
    (snapshot / "config.json").symlink_to("../../blobs/1")

    assert "or give a Hub id if this is the Hub's cache" in refusal(snapshot)


@pytest.mark.parametrize("target", ["loop", "missing"])
def test_a_link_to_itself_or_to_nothing_is_no_crash(folder, target):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json" if target == "loop" else "missing")

    assert refusal(folder).startswith("there is no config.json in ")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder):
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")

    assert refusal(folder).startswith("there is no tokenizer.json")


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')

    assert refusal(folder).startswith("'adapter_config.json' makes it an adapter, which loads a base model")


# settings

SETTINGS = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("auto_map", {"AutoModel": "modeling_x.X"}, "asks for Python code from outside to be run"),
        ("trust_remote_code", True, "asks for Python code from outside to be run"),
        ("_attn_implementation_internal", "org/kernel", "can name code to download (CVE-2026-4372)"),
        ("attn_implementation", "eager", "can name code to download (CVE-2026-4372)"),
        ("experts_implementation", "x", "can name code to download (CVE-2026-4372)"),
        ("configuration_files", [], "can make a library read another file than the one that was checked"),
        ("transformers_weights", "x", "can make a library read another file than the one that was checked"),
        ("fast_tokenizer_files", [], "can make a library read another file than the one that was checked"),
        ("tokenizer_file", "/x", "can make a library read another file than the one that was checked"),
        ("vocab_file", "/x", "can make a library read another file than the one that was checked"),
        ("merges_file", "/x", "can make a library read another file than the one that was checked"),
        ("gguf_file", "/x", "can make a library read another file than the one that was checked"),
    ],
)
def test_a_setting_that_names_code_or_another_file_is_refused_in_every_file_at_every_depth(
    folder, name, key, value, reason
):
    remedy = "If you trust the checkpoint, delete that key from your copy of it."
    original = (folder / name).read_text() if (folder / name).exists() else "{}"

    change(folder / name, **{key: value})
    assert refusal(folder) == f"{name!r} sets '{key}', which {reason}. {remedy}"

    (folder / name).write_text(original)
    change(folder / name, model=[{"attn": {key: value}}])
    assert refusal(folder) == f"{name!r} sets 'model.0.attn.{key}', which {reason}. {remedy}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "org/x"),
        ("architectures", ["org/x"]),
        ("tokenizer_class", "org/x"),
        ("processor_class", "org/x"),
        ("hidden_act", "org/x"),
        ("hidden_activation", "org/x"),
        ("activation_function", "org/x"),
        ("act_fn", "org/x"),
        ("layer_types", ["full_attention", "org/x"]),
        ("hidden_act", {"": "org/x"}),
    ],
)
def test_a_slash_where_a_name_is_expected_is_refused(folder, key, value):
    change(folder / "config.json", **{key: value})

    assert "which is 'org/x', expected a plain name: a '/' names a repository or a file." in refusal(folder)


def test_foreign_text_cannot_reach_the_terminal_or_a_ci_log_as_it_is(folder):
    change(folder / "config.json", model_type="\x1b[31m/\n::error::x", **{"auto_map\n::add-mask::": 1})

    text = refusal(folder)

    assert "\x1b" not in text
    assert "\n" not in text


def test_a_folder_without_a_config_is_refused(folder):
    (folder / "config.json").unlink()

    assert refusal(folder).startswith(
        f"there is no config.json in {str(folder)!r}, so what its weights mean is unknown."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'config.json' is no plain JSON: Expecting value"),
        (b'{"a": 1', "'config.json' is no plain JSON: Expecting ',' delimiter"),
        (b'{"a": "\xff"}', "'config.json' is no plain JSON: 'utf-8' codec can't decode"),
        ('{"a": 1}'.encode("utf-16"), "'config.json' is no plain JSON: 'utf-8' codec can't decode"),
        (b'{"a": 1, "b": 2, "a": 3}', "'config.json' is no plain JSON: it lists 'a' twice."),
        (b'{"x": {"a\\n": 1, "a\\n": 1}}', "'config.json' is no plain JSON: it lists 'a\\n' twice."),
        (b'{"a": NaN}', "'config.json' is no plain JSON: it holds the number NaN."),
        (b'{"a": -Infinity}', "'config.json' is no plain JSON: it holds the number -Infinity."),
        (b'{"a": 1e999}', "'config.json' is no plain JSON: it holds the number 1e999."),
        (b'{"a": ' + b"9" * 5000 + b"}", "'config.json' is no plain JSON: Exceeds the limit"),
        (b"[" * 100_000, "'config.json' is no plain JSON: maximum recursion depth exceeded"),
        (b"[1]", "'config.json' holds a JSON list, expected an object."),
        (b'{"a": ' + b"[" * 21 + b"]" * 21 + b"}", "'config.json' is nested deeper than 20 levels, as no real one is"),
        (b"{" + b" " * 2**20 + b"}", "'config.json' has 1048578 bytes, and at most 1048576 are read"),
    ],
)
def test_a_config_that_is_no_plain_json_object_is_refused(folder, content, message):
    (folder / "config.json").write_bytes(content)

    text = refusal(folder)

    assert text.startswith(message)
    assert "Download it again" in text


def test_nesting_up_to_the_limit_is_fine(folder):
    (folder / "generation_config.json").write_bytes(b'{"a": ' + b"[" * 20 + b"]" * 20 + b"}")

    identify(Checkpoint("tuned", str(folder)))


# the tokenizer


def test_a_folder_without_a_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()

    text = refusal(folder)

    assert text.startswith("there is no tokenizer.json, no tokenizer; another tokenizer would ask other questions")
    assert text.endswith("AutoTokenizer.from_pretrained(BASE).save_pretrained(DIRECTORY).")


def test_a_slow_tokenizer_alone_is_refused(folder):
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")

    assert refusal(folder).startswith(
        "there is no tokenizer.json, only the files of a slow tokenizer (tokenizer.model);"
    )

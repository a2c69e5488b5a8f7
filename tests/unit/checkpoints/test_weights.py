"""Safetensors files are audited by hand: what is damaged, ambiguous or hidden is refused."""

from __future__ import annotations

import json
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_circuits.checkpoints.identify import identify
from pytest_circuits.checkpoints.naming import Checkpoint
from pytest_circuits.checkpoints.weights import Tensor, digest_tensors, read_header
from pytest_circuits.errors import CheckpointRefused, MissingExtra

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def refusal(folder):
    """What the user reads when the folder is refused, after its name."""
    with pytest.raises(CheckpointRefused) as caught:
        identify(Checkpoint("tuned", str(folder)))
    return str(caught.value).removeprefix(f"refused: {str(folder)!r}: ")


def entry(dtype="F32", shape=(1,), start=0, stop=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.fixture
def write(folder, pack):
    """Give model.safetensors another header, a dict or JSON text, over `size` bytes of data."""

    def write(header, size=4):
        text = header if isinstance(header, str) else json.dumps(header)
        (folder / "model.safetensors").write_bytes(pack({"x": ("U8", [size], bytes(size))}, header=text))

    return write


@pytest.fixture
def shards(folder, tensors, pack):
    """Split the checkpoint in two; the test may spoil the index's weight_map before it is written."""
    (folder / "model.safetensors").unlink()
    (folder / ONE).write_bytes(pack({name: tensors[name] for name in ("a", "b")}))
    (folder / TWO).write_bytes(pack({name: tensors[name] for name in ("mask", "none")}))

    def index(**changes):
        places = {"a": ONE, "b": ONE, "mask": TWO, "none": TWO} | changes
        index = {"metadata": {}, "weight_map": {name: file for name, file in places.items() if file is not None}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return index


# which files


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".BIN"])
def test_pickles_are_refused_where_there_are_no_safetensors(folder, suffix):
    (folder / "model.safetensors").rename(folder / f"pytorch_model{suffix}")

    assert refusal(folder) == (
        f"'pytorch_model{suffix}' is a pickle, and loading it can run code. Convert it to safetensors where you trust "
        "it: `save_pretrained` writes them."
    )


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()

    assert "expected 'model.safetensors', or 'model.safetensors.index.json' with its shards, found neither" in refusal(
        folder
    )


def test_weights_of_another_name_are_named(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")

    assert "found ['model.fp16.safetensors']. Name the directory that `save_pretrained` wrote." in refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "sub/model-00001-of-00002.safetensors",
        "x.safetensors",
        "model-1-of-2.safetensors",
        "model-00001-of-00002.safetensors\n",
        "model-00001-of-00002.bin",
        "..\\x.safetensors",
        "",
    ],
)
def test_an_index_that_names_anything_but_its_shards_is_refused(folder, shards, name):
    shards(a=name)

    text = refusal(folder)

    assert text.startswith(f"'model.safetensors.index.json' names {name!r}, outside the checkpoint or no shard of it")


@pytest.mark.parametrize(
    "name", ["model-00003-of-00003.safetensors", "model-00003-of-00002.safetensors", "model.safetensors"]
)
def test_shards_of_two_sets_are_refused(folder, shards, name):
    shards(a=name)

    assert refusal(folder).startswith(
        ("the weights are ['model", "'model.safetensors.index.json' names 'model.safetensors'")
    )


def test_an_incomplete_set_of_shards_is_refused(folder, shards):
    shards(mask=None, none=None)

    assert refusal(folder).startswith(f"the weights are [{ONE!r}], expected one set of shards")


def test_shards_beside_a_whole_file_are_refused(folder, shards, tensors, pack):
    shards()
    (folder / "model.safetensors").write_bytes(pack(tensors))

    text = refusal(folder)

    assert text.startswith(f"the weights are [{ONE!r}, {TWO!r}, 'model.safetensors'], expected one set of shards")
    assert "two checkpoints share the directory" in text


def test_an_index_of_one_whole_file_is_accepted(folder, tensors):
    index = {"weight_map": dict.fromkeys(tensors, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert identify(Checkpoint("tuned", str(folder))).weight_files == (folder / "model.safetensors",)


def test_a_missing_shard_is_refused(folder, shards):
    shards()
    (folder / TWO).unlink()

    assert refusal(folder) == (
        f"'model.safetensors.index.json' names {TWO!r} (1 of 2 files are missing). Download it again."
    )


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(folder, index):
    (folder / "model.safetensors.index.json").write_text(index)

    assert refusal(folder).startswith("'model.safetensors.index.json' has no weight_map from tensors to files.")


def test_an_index_that_lists_a_tensor_twice_is_refused(folder):
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{ONE}", "a": "{TWO}"}}}}')

    assert refusal(folder).startswith("'model.safetensors.index.json' is no plain JSON: it lists 'a' twice.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": TWO}, f"says that 'a' is in {TWO!r}, and it is in {ONE!r} (1 such tensors)"),
        ({"extra": ONE}, f"says that 'extra' is in {ONE!r}, and it is in None (1 such tensors)"),
        ({"b": None}, f"says that 'b' is in None, and it is in {ONE!r} (1 such tensors)"),
    ],
)
def test_an_index_that_its_files_contradict_is_refused(folder, shards, changes, message):
    shards(**changes)

    assert message in refusal(folder)


def test_a_tensor_in_two_shards_is_refused(folder, shards, tensors, pack):
    shards()
    (folder / TWO).write_bytes(pack({name: tensors[name] for name in ("mask", "none", "a")}))

    assert refusal(folder).startswith(f"{ONE!r} and {TWO!r} both hold 'a'; which one is loaded is chance.")


# the header


def test_a_truncated_file_is_refused_with_its_sizes(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])

    assert refusal(folder) == (
        f"'model.safetensors' has {len(whole) - 5} of {len(whole)} bytes: it is truncated. Download it again."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'model.safetensors' has 0 bytes and says that its header has 0 "),
        (b"\x01", "'model.safetensors' has 1 bytes and says that its header has 1 "),
        (b"\x03" + bytes(7) + b"{}", "'model.safetensors' has 10 bytes and says that its header has 3 "),
        (b"\xff" * 8 + b"{}", "'model.safetensors' has 10 bytes and says that its header has 18446744073709551615 "),
    ],
)
def test_a_header_that_is_longer_than_the_file_is_refused(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)

    text = refusal(folder)

    assert text.startswith(message)
    assert text.endswith("it is truncated, or no safetensors file. Download it again.")


@pytest.mark.parametrize(("extra", "accepted"), [(0, True), (1, False)])
def test_a_header_over_16_mib_is_refused(folder, extra, accepted):
    length = 16 * 2**20 + extra
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}".ljust(length))

    if accepted:
        assert read_header(folder / "model.safetensors") == ()
    else:
        assert refusal(folder).startswith(
            f"'model.safetensors' has {length + 8} bytes and says that its header has {length}"
        )


@pytest.mark.parametrize("header", ["[]", "", "{", '{"a": NaN}', "\x80"])
def test_a_header_that_is_no_plain_json_object_is_refused(folder, write, header):
    write(header)

    assert refusal(folder).startswith(("'model.safetensors' is no plain JSON", "'model.safetensors' holds a JSON list"))


def test_duplicate_tensor_names_are_refused(folder, write):
    a = json.dumps(entry())
    write(f'{{"a": {a}, "a": {json.dumps(entry("U8", [4]))}}}')

    assert refusal(folder).startswith("'model.safetensors' is no plain JSON: it lists 'a' twice.")


@pytest.mark.parametrize(
    ("tensors", "size", "message"),
    [
        ({"a": entry(stop=4), "b": entry(start=2, stop=6)}, 6, "has 'b' begin at byte {0}, expected {1}"),
        ({"a": entry(stop=4), "b": entry(start=0, stop=4)}, 4, "has 'b' begin at byte {0}, expected {1}"),
        ({"a": entry(start=4, stop=8)}, 8, "has 'a' begin at byte {0}, expected {1}"),
        ({"a": entry(stop=4), "b": entry(start=6, stop=10)}, 10, "has 'b' begin at byte {0}, expected {1}"),
        ({"a": entry(stop=4)}, 5, "bytes and its tensors end at"),
    ],
)
def test_overlapping_or_missing_ranges_are_refused(folder, write, tensors, size, message):
    write(tensors, size)

    first = 8 + len(json.dumps(tensors))
    start = first + list(tensors.values())[-1]["data_offsets"][0]
    expected = first + (4 if len(tensors) == 2 else 0)
    assert message.format(start, expected) in refusal(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        {},
        entry() | {"more": 1},
        entry() | {"dtype": 1},
        entry() | {"shape": 1},
        entry(shape=[-1]),
        entry(shape=[True]),
        entry(shape=[1.0]),
        entry(shape=["1"]),
        entry(shape=[1] * 9),
        entry() | {"data_offsets": [0]},
        entry() | {"data_offsets": [0, 4, 8]},
        entry(start=-4, stop=0),
        entry(start=0.0),
        entry(start=False),
    ],
)
def test_an_entry_that_is_not_as_the_format_says_is_refused(folder, write, wrong):
    write({"a": wrong})

    assert refusal(folder).startswith(
        f"'model.safetensors' describes 'a' as {wrong!r}, expected dtype, shape and data_offsets"
    )


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "f32", "C64", "\x1b[31m"])
def test_an_unknown_dtype_is_refused(folder, write, dtype):
    write({"a": entry(dtype)})

    assert refusal(folder).startswith(f"'model.safetensors' stores 'a' as {dtype!r}; known are BOOL, U8, I8, ")


@pytest.mark.parametrize(
    "wrong", [entry(shape=[2]), entry("BF16"), entry("F64"), entry(shape=[0]), entry(shape=[10**4000])]
)
def test_a_range_that_does_not_fit_the_shape_is_refused(folder, write, wrong):
    write({"a": wrong})

    assert refusal(folder).startswith(f"'model.safetensors' gives 'a' 4 bytes, and {wrong['dtype']} of shape ")


def test_a_range_that_runs_backwards_is_refused(folder, write):
    write({"a": entry(shape=[1], start=4, stop=0)})

    assert refusal(folder).startswith("'model.safetensors' gives 'a' -4 bytes, and F32 of shape [1] needs 4.")


# the numbers

NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


def packed(dtype, value):
    """One number as the dtype's bytes; bfloat16 is the upper half of a float32."""
    return (
        struct.pack("<f", value)[2:]
        if dtype == "BF16"
        else struct.pack({"F16": "<e", "F32": "<f", "F64": "<d"}[dtype], value)
    )


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_weights_that_are_not_finite_are_refused(folder, tensors, pack, dtype, value):
    data = packed(dtype, 1.0) * 3 + packed(dtype, value)
    (folder / "model.safetensors").write_bytes(pack(tensors | {"h.0\n": (dtype, [4], data)}))

    assert refusal(folder) == (
        "'model.safetensors' holds NaN or infinite weights in 'h.0\\n'; nothing computed with them means anything. "
        "Take an earlier step of the training."
    )


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_the_largest_the_smallest_and_the_negative_numbers_are_finite(folder, pack, dtype):
    largest = {"F16": 65504.0, "BF16": 3.38e38, "F32": 3.4e38, "F64": 1.7e308}[dtype]
    smallest = {"F16": 6e-8, "BF16": 1e-40, "F32": 1e-45, "F64": 5e-324}[dtype]
    data = b"".join(packed(dtype, value) for value in (largest, -largest, smallest, -smallest, 0.0, -0.0))
    (folder / "model.safetensors").write_bytes(pack({"w": (dtype, [6], data)}))

    identify(Checkpoint("tuned", str(folder)))


def test_integers_may_have_any_bits(folder, pack):
    (folder / "model.safetensors").write_bytes(pack({"mask": ("I32", [2], b"\xff" * 8)}))

    identify(Checkpoint("tuned", str(folder)))


def test_a_nan_beyond_the_first_chunk_is_found(folder, pack):
    data = bytes(2 * 2**20) + packed("F32", float("nan"))
    (folder / "model.safetensors").write_bytes(pack({"w": ("F32", [len(data) // 4], data)}))

    assert "in 'w'" in refusal(folder)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path):
    import hashlib

    (tmp_path / "model.safetensors").write_bytes(bytes(10))

    with pytest.raises(CheckpointRefused, match="'model.safetensors' shrank while it was read"):
        digest_tensors((Tensor("w", "F32", (4,), tmp_path / "model.safetensors", 0, 16),), hashlib.sha256())


def test_without_numpy_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(MissingExtra, match=r'needs NumPy: pip install "pytest-circuits\[hf\]"'):
        identify(Checkpoint("tuned", str(folder)))

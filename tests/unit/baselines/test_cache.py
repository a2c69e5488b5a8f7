"""The cache's files: exact, sealed, whole or not at all, bounded, and never a reason for a run to fail."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_circuits.baselines import store
from pytest_circuits.baselines.cache import CAP, TAG, TAGGED, Cache, clear, default_folder, entries, is_ours
from pytest_circuits.baselines.cache import _shrink as shrink
from pytest_circuits.baselines.encoding import digest

if TYPE_CHECKING:
    from collections.abc import Callable

KEY, OTHER = "ab" * 32, "cd" * 32
VALUE = {"L0H0": [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3], "L0H1": {"letters": [24, 25]}}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "somewhere" / "cache")


def path_of(cache: Cache, key: str = KEY) -> Path:
    return cache.folder / key[:2] / f"{key}.json"


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_read_back_and_lies_where_it_is_said(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, VALUE)

    assert Cache(cache.folder).get(KEY) == VALUE
    assert path_of(cache).is_file()
    assert cache.get(OTHER) is None
    assert cache.problem == ""


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    cache = Cache(tmp_path_factory.getbasetemp() / "bits")
    cache.put(KEY, numbers)

    assert [struct.pack("<d", number) for number in cache.get(KEY)] == [struct.pack("<d", one) for one in numbers]


def test_the_order_of_a_mapping_is_kept(cache: Cache) -> None:
    cache.put(KEY, {"numerals": [1, 2], "letters": [3, 4]})

    assert list(cache.get(KEY)) == ["numerals", "letters"]


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, [1.0, -math.inf], {"a": math.nan}, 10**5000],
    ids=["NaN", "infinite", "in a list", "in a mapping", "too many digits"],
)
def test_what_json_cannot_hold_exactly_is_not_kept_and_is_no_problem(cache: Cache, value: Any) -> None:
    cache.put(KEY, value)

    assert cache.get(KEY) is None
    assert entries(cache.folder) == []
    assert cache.problem == ""


def test_a_value_is_replaced(cache: Cache) -> None:
    cache.put(KEY, [1.0])
    cache.put(KEY, [2.0])

    assert cache.get(KEY) == [2.0]
    assert len(entries(cache.folder)) == 1


# -- what is not read --------------------------------------------------------------------------------------------------


def resealed(text: str, **changes: Any) -> str:
    body = {key: value for key, value in {**json.loads(text), **changes}.items() if key != "sha256"}
    return json.dumps(body | {"sha256": digest(body)})


DAMAGE: dict[str, Callable[[str], str | bytes]] = {
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) // 2],
    "one digit": lambda text: text.replace("0.1", "0.2", 1),
    "another head": lambda text: text.replace("L0H0", "L1H0", 1),
    "no JSON": lambda text: "numbers",
    "no object": lambda text: "[1, 2]",
    "no seal": lambda text: text.replace("sha256", "sha255"),
    "NaN": lambda text: text.replace("0.1", "NaN", 1),
    "infinite": lambda text: text.replace("0.1", "1e999", 1),
    "a number too long": lambda text: text.replace("0.1", "1" * 5000, 1),
    "nested": lambda text: "[" * 100_000 + "]" * 100_000,
    "no UTF-8": lambda text: b"\xff" + text.encode(),
    "another format": lambda text: resealed(text, format=2),
    "another key": lambda text: resealed(text, key=OTHER),
    "no key": lambda text: resealed(text, key=None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_or_foreign_entry_is_missing_and_is_overwritten(
    cache: Cache, damage: Callable[[str], str | bytes]
) -> None:
    cache.put(KEY, VALUE)
    damaged = damage(path_of(cache).read_text())
    path_of(cache).write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())

    assert cache.get(KEY) is None
    cache.put(KEY, VALUE)
    assert cache.get(KEY) == VALUE


def test_resealing_alone_damages_nothing(cache: Cache) -> None:
    cache.put(KEY, VALUE)
    path_of(cache).write_text(resealed(path_of(cache).read_text()))

    assert cache.get(KEY) == VALUE


def test_an_entry_under_another_name_is_missing(cache: Cache) -> None:
    cache.put(KEY, VALUE)
    path_of(cache, OTHER).parent.mkdir()
    path_of(cache).rename(path_of(cache, OTHER))

    assert cache.get(OTHER) is None
    assert cache.get(KEY) is None


def test_what_is_no_file_is_missing_and_does_not_hold_the_run_up(cache: Cache) -> None:
    path_of(cache).parent.mkdir(parents=True)
    os.mkfifo(path_of(cache))
    assert cache.get(KEY) is None

    path_of(cache, OTHER).mkdir(parents=True)
    assert cache.get(OTHER) is None


def test_an_entry_that_may_not_be_read_is_missing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, VALUE)

    def refuse(self: Path, *args: Any, **options: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert cache.get(KEY) is None


def test_a_folder_that_is_read_only_is_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, VALUE)

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get(KEY) == VALUE


# -- what is not written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name", "reason"),
    [
        (Path, "mkdir", "Permission denied"),
        (os, "replace", "Permission denied"),
        (os, "fsync", "No space left on device"),
        (store, "write_whole", "No space left on device"),
    ],
)
def test_a_file_system_that_refuses_is_told_and_raises_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, reason: str
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(28, reason)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, refuse)
        if place is store:
            patch.setattr("pytest_circuits.baselines.cache.write_whole", refuse)
        cache.put(KEY, VALUE)

    assert cache.get(KEY) is None
    assert cache.problem == (
        f"the cache {str(cache.folder)!r} cannot be written: {reason}; the next run measures again. "
        "--circuits-cache-dir names another folder, --circuits-no-cache does without."
    )
    assert entries(cache.folder) == []


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    cache = Cache(tmp_path / "file")
    cache.put(KEY, VALUE)

    assert cache.get(KEY) is None
    assert "cannot be written: File exists" in cache.problem
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["pyproject.toml", TAG])
def test_a_folder_that_is_somebody_elses_stays_as_it_is(cache: Cache, name: str) -> None:
    cache.folder.mkdir(parents=True)
    (cache.folder / name).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# another program's")
    cache.put(KEY, VALUE)

    assert "other files lie there, and a cache needs a folder of its own; the next run measures again" in cache.problem
    assert os.listdir(cache.folder) == [name]
    assert "another program's" in (cache.folder / name).read_text()


def test_a_folder_is_tagged_so_that_backups_pass_it_over(cache: Cache) -> None:
    cache.put(KEY, VALUE)

    assert (cache.folder / TAG).read_text() == TAGGED
    assert TAGGED.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert is_ours(cache.folder)
    assert not is_ours(cache.folder / "ab")


def test_a_tag_that_another_process_writes_in_between_is_no_foreign_one(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.listdir

    def slow(folder: Path) -> list[str]:
        monkeypatch.setattr(os, "listdir", plain)
        Cache(cache.folder).put(OTHER, VALUE)
        return plain(folder)

    monkeypatch.setattr(os, "listdir", slow)
    cache.put(KEY, VALUE)

    assert (cache.problem, cache.get(KEY), cache.get(OTHER)) == ("", VALUE, VALUE)


# -- how much is kept --------------------------------------------------------------------------------------------------


def keys(count: int) -> list[str]:
    return [f"{number:02x}" * 32 for number in range(count)]


def used(cache: Cache, key: str, at: int) -> None:
    os.utime(path_of(cache, key), (at, at))


def test_what_was_used_longest_ago_goes_when_the_cap_is_passed(cache: Cache) -> None:
    value = [0.5] * 200
    first, second, third, fourth = keys(4)
    cache.put(first, value)
    one = entries(cache.folder)[0].bytes
    cache.cap = int(3.5 * one)
    for at, key in enumerate((first, second, third), start=1000):
        cache.put(key, value)
        used(cache, key, at)
    assert cache.get(first) == value  # a use: now the second is the oldest
    cache.put(fourth, value)

    assert [cache.get(key) is not None for key in (first, second, third, fourth)] == [True, False, True, True]
    assert sum(entry.bytes for entry in entries(cache.folder)) <= 0.9 * cache.cap


def test_a_cache_within_its_cap_loses_nothing(cache: Cache) -> None:
    for key in keys(40):
        cache.put(key, VALUE)

    assert len(entries(cache.folder)) == 40
    assert cache.cap == CAP == 256 * 2**20


def test_a_process_counts_what_others_kept_before_it(cache: Cache) -> None:
    for key in keys(10):
        cache.put(key, VALUE)
    size = sum(entry.bytes for entry in entries(cache.folder))
    Cache(cache.folder, cap=size // 2).put(KEY, VALUE)

    assert sum(entry.bytes for entry in entries(cache.folder)) <= size // 2
    assert cache.get(KEY) == VALUE


def test_the_folder_is_not_looked_through_at_every_write(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr("pytest_circuits.baselines.cache._total", lambda folder: looked.append(1) or 0)
    for key in keys(10):
        cache.put(key, VALUE)

    assert looked == [1]


def test_a_full_cache_is_not_looked_through_at_every_write(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, VALUE)
    cache.cap = 20 * entries(cache.folder)[0].bytes
    looked: list[int] = []
    monkeypatch.setattr(
        "pytest_circuits.baselines.cache._shrink", lambda folder, limit: looked.append(limit) or shrink(folder, limit)
    )
    for key in keys(40):
        cache.put(key, VALUE)

    assert 5 <= len(looked) <= 12


def test_a_value_larger_than_the_cap_is_not_kept(cache: Cache) -> None:
    cache.cap = 100
    cache.put(KEY, [0.5] * 200)

    assert (cache.get(KEY), cache.problem) == (None, "")


def test_what_a_killed_process_left_goes_too(cache: Cache) -> None:
    cache.put(KEY, VALUE)
    left = path_of(cache).with_name(f".{KEY}.json.0123abcd.tmp")
    left.write_text("x" * 1000)
    os.utime(left, (0, 0))
    cache.cap = 1000
    cache.put(OTHER, VALUE)
    Cache(cache.folder, cap=1000).put("ef" * 32, VALUE)

    assert not left.exists()
    assert cache.get("ef" * 32) == VALUE


# -- what is removed ---------------------------------------------------------------------------------------------------


def test_clearing_removes_entries_and_nothing_else(cache: Cache, tmp_path: Path) -> None:
    cache.put(KEY, VALUE)
    cache.put(OTHER, VALUE)
    shelf = path_of(cache).parent
    left = shelf / f".{KEY}.json.0123abcd.tmp"
    left.write_text("half")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{'ee' * 32}.json").write_text("not in the cache")
    kept = {
        "a note": shelf / "note.txt",
        "a short name": shelf / f"{KEY[:-1]}.json",
        "another shelf's": shelf / f"{OTHER}.json",
        "a temporary file of another name": shelf / f".{KEY}.json.tmp",
        "beside the shelves": cache.folder / f"{KEY}.json",
        "in a folder of another name": cache.folder / "abc" / f"{KEY}.json",
        "deeper": shelf / "deeper" / f"{KEY}.json",
    }
    for path in kept.values():
        path.parent.mkdir(exist_ok=True)
        path.write_text("foreign")
    (cache.folder / "ee").symlink_to(outside)
    (shelf / f"{'ab' * 31}00.json").symlink_to(outside / f"{'ee' * 32}.json")
    (shelf / f"{'ab' * 31}01.json").mkdir()

    assert {entry.path.name for entry in entries(cache.folder)} == {f"{KEY}.json", f"{OTHER}.json", left.name}
    assert [entry.whole for entry in clear(cache.folder)].count(True) == 2
    assert entries(cache.folder) == []
    assert not left.exists()
    assert [what for what, path in kept.items() if not path.exists()] == []
    assert (cache.folder / "ee").is_symlink()
    assert (shelf / f"{'ab' * 31}00.json").is_symlink()
    assert (shelf / f"{'ab' * 31}01.json").is_dir()
    assert (outside / f"{'ee' * 32}.json").exists()
    assert not path_of(cache, OTHER).parent.exists()


def test_a_folder_that_does_not_exist_has_no_entries_and_is_not_made(tmp_path: Path) -> None:
    assert entries(tmp_path / "gone") == clear(tmp_path / "gone") == []
    assert Cache(tmp_path / "gone").get(KEY) is None
    assert not (tmp_path / "gone").exists()


def test_the_oldest_entry_comes_first(cache: Cache) -> None:
    for at, key in ((3000, KEY), (1000, OTHER)):
        cache.put(key, VALUE)
        used(cache, key, at)

    assert [(entry.path.stem, entry.used) for entry in entries(cache.folder)] == [(OTHER, 1000), (KEY, 3000)]


# -- many at once ------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from pytest_circuits.baselines.cache import Cache
folder, number = Path(sys.argv[1]), float(sys.argv[2])
for turn in range(60):
    cache = Cache(folder, cap=60_000)
    for key in ("ab" * 32, f"{turn:02x}" * 32):
        cache.put(key, [number] * 500)
        found = cache.get(key)
        assert found is None or found in ([1.0] * 500, [2.0] * 500), found
    assert not cache.problem, cache.problem
print("done")
"""


def test_processes_that_write_at_once_never_see_half_an_entry(cache: Cache) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, cache.folder, number], stdout=subprocess.PIPE, text=True)
        for number in ("1", "2")
    ]

    assert [process.communicate(timeout=60)[0] for process in running] == ["done\n", "done\n"]
    found = entries(cache.folder)
    assert all(entry.whole for entry in found)
    assert sum(entry.bytes for entry in found) < 3 * 60_000


# -- where it lies -----------------------------------------------------------------------------------------------------


def test_the_default_folder_is_the_users_own_and_is_this_tests_here(own_cache: Path) -> None:
    assert default_folder() == own_cache
    assert not own_cache.exists()


def test_importing_the_cache_loads_nothing_heavy() -> None:
    code = (
        "import sys, pytest_circuits.baselines.cache\n"
        "print(sorted({'numpy', 'torch', 'platformdirs', 'pydantic', 'pytest'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"

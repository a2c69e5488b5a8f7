"""Measured parts on disk: a sealed JSON file an entry, read whole or not at all, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .encoding import digest, unsealed
from .store import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
CAP = 256 * 1024 * 1024
"""Bytes that a cache may hold; what was used longest ago goes first."""
ROOM = 0.9
"""A cache that is too large is brought down to this part of its cap, so that not every write looks through it."""
TAG = "CACHEDIR.TAG"
TAGGED = """\
Signature: 8a477f597d28d172789f06886806bc55
# Made by pytest-circuits: numbers that it measured. It may be deleted at any time. See https://bford.info/cachedir/
"""
SHELF = re.compile(r"[0-9a-f]{2}")
FILE = re.compile(r"[0-9a-f]{64}\.json|\.[0-9a-f]{64}\.json\.[0-9a-f]{8}\.tmp")
"""An entry, or the temporary file of one that was being written when its process died."""


def default_folder() -> Path:
    """Return the user's own cache folder for this package; nothing is made."""
    import platformdirs

    return platformdirs.user_cache_path("pytest-circuits", appauthor=False)


@dataclass
class Cache:
    """A folder of entries, by key: 64 hex digits that say everything that the value depends on.

    Any number of processes may read and write it at once. What cannot be read is missing, what cannot be written is
    left out, and `problem` then tells it: a cache makes a run faster and never makes it fail.
    """

    folder: Path
    cap: int = CAP
    problem: str = ""
    _bytes: int | None = field(default=None, repr=False)

    def get(self, key: str) -> Any:
        """Return the value of a key; None where there is none, or its file is damaged or another key's."""
        path = self._path(key)
        try:
            if not path.is_file():
                return None
            body = unsealed(path.read_text(encoding="utf-8"), FORMAT)
        except (OSError, ValueError):
            return None
        if body.get("key") != key:
            return None
        with suppress(OSError):  # a folder that is read-only
            os.utime(path)
        return body.get("value")

    def put(self, key: str, value: Any) -> None:
        """Keep a value of plain builtins; one that JSON cannot hold exactly, such as a NaN, is left out."""
        body = {"format": FORMAT, "key": key, "value": value}
        try:
            text = json.dumps(body | {"sha256": digest(body)}, allow_nan=False)
        except ValueError:
            return
        try:
            self._claim()
            path = self._path(key)
            path.parent.mkdir(exist_ok=True)
            write_whole(path, text)
            self._keep_below_cap(len(text))
        except OSError as error:
            self.problem = (
                f"the cache {str(self.folder)!r} cannot be written: {error.strerror or error}; the next run measures "
                "again. --circuits-cache-dir names another folder, --circuits-no-cache does without."
            )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _claim(self) -> None:
        """Make the folder and tag it, so that backups pass it over and `clear` knows it.

        A folder with other files gets no tag: it might be the project itself, which backups must not pass over.
        """
        if is_ours(self.folder):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = [name for name in os.listdir(self.folder) if not name.startswith(f".{TAG}.")]
        if taken and not is_ours(self.folder):  # looked at again: another process may have tagged it in between
            raise OSError("other files lie there, and a cache needs a folder of its own")
        write_whole(self.folder / TAG, TAGGED)

    def _keep_below_cap(self, added: int) -> None:
        """Remove what was used longest ago where this process knows that the folder is too large."""
        self._bytes = _total(self.folder) if self._bytes is None else self._bytes + added
        if self._bytes > self.cap:
            self._bytes = _shrink(self.folder, int(self.cap * ROOM))


@dataclass(frozen=True)
class Entry:
    """A file of a cache: its bytes, and when it was last used, in seconds since the epoch."""

    path: Path
    bytes: int
    used: float

    @property
    def whole(self) -> bool:
        """Whether it is an entry and not the temporary file of one."""
        return not self.path.name.startswith(".")


def entries(folder: Path) -> list[Entry]:
    """Return the files of a cache that are ours by place and name, least recently used first; no link is followed.

    Raises:
        OSError: the folder cannot be read; one that does not exist has no entries.
    """
    found = []
    for path in _files(folder):
        with suppress(FileNotFoundError):  # another process removed it, or had it under a temporary name
            state = path.lstat()
            found.append(Entry(path, state.st_size, state.st_mtime))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def is_ours(folder: Path) -> bool:
    """Say whether a folder carries the tag of a cache of this package."""
    try:
        return (folder / TAG).read_text(encoding="utf-8") == TAGGED
    except (OSError, ValueError):
        return False


def clear(folder: Path) -> list[Entry]:
    """Remove the entries of a cache and return them; every other file stays.

    Raises:
        OSError: the file system refused.
    """
    removed = entries(folder)
    for entry in removed:
        entry.path.unlink(missing_ok=True)
    for shelf in {entry.path.parent for entry in removed}:
        with suppress(OSError):  # something else lies there
            shelf.rmdir()
    return removed


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files whose place and name are those of an entry; a folder or a link with such a name is not ours."""
    with suppress(FileNotFoundError), os.scandir(folder) as shelves:
        for shelf in shelves:
            if SHELF.fullmatch(shelf.name) and shelf.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError), os.scandir(shelf) as files:
                    for file in files:
                        ours = FILE.fullmatch(file.name) and file.name.lstrip(".").startswith(shelf.name)
                        if ours and file.is_file(follow_symlinks=False):
                            yield Path(file.path)


def _total(folder: Path) -> int:
    return sum(entry.bytes for entry in entries(folder))


def _shrink(folder: Path, limit: int) -> int:
    """Remove what was used longest ago until the rest is within the limit, and return the bytes that are left."""
    found = entries(folder)
    total = sum(entry.bytes for entry in found)
    for entry in found:
        if total <= limit:
            break
        with suppress(OSError):  # another process was faster, or it is not ours to remove
            entry.path.unlink()
        total -= entry.bytes
    return total

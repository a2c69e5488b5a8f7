"""A Hub id becomes a snapshot in the local cache: what is cached first, then the network where it is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointRefused, MissingExtra

HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?", re.ASCII)
WANTED = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors", "*.json")
WANTED_TOKENIZER = ("merges.txt", "vocab.txt", "tokenizer.model")
Download = Callable[..., str]


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, in the cache: its files may be links into `blobs`, the cache's store for it."""

    directory: Path
    revision: str

    @property
    def blobs(self) -> Path:
        """The only folder that the snapshot's links may point into."""
        return self.directory.parent.parent / "blobs"


def fetch_snapshot(source: str, *, download: Download | None = None) -> Snapshot:
    """Return the snapshot of `org/model[@revision]`, without Python files and pickles.

    A revision that is cached whole is not looked up again, so an id without one stays at the commit that was fetched
    first; the commit is always part of the result. `HF_HUB_OFFLINE=1` forbids the network.

    Args:
        source: the Hub id.
        download: what stands for `huggingface_hub.snapshot_download`.

    Raises:
        CheckpointRefused: the id is malformed or unknown, closed to this user, or not cached while there is no network.
        MissingExtra: huggingface_hub is not installed.
    """
    parts = HUB_ID.fullmatch(source)
    if parts is None:
        raise CheckpointRefused("there is no such directory, and it is no Hub id (org/model or org/model@revision).")
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise MissingExtra(
            f'a Hub id ({source!r}) needs huggingface_hub: pip install "pytest-circuits[hf]", or name a directory.'
        ) from error
    repo, revision = parts["repo"], parts["revision"]
    at = f" --revision {revision}" if revision else ""
    try:
        folder = _download(download or snapshot_download, repo, revision)
    except errors.GatedRepoError as error:
        raise CheckpointRefused(
            f"the Hub gives it only to users who were granted access. Ask for it at https://huggingface.co/{repo}, "
            "then `hf auth login`, or set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointRefused(
            "there is no such directory, and no such model on the Hub (or a private one). Check the spelling; for a "
            "private one, `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointRefused(
            f"the Hub has no revision {revision!r} of it. Look for one at https://huggingface.co/{repo}/commits/main."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointRefused(
            "there is no such directory, it is not in the Hub's local cache, and the Hub cannot be asked (no network, "
            f"or HF_HUB_OFFLINE is set). Where there is a network: `hf download {repo}{at}`; or name a directory."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointRefused(
            f"the Hub did not deliver it: {type(error).__name__}: {str(error)!r}. Try again, or name a directory."
        ) from error
    return Snapshot(folder, folder.name)


def _download(download: Download, repo: str, revision: str | None) -> Path:
    """Ask the cache, and the network only when the cache has nothing or a part: a tokenizer fetched on its own."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = {"revision": revision, "allow_patterns": [*WANTED, *WANTED_TOKENIZER], "ignore_patterns": ["*/*"]}
    try:
        folder = Path(download(repo, local_files_only=True, **wanted))
    except LocalEntryNotFoundError:
        return Path(download(repo, **wanted))
    return folder if any(folder.glob("model*.safetensors")) else Path(download(repo, **wanted))

"""A Hub id is found in a local cache; what the Hub answers otherwise becomes a refusal with a remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pytest_circuits.checkpoints.hub import Snapshot, fetch_snapshot
from pytest_circuits.checkpoints.identify import identify
from pytest_circuits.checkpoints.naming import Checkpoint
from pytest_circuits.errors import CheckpointRefused, MissingExtra

errors = pytest.importorskip("huggingface_hub.errors")
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


@pytest.fixture
def cache(tmp_path, fill) -> Path:
    """The layout of the Hub's cache with one model, its contents in blobs and links to them."""
    storage = tmp_path.resolve() / "hub" / "models--org--model"
    snapshot = fill(storage / "snapshots" / COMMIT)
    (storage / "blobs").mkdir()
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(storage / "blobs" / f"sha{number}")
        file.symlink_to(f"../../blobs/sha{number}")
    return storage


@pytest.fixture
def snapshot(cache) -> Snapshot:
    return Snapshot(cache / "snapshots" / COMMIT, COMMIT)


def offline(cache, source):
    """Identify in a process of its own, because the Hub's library reads its environment when it is imported."""
    code = (
        "import sys; from pytest_circuits.checkpoints.identify import identify; "
        "from pytest_circuits.checkpoints.naming import Checkpoint; "
        "from pytest_circuits.errors import CheckpointRefused\n"
        f"try: print(identify(Checkpoint('x', {source!r})).revision)\n"
        "except CheckpointRefused as refused: print(refused)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HUB_CACHE": str(cache.parent), "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("source", ["org/model", "org/model@main", f"org/model@{COMMIT}"])
def test_a_cached_model_is_identified_offline_with_its_commit(cache, source):
    assert offline(cache, source) == COMMIT


def test_a_model_that_is_not_cached_is_refused_offline_with_the_command_that_fetches_it(cache):
    assert offline(cache, "org/other@v1") == (
        "refused: 'org/other@v1': there is no such directory, it is not in the Hub's local cache, and the Hub cannot "
        "be asked (no network, or HF_HUB_OFFLINE is set). Where there is a network: `hf download org/other --revision "
        "v1`; or name a directory."
    )


def test_the_links_of_a_snapshot_may_point_into_its_own_blobs(snapshot):
    found = identify(Checkpoint("model", "org/model"), fetch=lambda source: snapshot)

    assert (found.directory, found.revision) == (snapshot.directory, COMMIT)


@pytest.mark.parametrize("target", ["../../../elsewhere", "../../blobs/deep/elsewhere", "../../refs/elsewhere"])
def test_the_links_of_a_snapshot_may_point_nowhere_else(cache, snapshot, target):
    elsewhere = snapshot.directory / target
    elsewhere.parent.mkdir(exist_ok=True)
    elsewhere.write_text("{}")
    (snapshot.directory / "added_tokens.json").symlink_to(target)

    with pytest.raises(CheckpointRefused, match="'added_tokens.json' is a link out of the checkpoint"):
        identify(Checkpoint("model", "org/model"), fetch=lambda source: snapshot)


def test_a_snapshot_is_checked_like_any_directory(snapshot):
    (snapshot.directory / "modeling_x.py").touch()

    with pytest.raises(CheckpointRefused, match="'modeling_x.py' is Python code"):
        identify(Checkpoint("model", "org/model"), fetch=lambda source: snapshot)


class Hub:
    """Stands for `snapshot_download`: remembers how it was called, returns a folder or raises for cache and network."""

    def __init__(self, *, cached, online):
        self.calls, self.cached, self.online = [], cached, online

    def __call__(self, repo, *, local_files_only=False, **asked):
        self.calls.append((repo, local_files_only, asked))
        answer = self.cached if local_files_only else self.online
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


NOT_CACHED = errors.LocalEntryNotFoundError("not here")


def test_what_is_cached_is_not_looked_up_again(snapshot):
    hub = Hub(cached=snapshot.directory, online=AssertionError("asked the network"))

    assert fetch_snapshot("org/model", download=hub) == snapshot


def test_what_is_not_cached_is_fetched(snapshot):
    hub = Hub(cached=NOT_CACHED, online=snapshot.directory)

    assert fetch_snapshot("org/model@v1", download=hub) == snapshot
    assert [(repo, local, asked["revision"]) for repo, local, asked in hub.calls] == [
        ("org/model", True, "v1"),
        ("org/model", False, "v1"),
    ]


def test_a_part_of_a_model_in_the_cache_is_completed(snapshot):
    part = snapshot.directory.with_name("part")
    part.mkdir()

    assert fetch_snapshot("org/model", download=Hub(cached=part, online=snapshot.directory)) == snapshot


def test_neither_code_nor_pickles_nor_subfolders_are_fetched(snapshot):
    from huggingface_hub.utils import filter_repo_objects

    hub = Hub(cached=NOT_CACHED, online=snapshot.directory)
    fetch_snapshot("org/model", download=hub)
    asked = hub.calls[-1][2]
    wanted = ["config.json", "model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"]
    wanted += ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"]
    others = ["modeling_x.py", "pytorch_model.bin", "onnx/config.json", "consolidated.safetensors", "README.md"]

    found = filter_repo_objects(
        [*wanted, *others], allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
    )

    assert list(found) == wanted


ANSWER = types.SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.GatedRepoError("no", response=ANSWER),
            "the Hub gives it only to users who were granted access. Ask for it at https://huggingface.co/org/model, "
            "then `hf auth login`, or set HF_TOKEN.",
        ),
        (
            errors.RepositoryNotFoundError("no", response=ANSWER),
            "there is no such directory, and no such model on the Hub (or a private one). Check the spelling; for a "
            "private one, `hf auth login` or set HF_TOKEN.",
        ),
        (
            errors.RevisionNotFoundError("no", response=ANSWER),
            "the Hub has no revision 'v1' of it. Look for one at https://huggingface.co/org/model/commits/main.",
        ),
        (
            NOT_CACHED,
            "there is no such directory, it is not in the Hub's local cache, and the Hub cannot be asked (no network, "
            "or HF_HUB_OFFLINE is set). Where there is a network: `hf download org/model --revision v1`; or name a "
            "directory.",
        ),
        (
            errors.HfHubHTTPError("500\n::error::", response=ANSWER),
            "the Hub did not deliver it: HfHubHTTPError: '500\\n::error::'. Try again, or name a directory.",
        ),
        (
            OSError(28, "No space left on device"),
            "the Hub did not deliver it: OSError: '[Errno 28] No space left on device'. Try again, or name a "
            "directory.",
        ),
    ],
)
def test_what_the_hub_answers_becomes_a_refusal_with_a_remedy(error, message):
    with pytest.raises(CheckpointRefused) as caught:
        fetch_snapshot("org/model@v1", download=Hub(cached=NOT_CACHED, online=error))

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "source", ["./out/step-1000", "../out", "a/b/c", "org/model@", "org/model@../x", "org/", "~/x", "a b"]
)
def test_what_is_neither_a_directory_nor_a_hub_id_is_refused_without_asking(source):
    hub = Hub(cached=AssertionError("asked"), online=AssertionError("asked"))

    with pytest.raises(CheckpointRefused, match=r"there is no such directory, and it is no Hub id \(org/model or "):
        fetch_snapshot(source, download=hub)


def test_without_the_hubs_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(MissingExtra, match=r"'org/model'\) needs huggingface_hub: pip install .* or name a directory"):
        fetch_snapshot("org/model")

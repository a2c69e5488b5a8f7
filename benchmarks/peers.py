"""One head out by other tools beside ours: `python benchmarks/peers.py [--json] [--work DIR]`.

Each tool is installed, in its newest version, into an environment of its own below DIR, and reads the same weights and
the same token ids from there. Nothing is asked of a hub.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from sweep import all_heads, swept
from workload import bound, environment, made_pairs, random_module, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded
    from pytest_circuits.spec.components import Head

HERE = Path(__file__).parent
PEERS = ("transformer-lens", "nnsight")
MODEL, PAIRS, TOKENS, SHARED = "gpt2-small", 8, 16, 10


class PeerFailed(Exception):
    """A tool could not be installed, or did not run; the message is the last line that it wrote."""


class Peer:
    """Another tool in a process of its own, which waits while it is not asked."""

    def __init__(self, name: str, work: Path) -> None:
        """Install it, start it, and wait until it has loaded the model."""
        self.log = work / f"{name}.log"
        self.log.write_bytes(b"")
        home = work / name
        if not (home / "bin" / "python").exists():
            venv.create(home, with_pip=True)
        python = str(home / "bin" / "python")
        constraints = str(HERE.parent / "constraints.txt")
        self._call([python, "-m", "pip", "install", "-q", "--upgrade", "-c", constraints, name])
        self.process = subprocess.Popen(
            [python, str(HERE / f"peer_{name.replace('-', '_')}.py"), str(work / "model"), str(work / "prompts.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("ab"),
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        self.version = self._answer()["version"]
        self.seconds: list[float] = []

    def without(self, heads: Sequence[Head]) -> np.ndarray:
        """Return the logit differences with each of these heads out, in (heads, pairs), and note how long it took."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([(head.layer, head.head) for head in heads]) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer["seconds"] / len(heads))
        return np.array(answer["found"])

    def stop(self) -> None:
        """End its process."""
        self.process.communicate()

    def _call(self, command: list[str]) -> None:
        with self.log.open("ab") as log:
            if subprocess.run(command, stdout=log, stderr=log).returncode:
                raise PeerFailed(self._last_line())

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise PeerFailed(self._last_line())
        return json.loads(line)

    def _last_line(self) -> str:
        return self.log.read_text(errors="replace").strip().rpartition("\n")[2]


def beside(peer: Peer, model: BoundModel, rows: Sequence[Encoded], *, rounds: int, sample: int) -> dict[str, Any]:
    """Return seconds a head for us and for a tool, measured in turn, and how far their numbers are apart."""
    heads, own, apart = all_heads(model), [], 0.0
    some = heads[:: max(1, len(heads) // sample)]
    ours = swept(model, rows, heads)[1][[heads.index(head) for head in some]]
    for _ in range(rounds):
        own.append(seconds(lambda: swept(model, rows, heads), model.device) / len(heads))
        apart = max(apart, float(np.abs(peer.without(some) - ours).max()))
    peer.stop()
    return {
        "version": peer.version,
        "sample": len(some),
        "seconds_per_head": median(peer.seconds),
        "our_seconds_per_head": median(own),
        "ratio": median(peer.seconds) / median(own),
        "max_abs_diff": apart,
    }


def measured(work: Path, *, rounds: int, sample: int) -> dict[str, Any]:
    """Return what each tool measures; for one that cannot, its last words."""
    module = random_module(MODEL)
    module.save_pretrained(work / "model")
    rows = made_pairs(PAIRS, TOKENS, SHARED, vocabulary=module.config.vocab_size)
    ids = [[getattr(row, name) for row in rows] for name in ("clean", "corrupt")]
    (work / "prompts.json").write_text(json.dumps([*ids, [(row.answer, row.foil) for row in rows]]))
    model, found = bound(module, MODEL), {}
    for name in PEERS:
        try:
            found[name] = beside(Peer(name, work), model, rows, rounds=rounds, sample=sample)
        except PeerFailed as error:
            found[name] = {"error": str(error)}
    shape = {"model": MODEL, "pairs": PAIRS, "tokens": TOKENS, "shared": SHARED}
    return {**environment(model.device, "float32"), **shape, "peers": found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", type=Path, help="where environments and weights are kept (a folder that is deleted)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=12, help="heads that each tool runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = (options.work or Path(name)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        found = measured(work, rounds=options.rounds, sample=options.sample)
    print(json.dumps(found) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()

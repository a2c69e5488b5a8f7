"""How long collecting takes, beside as many plain test functions: `python benchmarks/collect.py [--json]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = Path(__file__).parents[1] / "specs" / "tiny" / "successor.circuit.yaml"
CHECKS = 6
ITEMS = 6000
CHECKPOINTS = ("a=builtin:tiny", "b=builtin:tiny-tuned")


def seconds(folder: Path, *arguments: str) -> float:
    """Return the wall-clock seconds of `pytest --collect-only` in a process that loads no plugin but ours."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "pytest_circuits.plugin", *arguments]
    began = time.perf_counter()
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""}
    )
    return time.perf_counter() - began


def write_suites(root: Path) -> None:
    """Write specs that make ITEMS items, as many plain test functions in as many files, and a suite with neither."""
    text = SPEC.read_text(encoding="utf-8")
    data = SPEC.with_name("successor.csv")
    (root / "pytest.ini").write_text("[pytest]\n")
    for folder in ("specs", "plain", "empty"):
        (root / folder).mkdir()
    (root / "specs" / data.name).write_text(data.read_text(encoding="utf-8"))
    files = ITEMS // (CHECKS * len(CHECKPOINTS))
    functions = "".join(f"def test_{number}(): pass\n" for number in range(ITEMS // files))
    for number in range(files):
        (root / "specs" / f"circuit-{number}.circuit.yaml").write_text(text)
        (root / "plain" / f"test_plain_{number}.py").write_text(functions)
    (root / "empty" / "test_one.py").write_text("def test_one(): pass\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    options = [f"--circuits-checkpoint={checkpoint}" for checkpoint in CHECKPOINTS]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_suites(root)
        found = {
            "items": ITEMS,
            "specs_seconds": min(seconds(root, "specs", *options) for _ in range(3)),
            "plain_functions_seconds": min(seconds(root, "plain") for _ in range(3)),
            "nothing_seconds": min(seconds(root, "empty") for _ in range(3)),
        }
    found["ratio_to_plain_functions"] = found["specs_seconds"] / found["plain_functions_seconds"]
    print(json.dumps(found) if as_json else "\n".join(f"{key}: {value:.3g}" for key, value in found.items()))


if __name__ == "__main__":
    main()

"""`make bench`: the whole way in a fresh workspace, twice, and the model beside the peers it has to beat.

    python -m benchmarks.lifecycle [--workspace DIR] [key=value ..]

Without --workspace a copy of this checkout is made and run from nothing; with it, the last two runs of an existing workspace are read.
Writes docs/benchmarks.md and docs/benchmarks.svg.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from components.params import load_block
from components.stage import read_metrics
from components.workspace import CONTENT_STEPS, Workspace
from data.config import PackConfig
from model.config import EvaluateConfig

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="read the last two runs of this workspace instead of making them")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace) if arguments.workspace else fresh_runs(arguments.overrides)
    first, second = last_records(workspace)
    peers = measure_peers(workspace)
    (ROOT / "docs" / "benchmarks.md").write_text(render(workspace, first, second, peers))
    plot(peers, ROOT / "docs" / "benchmarks.svg")
    print((ROOT / "docs" / "benchmarks.md").read_text())


def fresh_runs(overrides: list[str]) -> Workspace:
    """A copy of this checkout's tracked files, run from nothing and run again."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-")) / "sluice"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    for _ in range(2):
        environment = {**os.environ, "SLUICE_WORKSPACE": str(folder), "PYTHONPATH": str(folder)}
        subprocess.run([sys.executable, "-m", "pipelines.cli", "run", *overrides], cwd=folder, env=environment, check=True)
    return Workspace(folder)


def last_records(workspace: Workspace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest run in which every content step ran, and the newest in which all were cached."""
    records = [json.loads(path.read_text()) for path in sorted(workspace.runs.glob("*/record.json"))]

    def cached_steps(record: dict[str, Any]) -> int:
        return sum(step["cached"] for step in record["steps"])

    full = [record for record in records if cached_steps(record) == 0]
    cached = [record for record in records if cached_steps(record) == len(CONTENT_STEPS)]
    if not full or not cached:
        raise SystemExit(f"{workspace.runs} holds no pair of a full and a cached run: leave --workspace out")
    return full[-1], cached[-1]


def measure_peers(workspace: Workspace) -> dict[str, Any]:
    """Bits per byte of the peers on the very bytes that the model was scored on."""
    from model.evaluation.baselines import NgramModel, xz_bits_per_byte
    from model.evaluation.harness import held_out_texts, training_texts

    evaluate, split = load_block(workspace, "evaluate"), load_block(workspace, "pack")
    assert isinstance(evaluate, EvaluateConfig)
    assert isinstance(split, PackConfig)
    texts = held_out_texts(workspace.artifact("refine"), split, evaluate)
    training = training_texts(workspace.artifact("refine"), split)
    measured = read_metrics(workspace, "evaluate")
    return {
        "model": measured["bits_per_byte"],
        "ngram": NgramModel.train(training, order=5).bits_per_byte(texts),
        "xz": xz_bits_per_byte(texts),
        "xz_primed": xz_bits_per_byte(texts, primed_by=training),
        "evaluate": measured,
        "documents": len(texts),
        "bytes": sum(len(text.encode()) for text in texts),
    }

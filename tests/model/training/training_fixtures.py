"""Processes that train on a packed corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
MODEL: dict[str, Any] = {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "context": 32}


def write_request(folder: Path, corpus: Path, config: dict[str, Any]) -> Path:
    """A request for `python -m sluice.model.training.pretrain` that works below `folder`."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    content = {
        "config": config,
        "model": MODEL,
        "packed": str(corpus / "pack"),
        "tokenizer": str(corpus / "tokenizer"),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
    }
    (folder / "request.json").write_text(json.dumps(content))
    return folder / "request.json"


def pretrain_in_a_rank(request: str) -> None:
    """`python -m sluice.model.training.pretrain REQUEST`, for a RankPool."""
    from sluice.model.training import pretrain

    sys.argv = ["pretrain", request]
    pretrain.main()


def torchrun(workers: int, *arguments: str) -> list[str]:
    """Command line that runs a script, or `-m` a module, in `workers` processes."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a process that trains without Ray."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "model")))
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


HANG_S = 1800
"""No run takes so long on the slowest machine: what does hangs."""


def run_to_any_end(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end, whichever it is."""
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=HANG_S, check=False
    )


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end; a failure shows what the process said."""
    done = run_to_any_end(command)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """training.jsonl of a finished run."""
    return [json.loads(line) for line in (folder / "out" / "training.jsonl").read_text().splitlines()]

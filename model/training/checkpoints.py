"""Checkpoints inside a run: what makes it go on, to the last bit, after any process died at any moment.

Each rank writes its own optimizer state and rank 0 the weights, as safetensors of our own rather than DeepSpeed's
checkpoints: those are pickles, and what a run needs is no more than the tensors that the optimizer steps. A checkpoint
belongs to one world size.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

_MANIFEST = "manifest.json"
_WEIGHTS = "weights.safetensors"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` optimizer steps, as one rank reads it."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    log: list[dict[str, Any]]
    """Rows of training.jsonl up to this step."""


def write_rank(folder: Path, step: int, rank: int, optimizer: dict[str, Tensor]) -> None:
    """Write what rank `rank` alone holds. To be followed, once every rank has, by `seal` on rank 0."""
    partial = _partial(folder, step)
    partial.mkdir(parents=True, exist_ok=True)
    _write_tensors(partial / _rank_file(rank), optimizer)


def seal(folder: Path, step: int, weights: dict[str, Tensor], log: list[dict[str, Any]], keep: int) -> None:
    """Complete the checkpoint with what all ranks share, move it into place, and keep the newest `keep`."""
    partial = _partial(folder, step)
    _write_tensors(partial / _WEIGHTS, weights)
    files = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    _write_synced(partial / _MANIFEST, json.dumps({"step": step, "files": files, "log": log}).encode())
    final = folder / f"step-{step:08d}"
    # One that is in the way was found torn, or this run would have gone on from it.
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in _complete(folder)[keep:]:
        shutil.rmtree(old)


def newest_intact(folder: Path) -> int | None:
    """Step of the newest checkpoint whose every file is what its manifest says; None where there is none.

    Partial directories that a killed run left behind are removed.
    """
    for left in folder.glob(f"step-*{_PARTIAL}"):
        shutil.rmtree(left)
    return next((int(path.name.removeprefix("step-")) for path in _complete(folder) if _intact(path)), None)


def read(folder: Path, step: int, rank: int) -> Checkpoint:
    """The checkpoint of `step` as rank `rank` needs it. It must be intact."""
    path = folder / f"step-{step:08d}"
    log = json.loads((path / _MANIFEST).read_text())["log"]
    return Checkpoint(step, load_file(path / _WEIGHTS), load_file(path / _rank_file(rank)), log)


def _complete(folder: Path) -> list[Path]:
    """Checkpoints that were moved into place, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.suffix != _PARTIAL), reverse=True)


def _intact(path: Path) -> bool:
    try:
        files = json.loads((path / _MANIFEST).read_text())["files"]
        return all(_sha256(path / name) == expected for name, expected in files.items())
    except (OSError, json.JSONDecodeError, KeyError):
        return False


def _partial(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}{_PARTIAL}"


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    _sync(path)


def _write_synced(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    """A rename may reach the disk before the data it publishes, unless the data is flushed first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

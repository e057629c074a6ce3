"""Checkpoints inside a run, from which it resumes bit for bit after any process died at any moment.

A checkpoint is a folder of safetensors of our own rather than DeepSpeed's: those are pickles, and belong to one world
size. Each rank writes the shards that it updates (`shards.py`), rank 0 the shared state, then a manifest with the hash
of every file; last, the folder is renamed into place.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sluice.core.manifest import file_hash
from sluice.model.training.checkpointing.shards import ShardFiles, Snapshot, read_own, write_shards

SCHEMA = 2
_MANIFEST, _LOG, _SHARED = "manifest.json", "log.jsonl", "shared.safetensors"
_PARTIAL, _DAMAGED = ".partial", ".damaged"

Extra = Mapping[str, Any]
"""State of a run beside the model, by name: a JSON value, a tensor, or tensors by name."""


@dataclass(frozen=True)
class TrainingCheckpoint:
    """The state of a run after `step` optimizer steps, verified."""

    path: Path
    step: int
    world: int
    """Processes that wrote it."""
    log: list[dict[str, Any]]
    """Rows of training.jsonl up to this step."""
    extra: dict[str, Any]
    shards: ShardFiles

    def own(self, rank: int) -> dict[str, Tensor]:
        """State that rank `rank` saved for itself; empty where there was no such rank."""
        return read_own(self.path / rank_file(rank)) if rank < self.world else {}


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest intact checkpoint of a folder."""

    step: int | None
    notes: tuple[str, ...]
    """One line for the user per damaged checkpoint."""


def write_rank(folder: Path, step: int, rank: int, snapshot: Snapshot, own: Mapping[str, Tensor]) -> str:
    """Write the state of rank `rank` and return its sha256. `seal` follows once every rank has written."""
    partial = partial_path(folder, step)
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / rank_file(rank)
    write_shards(path, snapshot, own)
    _sync(path)
    return file_hash(path)


def seal(folder: Path, step: int, ranks: Sequence[str], log: Iterable[Mapping[str, Any]], extra: Extra) -> None:
    """Complete the checkpoint with the shared state and move it into place. `ranks`: hashes of the ranks' files."""
    partial = partial_path(folder, step)
    plain, tensors = dict[str, Any](), dict[str, Tensor]()
    for name, value in extra.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, Mapping) and value and all(isinstance(each, Tensor) for each in value.values()):
            tensors |= {f"{name}/{key}": each for key, each in value.items()}
        else:
            plain[name] = value
    save_file(tensors, partial / _SHARED)
    (partial / _LOG).write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    hashes = {rank_file(rank): digest for rank, digest in enumerate(ranks)}
    for name in (_SHARED, _LOG):
        _sync(partial / name)
        hashes[name] = file_hash(partial / name)
    content = {"schema": SCHEMA, "step": step, "world": len(ranks), "files": hashes, "extra": plain}
    manifest = partial / _MANIFEST
    manifest.write_text(json.dumps({**content, "sha256": _digest(content)}), encoding="utf-8")
    _sync(manifest)
    final = checkpoint_path(folder, step)
    # One in the way is damaged, or this run would have resumed from it.
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)


def retire(folder: Path, keep: int, keep_every: int | None) -> None:
    """Remove the checkpoints that `outdated` names."""
    for step in outdated(complete_steps(folder), keep, keep_every):
        shutil.rmtree(checkpoint_path(folder, step))


def outdated(steps: Iterable[int], keep: int, keep_every: int | None) -> list[int]:
    """Steps that are neither among the newest `keep` nor milestones (multiples of `keep_every`)."""
    newest_first = sorted(steps, reverse=True)
    return [step for step in newest_first[keep:] if keep_every is None or step % keep_every]


def find_newest(folder: Path) -> FoundCheckpoint:
    """Find the newest checkpoint whose files all match its manifest.

    A damaged one is renamed and noted; partial ones of a killed run are removed. One process calls it, before a run
    begins.
    """
    for left in folder.glob(f"step-*{_PARTIAL}"):
        shutil.rmtree(left)
    notes: list[str] = []
    for step in sorted(complete_steps(folder), reverse=True):
        path = checkpoint_path(folder, step)
        if (reason := damage(path)) is None:
            return FoundCheckpoint(step, tuple(notes))
        aside = path.with_name(path.name + _DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        notes.append(f"checkpoint of step {step} is damaged ({reason}) and set aside as {aside.name}")
    return FoundCheckpoint(None, tuple(notes))


def damage(path: Path) -> str | None:
    """Why a checkpoint cannot be resumed from; None if it can."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        content = {name: value for name, value in manifest.items() if name != "sha256"}
        if manifest["sha256"] != _digest(content):
            return f"{_MANIFEST} has changed since it was written"
        if manifest["schema"] != SCHEMA:
            return f"schema {manifest['schema']}, where this version reads {SCHEMA}"
        for name, expected in manifest["files"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if file_hash(path / name) != expected:
                return f"{name} has changed since it was written"
    except FileNotFoundError:
        return f"{_MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MANIFEST} cannot be read: {error}"
    return None


def open_checkpoint(path: Path) -> TrainingCheckpoint:
    """Open a checkpoint by the path of its folder. Raises ValueError where it is missing or damaged."""
    if (reason := damage(path)) is not None:
        raise ValueError(f"{path} is not a checkpoint to resume from ({reason}): name an intact step-* folder")
    return read(path)


def read(path: Path) -> TrainingCheckpoint:
    """Read a checkpoint that is known to be intact."""
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (path / _LOG).read_text(encoding="utf-8").splitlines()]
    extra: dict[str, Any] = dict(manifest["extra"])
    for name, tensor in load_file(path / _SHARED).items():
        group, _, key = name.partition("/")
        if key:
            extra.setdefault(group, {})[key] = tensor
        else:
            extra[name] = tensor
    world = manifest["world"]
    shards = ShardFiles([path / rank_file(rank) for rank in range(world)])
    return TrainingCheckpoint(path, manifest["step"], world, log, extra, shards)


def complete_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that were moved into place."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return [int(name) for name in names if name.isdecimal()]


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def partial_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}{_PARTIAL}"


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    """Flush to disk: otherwise a rename may reach it before the data that it publishes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Saving while training goes on: a copy in the host's memory is taken at once, and a thread writes it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from sluice.model.parallelism.agreement import tell
from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.randomness import random_state
from sluice.model.training.checkpointing.shards import Snapshot

_TIMEOUT = timedelta(minutes=30)
_WRITTEN, _FAILED = "written ", "failed "


@dataclass
class _Writing:
    """One checkpoint on its way to the disk."""

    step: int
    thread: Thread | None = None
    failure: str | None = None
    """Why there is no such checkpoint: the disk's reason."""
    error: BaseException | None = None
    """What should not happen."""


class Saver:
    """Writes the checkpoints of a run below `folder`, at most one at a time. Every process of the group makes one, and
    calls the same methods in the same order.

    A checkpoint that cannot be written, for want of space say, leaves nothing behind and is noted; the run goes on
    with those before it.
    """

    def __init__(
        self, folder: Path, *, rank: int = 0, world: int = 1, keep: int = 2, keep_every: int | None = None
    ) -> None:
        self.folder, self.rank, self.world, self.keep, self.keep_every = folder, rank, world, keep, keep_every
        # Of its own: a thread's collectives must not come between those of the training.
        self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT) if world > 1 else None
        self._writing: _Writing | None = None
        self._notes: list[str] = []

    def save(self, step: int, snapshot: Snapshot, log: Sequence[Mapping[str, Any]], extra: checkpoints.Extra) -> None:
        """Begin to write the state after `step` steps; first wait for the checkpoint before. What is passed may change
        from here on. `extra` and `log` are rank 0's, and are not read on the others.
        """
        self.wait()
        log, extra = list(log), _to_host(extra) if self.rank == 0 else {}
        writing = self._writing = _Writing(step)
        arguments = (writing, snapshot, random_state(), log, extra)
        writing.thread = Thread(target=self._run, args=arguments, name=f"checkpoint of step {step}")
        writing.thread.start()

    def wait(self) -> str | None:
        """Until nothing is being written. Why the last checkpoint could not be written; None if it is safe."""
        writing = self._writing
        if writing is None:
            return None
        if writing.thread is not None:
            writing.thread.join()
            writing.thread = None
            if writing.failure:
                self._notes.append(f"the checkpoint of step {writing.step} was not written: {writing.failure}")
        if writing.error is not None:
            raise writing.error
        return writing.failure

    def take_notes(self) -> list[str]:
        """One line for each checkpoint that could not be written and was not told of yet."""
        notes, self._notes = self._notes, []
        return notes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception:
            # What ended the run is the reason to show.
            if error is None:
                raise

    def _run(self, writing: _Writing, *state: Any) -> None:
        try:
            writing.failure = self._write(writing.step, *state)
        except BaseException as error:  # raised again in the thread that waits
            writing.error = error

    def _write(
        self, step: int, snapshot: Snapshot, own: dict[str, Tensor], log: list[dict[str, Any]], extra: dict[str, Any]
    ) -> str | None:
        """Why there is no checkpoint, the same on all ranks."""
        try:
            digest = checkpoints.write_rank(self.folder, step, self.rank, snapshot, own)
            answers = self._tell(_WRITTEN + digest)
        except (OSError, SafetensorError) as error:
            answers = self._tell(_FAILED + _one_line(error))
        failure = next((each.removeprefix(_FAILED) for each in answers if each.startswith(_FAILED)), None)
        if self.rank == 0 and failure is None:
            try:
                checkpoints.seal(self.folder, step, [each.removeprefix(_WRITTEN) for each in answers], log, extra)
            except (OSError, SafetensorError) as error:
                failure = _one_line(error)
            else:
                self._retire()
        if self.rank == 0 and failure is not None:
            shutil.rmtree(checkpoints.partial_path(self.folder, step), ignore_errors=True)
        return self._tell(failure or "")[0] or None

    def _retire(self) -> None:
        """An old checkpoint that cannot be removed does not unmake the new one."""
        try:
            checkpoints.retire(self.folder, self.keep, self.keep_every)
        except OSError as error:
            self._notes.append(f"an old checkpoint was not removed: {_one_line(error)}")

    def _tell(self, message: str) -> list[str]:
        return tell(message, self.world, group=self._group)


def _to_host(extra: checkpoints.Extra) -> dict[str, Any]:
    """A copy in the host's memory."""
    return {name: _copied(value) for name, value in extra.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return list(value) if isinstance(value, list) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

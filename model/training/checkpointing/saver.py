"""Asynchronous checkpoints: the state is copied to the host's memory at once, and a thread writes it."""

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

from sluice.model.parallelism.all_gather_text import all_gather_text
from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.randomness import random_state
from sluice.model.training.checkpointing.shards import Snapshot

_TIMEOUT = timedelta(minutes=30)
_WRITTEN, _FAILED = "written ", "failed "


@dataclass
class _Writing:
    """One checkpoint that is being written."""

    step: int
    thread: Thread | None = None
    failure: str | None = None
    """Why the checkpoint could not be written, from the OS."""
    error: BaseException | None = None
    """An unexpected error, raised again by `wait`."""


class Saver:
    """Writes the checkpoints of a run below `folder`, at most one at a time. Every process of the group makes one, and
    calls the same methods in the same order.

    A checkpoint that cannot be written, for lack of space for example, leaves nothing behind and is noted; the run
    keeps those before it.
    """

    def __init__(
        self, folder: Path, *, rank: int = 0, world: int = 1, keep: int = 2, keep_every: int | None = None
    ) -> None:
        self.folder, self.rank, self.world, self.keep, self.keep_every = folder, rank, world, keep, keep_every
        # A group of its own: the thread's collectives must not interleave with those of the training.
        self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT) if world > 1 else None
        self._writing: _Writing | None = None
        self._notes: list[str] = []

    def save(self, step: int, snapshot: Snapshot, log: Sequence[Mapping[str, Any]], extra: checkpoints.Extra) -> None:
        """Begin to write the state after `step` steps; first wait for the checkpoint before. What is passed may change
        from here on. `extra` and `log` are rank 0's, and are not read on the others.
        """
        self.wait()
        own, rows = random_state(), list(log)
        shared = {name: _copied(value) for name, value in extra.items()} if self.rank == 0 else {}
        writing = self._writing = _Writing(step)

        def write() -> None:
            try:
                writing.failure = self._write(step, snapshot, own, rows, shared)
            except BaseException as error:  # raised again in the thread that waits
                writing.error = error

        writing.thread = Thread(target=write, name=f"checkpoint of step {step}")
        writing.thread.start()

    def wait(self) -> str | None:
        """Wait until nothing is being written. Returns why the last checkpoint could not be written, or None."""
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
        """One line per checkpoint that could not be written, since the last call."""
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

    def _write(
        self,
        step: int,
        snapshot: Snapshot,
        own: dict[str, Tensor],
        log: Sequence[Mapping[str, Any]],
        extra: checkpoints.Extra,
    ) -> str | None:
        """Write the checkpoint. Returns why it failed, the same on all ranks, or None."""
        try:
            digest = checkpoints.write_rank(self.folder, step, self.rank, snapshot, own)
            answers = self._exchange(_WRITTEN + digest)
        except (OSError, SafetensorError) as error:
            answers = self._exchange(_FAILED + _one_line(error))
        failure = next((each.removeprefix(_FAILED) for each in answers if each.startswith(_FAILED)), None)
        if self.rank == 0 and failure is None:
            try:
                checkpoints.seal(self.folder, step, [each.removeprefix(_WRITTEN) for each in answers], log, extra)
            except (OSError, SafetensorError) as error:
                failure = _one_line(error)
            else:
                try:
                    checkpoints.retire(self.folder, self.keep, self.keep_every)
                except OSError as error:
                    # The new checkpoint is safe.
                    self._notes.append(f"an old checkpoint was not removed: {_one_line(error)}")
        if self.rank == 0 and failure is not None:
            shutil.rmtree(checkpoints.partial_path(self.folder, step), ignore_errors=True)
        return self._exchange(failure or "")[0] or None

    def _exchange(self, message: str) -> list[str]:
        return all_gather_text(message, self.world, group=self._group)


def _copied(value: Any) -> Any:
    """A copy in the host's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return list(value) if isinstance(value, list) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

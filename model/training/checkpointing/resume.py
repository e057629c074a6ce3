"""Save and resume the whole state of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from sluice.model.architecture.config import TransformerConfig
from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.decay_branch import check_same
from sluice.model.training.checkpointing.randomness import set_random_state
from sluice.model.training.checkpointing.resharding import (
    checkpoint_names,
    loss_scale_state,
    read_average,
    restore,
    restore_loss_scale,
    take_snapshot,
)
from sluice.model.training.checkpointing.saver import Saver
from sluice.model.training.engines.engine import TrainingEngine
from sluice.model.training.errors import TrainingFailed, TrainingInterrupted
from sluice.model.training.optimization.averaging import WeightAverage
from sluice.model.training.optimization.guard import StepGuard


class CheckpointManager:
    """The checkpoints of one run below `folder`: weights, optimizer, random numbers, guard, average and log.

    The schedule and the data have no state: they are functions of the step. Every process of the run creates one and
    calls the same methods in the same order.
    """

    def __init__(
        self,
        folder: Path,
        engine: TrainingEngine,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        guard: StepGuard | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        self.folder, self.engine, self.guard, self.average = folder, engine, guard, average
        joined = dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        self._saver = Saver(folder, rank=self.rank, world=self.world, keep=keep, keep_every=keep_every)
        self._notes: list[str] = []
        self.branch: int | None = None
        """For a decay branch: the step of the plateau that it started from."""

    def resume(self, others: Sequence[Path] = ()) -> tuple[int, list[dict[str, Any]]]:
        """Resume from the newest intact checkpoint, if any, also of `others`: folders of this run in other layouts.

        Returns the number of steps done and their log.
        """
        folders = (self.folder, *others)
        found = torch.full((2,), -1, dtype=torch.int64, device=next(self.engine.model.parameters()).device)
        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            newest = [checkpoints.find_newest(folder) for folder in folders]
            self._notes.extend(note for each in newest for note in each.notes)
            steps = [-1 if each.step is None else each.step for each in newest]
            # Step and folder of the furthest: the first folder if several are equal.
            found.copy_(torch.tensor((max(steps), steps.index(max(steps)))))
        if self.world > 1:
            # One answer for all: two ranks that read the folders at different times must not disagree.
            dist.broadcast(found, src=0)
        step, place = found.tolist()
        if step < 0:
            if self._notes:
                self._notes.append("no intact checkpoint is left: the run starts over")
            return 0, []
        how = ", saved in another layout: equal but for rounding" if place else ""
        self._notes.append(f"resumes from step {step}{how}")
        return self.load(checkpoints.read(checkpoints.checkpoint_path(folders[place], step)))

    def load(self, checkpoint: checkpoints.TrainingCheckpoint) -> tuple[int, list[dict[str, Any]]]:
        """Resume from a checkpoint of this run."""
        named, optimizer, extra = checkpoint_names(self.engine.model), _stepping(self.engine), checkpoint.extra
        restore(named, optimizer, checkpoint.shards)
        restore_loss_scale(optimizer, extra["loss_scale"])
        if self.guard is not None and extra["guard"] is not None:
            self.guard.load_state_dict(extra["guard"])
        if self.average is not None and extra["average_updates"] is not None:
            self.average.load(read_average(named, checkpoint.shards), extra["average_updates"])
        # Older plateaus had none.
        self.branch = extra.get("branch")
        set_random_state(checkpoint.own(self.rank))
        return checkpoint.step, checkpoint.log

    def branch_from(
        self, plateau: checkpoints.TrainingCheckpoint, shape: TransformerConfig, optimizer: str
    ) -> tuple[int, list[dict[str, Any]]]:
        """Begin a decay branch of another run. Raises ValueError for another model or optimizer."""
        check_same(plateau, shape, optimizer)
        done, log = self.load(plateau)
        self.branch = plateau.step
        return done, log

    def save(self, step: int, log: Sequence[Mapping[str, Any]]) -> None:
        """Begin to save the state after `step` steps; return as soon as it is copied."""
        engine, optimizer = self.engine, _stepping(self.engine)
        average = self.average.state() if self.average else None
        extra = {
            "guard": self.guard.state_dict() if self.guard else None,
            "average_updates": self.average.updates if self.average else None,
            "loss_scale": loss_scale_state(optimizer),
            "branch": self.branch,
        }
        snapshot = take_snapshot(checkpoint_names(engine.model), optimizer, replica=engine.rank, average=average)
        self._saver.save(step, snapshot, log, extra)

    def finish(self) -> str | None:
        """Wait until the last checkpoint is on the disk. Returns why it is not, or None."""
        return self._saver.wait()

    def take_notes(self) -> list[str]:
        """New lines for the user: checkpoints that are damaged or could not be written."""
        notes, self._notes = self._notes + self._saver.take_notes(), []
        return notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._saver.__exit__(kind, error, trace)
        if isinstance(error, TrainingInterrupted) and (reason := self._saver.wait()) is not None:
            raise TrainingFailed(f"stop requested, but the state could not be saved: {reason}") from error


def _stepping(engine: Any) -> Any:
    """The optimizer that updates the weights: DeepSpeed's wrapper of torch's, or torch's."""
    return engine._engine.optimizer if hasattr(engine, "_engine") else engine.optimizer

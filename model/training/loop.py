"""The training loop, top to bottom: what surrounds it (`LoopHooks`), the loop (`train`), one step, validation.

It runs the same under Ray Train, torchrun and a plain call: `worker.py` sets it up for one process of a run, `trial.py`
for a whole run in one process.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sluice.core.progress import Progress
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.engine import StepOutcome, TrainingEngine
from sluice.model.training.errors import TrainingFailed, TrainingInterrupted
from sluice.model.training.optimization.averaging import WeightAverage
from sluice.model.training.optimization.guard import StepGuard
from sluice.model.training.optimization.optimizer import set_learning_rate

_PROGRESS_EVERY_S = 0.5
_ADVICE = "lower the learning rate or lengthen the warm-up"


@dataclass(frozen=True)
class StepRecord:
    """Result of one optimizer step."""

    step: int
    """Counted from 1."""
    loss: float
    """Nats a token, over all workers."""
    tokens: int
    """Targets that count in the loss, over all workers."""
    read: int
    """Tokens that the model computed on, over all workers, including those whose targets do not count."""
    gradient_norm: float | None
    """Global, before clipping; None where neither guard nor observer needs it."""
    skipped: str | None
    """Why the step was skipped."""


@dataclass(frozen=True)
class LoopHooks:
    """Settings and callbacks of a loop."""

    steps: int
    micro_batch_size: int
    learning_rate_scale: Callable[[int], float]
    """Factor of the peak learning rate, by the step counted from 0."""
    batch: Callable[[int], Batch]
    """This worker's share of a step, counted from 0."""
    guard: StepGuard | None = None
    """Skips steps whose loss or gradient is far from those before."""
    average: WeightAverage | None = None
    """The average that is validated and saved in place of the last weights."""
    validate: Callable[[], Mapping[str, Any]] | None = None
    """Returns a row of the log."""
    validate_every: int = 1
    save: Callable[[int, list[dict[str, Any]]], None] | None = None
    """Called with the number of steps done and the log so far."""
    save_every: int = 1
    inspect: Callable[[int], None] | None = None
    """Called with the step, counted from 1, when its gradient is complete and the weights have not moved yet."""
    observe: Callable[[StepRecord], Mapping[str, Any]] | None = None
    """Called after each step; returns entries of the step's row of the log."""
    diagnose: Callable[[Batch, int, str], str] = lambda batch, step, what: f"{what} at step {step}"
    """Called with the batch, the step counted from 1 and what is not finite; returns one line that locates its origin.
    """
    preempted: Callable[[], bool] = lambda: False
    """Whether this run was asked to stop; the same answer on every worker."""
    beat: Callable[[], None] = lambda: None
    """Called whenever there is progress."""


@dataclass
class LoopClock:
    """Seconds by what they were spent on. Never compared between runs."""

    train: float = 0.0
    validate: float = 0.0
    save: float = 0.0
    tokens: int = 0
    """Tokens read by all workers in the life of this process."""
    _last_progress: float = field(default=-math.inf, repr=False)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to the attribute `name`."""
        started = time.perf_counter()
        yield
        setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    def progress_due(self) -> bool:
        """Return whether progress was last reported some time ago."""
        now = time.perf_counter()
        due = now - self._last_progress >= _PROGRESS_EVERY_S
        self._last_progress = now if due else self._last_progress
        return due


def train(
    engine: TrainingEngine,
    hooks: LoopHooks,
    *,
    done: int,
    log: list[dict[str, Any]],
    progress: Progress,
    clock: LoopClock,
) -> list[dict[str, Any]]:
    """Train from `done` steps to `hooks.steps` and return the log: one row per step, one per validation.

    Raises TrainingFailed at the first loss or gradient that is not finite, before it reaches the weights, and
    TrainingInterrupted, after saving, when the run was asked to stop.
    """
    log = list(log)
    engine.model.train()
    for step in range(done, hooks.steps):
        with clock.timed("train"):
            set_learning_rate(engine.optimizer, hooks.learning_rate_scale(step))
            record = optimizer_step(engine, hooks, step)
            log.append(_log_row(engine, hooks, record))
        clock.tokens += record.read
        hooks.beat()

        last, stop = step + 1 == hooks.steps, hooks.preempted()
        if hooks.validate is not None and (last or (step + 1) % hooks.validate_every == 0):
            with clock.timed("validate"):
                log.append({"step": step + 1, **hooks.validate()})
        if hooks.save is not None and (last or stop or (step + 1) % hooks.save_every == 0):
            with clock.timed("save"):
                hooks.save(step + 1, log)
        hooks.beat()

        if clock.progress_due() or last:
            progress(step + 1, hooks.steps, f"loss {record.loss:.3f}, {clock.tokens / clock.train:,.0f} tokens/s")
        if stop and not last:
            raise TrainingInterrupted(f"stopped on request after step {step + 1} of {hooks.steps}; it is saved")
    return log


def optimizer_step(engine: TrainingEngine, hooks: LoopHooks, step: int) -> StepRecord:
    """One step, counted from 0, on the batch of all workers.

    The loss is divided by the valid tokens of the whole step before the backward pass, so that every token has the same
    weight however tokens are distributed over workers and micro-batches.
    """
    batch = hooks.batch(step).to(next(engine.model.parameters()).device)
    # ids are as many as the model computes on, whatever a mask leaves out of the loss.
    counts = engine.all_reduce_sum(torch.tensor([batch.tokens, batch.ids.numel()]))
    tokens, read = map(int, counts.tolist())
    if tokens == 0:
        raise TrainingFailed(f"step {step + 1} has no token to learn from")

    nll_sum = engine.forward_backward(batch.split(hooks.micro_batch_size), tokens)
    loss = float(engine.all_reduce_sum(nll_sum)) / tokens
    if not math.isfinite(loss):
        raise TrainingFailed(f"{hooks.diagnose(batch, step + 1, f'the loss is {loss}')}: {_ADVICE}")
    norm = None if hooks.guard is None and hooks.observe is None else engine.gradient_norm()
    if hooks.inspect is not None:
        hooks.inspect(step + 1)

    skipped = None
    # A norm that is not finite is refused by the engine's step.
    if hooks.guard is not None and norm is not None and math.isfinite(norm):
        skipped = hooks.guard.judge(loss, norm)
        hooks.guard.observe(loss, norm)
    if skipped:
        engine.discard()
    elif (outcome := engine.step()) is StepOutcome.NOT_FINITE:
        what = f"the gradient is not finite (loss {loss:.3f})"
        raise TrainingFailed(f"{hooks.diagnose(batch, step + 1, what)}: {_ADVICE}")
    elif outcome is StepOutcome.SCALED_DOWN:
        # Its norm is infinite, which is no JSON.
        skipped, norm = f"the gradient overflowed: {outcome.value}", None
    elif hooks.average is not None:
        hooks.average.update()
    return StepRecord(step + 1, loss, tokens, read, norm, skipped)


def _log_row(engine: TrainingEngine, hooks: LoopHooks, record: StepRecord) -> dict[str, Any]:
    row = {"step": record.step, "loss": record.loss, "learning_rate": engine.optimizer.param_groups[-1]["lr"]}
    if record.gradient_norm is not None:
        row["gradient_norm"] = record.gradient_norm
    if record.skipped:
        row["skipped"] = record.skipped
    if (load := engine.expert_load()) is not None:
        # The largest share of a layer's choices that one expert took.
        row |= {"expert_load": load.shares.amax(dim=-1).tolist(), "dropped": load.dropped}
    return row | dict(hooks.observe(record) if hooks.observe else {})


class HeldOut(NamedTuple):
    """Result of a validation, over all workers."""

    loss: float
    """Nats a token."""
    source_nats: Tensor
    """[sources] float64, summed over the targets that count."""
    source_targets: Tensor
    """[sources] float64: the number of those targets."""


def validate(engine: TrainingEngine, batches: Iterable[Batch], sources: int = 0) -> HeldOut:
    """Loss on the `batches` of all workers, in total and by source: the origins of their targets are below `sources`.

    One forward pass per batch. Raises TrainingFailed for a loss that is not finite.
    """
    device = next(engine.model.parameters()).device
    engine.model.eval()
    nll_sum, tokens = torch.zeros((), dtype=torch.float64, device=device), 0
    by_source = torch.zeros(2, sources, dtype=torch.float64)
    for batch in batches:
        each = torch.empty(batch.targets.shape, dtype=torch.float32, device=device) if sources else None
        nll_sum += engine.nll_sum(batch.to(device), each)
        tokens += batch.tokens
        if each is not None:
            assert batch.origins is not None
            counted = torch.ones_like(batch.targets) if batch.mask is None else batch.mask
            # On the CPU, where the order of a sum by index is always the same.
            numbers = batch.origins.flatten().cpu()
            sums = [torch.bincount(numbers, value.flatten().double().cpu(), sources) for value in (each, counted)]
            by_source += torch.stack(sums)
    engine.model.train()

    loss = float(engine.all_reduce_sum(nll_sum)) / float(engine.all_reduce_sum(torch.tensor(tokens)))
    if not math.isfinite(loss):
        raise TrainingFailed(f"the validation loss is {loss}: {_ADVICE}")
    return HeldOut(loss, *(engine.all_reduce_sum(by_source).cpu() if sources else by_source))

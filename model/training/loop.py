"""The training loop. It knows nothing of who started it: Ray Train, torchrun, or a plain call."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sluice.core.progress import Progress
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.engine import Engine, StepOutcome
from sluice.model.training.errors import TrainingFailed, TrainingInterrupted
from sluice.model.training.optimization.averaging import WeightAverage
from sluice.model.training.optimization.guard import StepGuard
from sluice.model.training.optimization.optimizer import set_learning_rate

_PROGRESS_EVERY_S = 0.5
_ADVICE = "lower the learning rate or lengthen the warm-up"


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step was."""

    step: int
    """Counted from 1."""
    loss: float
    """Nats a token, over all workers."""
    tokens: int
    """Targets that counted, over all workers."""
    read: int
    """Tokens that the model computed on, over all workers, those whose targets do not count included."""
    gradient_norm: float | None
    """Global, before clipping; None where nobody asked."""
    skipped: str | None
    """Why the step was left out."""


@dataclass(frozen=True)
class Loop:
    """What happens at which step."""

    steps: int
    micro_batch_size: int
    learning_rate_scale: Callable[[int], float]
    batch: Callable[[int], Batch]
    """This worker's share of a step, counted from 0."""
    guard: StepGuard | None = None
    """Leaves out steps whose loss or gradient is far from those before."""
    average: WeightAverage | None = None
    """What is validated and saved in place of the last weights."""
    validate: Callable[[], Mapping[str, Any]] | None = None
    """What it returns is a row of the log."""
    validate_every: int = 1
    save: Callable[[int, list[dict[str, Any]]], None] | None = None
    """Called with the number of steps done and the log so far."""
    save_every: int = 1
    inspect: Callable[[int], None] | None = None
    """Called with the step, counted from 1, when its gradient is whole and has moved nothing yet."""
    observe: Callable[[StepRecord], Mapping[str, Any]] | None = None
    """Called after each step; what it returns goes into the step's row of the log."""
    diagnose: Callable[[Batch, int, str], str] = lambda batch, step, what: f"{what} at step {step}"
    """Called with the batch, the step counted from 1 and what is not finite; one line that says where it began."""
    preempted: Callable[[], bool] = lambda: False
    """Whether this run has been asked to end; the same answer on every worker."""
    beat: Callable[[], None] = lambda: None
    """Called when there is progress."""


@dataclass
class Clock:
    """Where the time went, in seconds. Never part of what is compared between runs."""

    train: float = 0.0
    validate: float = 0.0
    save: float = 0.0
    tokens: int = 0
    """Tokens read by all workers in this process's life."""
    _last_progress: float = field(default=-math.inf, repr=False)

    def progress_due(self) -> bool:
        now = time.perf_counter()
        due = now - self._last_progress >= _PROGRESS_EVERY_S
        self._last_progress = now if due else self._last_progress
        return due


def train(
    engine: Engine, loop: Loop, *, done: int, log: list[dict[str, Any]], progress: Progress, clock: Clock
) -> list[dict[str, Any]]:
    """Train from `done` steps to `loop.steps` and return the log: one row a step, one a validation.

    Raises TrainingFailed at the first loss or gradient that is not finite, before it reaches the weights, and
    TrainingInterrupted after saving, when the run was asked to end.
    """
    log = list(log)
    engine.model.train()
    for step in range(done, loop.steps):
        started = time.perf_counter()
        set_learning_rate(engine.optimizer, loop.learning_rate_scale(step))
        record = optimizer_step(engine, loop, step)
        log.append(_row(engine, loop, record))
        clock.train += time.perf_counter() - started
        clock.tokens += record.read
        loop.beat()
        last, stop = step + 1 == loop.steps, loop.preempted()
        if loop.validate and (last or (step + 1) % loop.validate_every == 0):
            log.append({"step": step + 1, **_timed(clock, "validate", loop.validate)})
        if loop.save and (last or stop or (step + 1) % loop.save_every == 0):
            _timed(clock, "save", lambda: loop.save(step + 1, log))  # type: ignore[misc]  # noqa: B023
        loop.beat()
        if clock.progress_due() or last:
            progress(step + 1, loop.steps, f"loss {record.loss:.3f}, {clock.tokens / clock.train:,.0f} tokens/s")
        if stop and not last:
            raise TrainingInterrupted(f"asked to end after step {step + 1} of {loop.steps}; it is saved")
    return log


def optimizer_step(engine: Engine, loop: Loop, step: int) -> StepRecord:
    """One step, counted from 0, on the batch of all workers.

    The loss is divided by the valid tokens of the whole step before the backward pass, so it weighs every token alike
    however they fall on workers and micro-batches.
    """
    batch = loop.batch(step).to(next(engine.model.parameters()).device)
    # ids are as many as the model computes on, whatever a mask leaves out of the loss.
    tokens, read = map(int, engine.totals(torch.tensor([batch.tokens, batch.ids.numel()])).tolist())
    if tokens == 0:
        raise TrainingFailed(f"step {step + 1} has no token to learn from")
    loss = engine.total(engine.forward_backward(batch.split(loop.micro_batch_size), tokens)) / tokens
    if not math.isfinite(loss):
        raise TrainingFailed(f"{loop.diagnose(batch, step + 1, f'the loss is {loss}')}: {_ADVICE}")
    asked = loop.guard is not None or loop.observe is not None
    norm = engine.gradient_norm() if asked else None
    if loop.inspect is not None:
        loop.inspect(step + 1)
    skipped = _judge(loop.guard, loss, norm)
    if skipped:
        engine.discard()
    elif (outcome := engine.step()) is StepOutcome.NOT_FINITE:
        what = f"the gradient is not finite (loss {loss:.3f})"
        raise TrainingFailed(f"{loop.diagnose(batch, step + 1, what)}: {_ADVICE}")
    elif outcome is StepOutcome.SCALED_DOWN:
        # Its norm is infinite, which is no JSON.
        skipped, norm = f"the gradient overflowed: {outcome.value}", None
    elif loop.average is not None:
        loop.average.update()
    return StepRecord(step + 1, loss, tokens, read, norm, skipped)


def _judge(guard: StepGuard | None, loss: float, norm: float | None) -> str | None:
    """Why the step is to be left out; a norm that is not finite is for the step itself to refuse."""
    if guard is None or norm is None or not math.isfinite(norm):
        return None
    reason = guard.judge(loss, norm)
    guard.observe(loss, norm)
    return reason


def _row(engine: Engine, loop: Loop, record: StepRecord) -> dict[str, Any]:
    row = {"step": record.step, "loss": record.loss, "learning_rate": engine.optimizer.param_groups[-1]["lr"]}
    if record.gradient_norm is not None:
        row["gradient_norm"] = record.gradient_norm
    if record.skipped:
        row["skipped"] = record.skipped
    if (load := engine.expert_load()) is not None:
        # The largest share of a layer's choices that one expert took.
        row |= {"expert_load": load.shares.amax(dim=-1).tolist(), "dropped": load.dropped}
    return row | dict(loop.observe(record) if loop.observe else {})


class HeldOut(NamedTuple):
    """What a validation found, over all workers."""

    loss: float
    """Nats a token."""
    source_nats: Tensor
    """[sources] float64, summed over the targets that count."""
    source_targets: Tensor
    """[sources] float64: how many those are."""


def validate(engine: Engine, batches: Iterable[Batch], sources: int = 0) -> HeldOut:
    """On this worker's `batches` and those of all others, the origins of whose targets are below `sources`.

    One forward pass a batch. Raises TrainingFailed for a loss that is not finite.
    """
    device = next(engine.model.parameters()).device
    engine.model.eval()
    nats, tokens = torch.zeros((), dtype=torch.float64, device=device), 0
    by_source = torch.zeros(2, sources, dtype=torch.float64)
    for batch in batches:
        each = torch.empty(batch.targets.shape, dtype=torch.float32, device=device) if sources else None
        nats += engine.nats(batch.to(device), each)
        tokens += batch.tokens
        if each is not None:
            by_source += _by_source(batch, each, sources)
    engine.model.train()
    loss = engine.total(nats) / engine.total(tokens)
    if not math.isfinite(loss):
        raise TrainingFailed(f"the validation loss is {loss}: {_ADVICE}")
    return HeldOut(loss, *(engine.totals(by_source).cpu() if sources else by_source))


def _by_source(batch: Batch, each: Tensor, sources: int) -> Tensor:
    """[2, sources] float64: nats, of which `each` [rows, seq] has those of every target, and targets that count."""
    assert batch.origins is not None
    counted = torch.ones_like(batch.targets) if batch.mask is None else batch.mask
    # On the CPU, where the order of a sum by index is always the same.
    numbers = batch.origins.flatten().cpu()
    sums = [torch.bincount(numbers, value.flatten().double().cpu(), sources) for value in (each, counted)]
    return torch.stack(sums)


def _timed(clock: Clock, name: str, action: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = action()
    setattr(clock, name, getattr(clock, name) + time.perf_counter() - started)
    return result

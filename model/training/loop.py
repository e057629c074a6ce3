"""The training loop. It knows nothing of who started it: Ray Train, torchrun, or a plain call."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data.packing import TokenSequence
from data.progress import Progress
from model.architecture.loss import cross_entropy_sum
from model.architecture.mixture import auxiliary_loss, expert_load
from model.architecture.transformer import Transformer
from model.training.dataset import read_windows, validation_starts
from model.training.engine import Engine
from model.training.optimizer import set_learning_rate

_PROGRESS_EVERY_S = 0.5
_ADVICE = "lower the learning rate or lengthen the warm-up"


class TrainingFailed(RuntimeError):
    """Training ended without a model. The message is one line for the user."""


@dataclass(frozen=True)
class Batch:
    """One worker's share of an optimizer step."""

    ids: Tensor
    """[rows, seq] int64."""
    targets: Tensor
    """[rows, seq] int64."""
    mask: Tensor | None = None
    """[rows, seq] bool: the targets that count; None: all."""

    @property
    def tokens(self) -> int:
        return int(self.targets.numel() if self.mask is None else self.mask.sum())

    def split(self, rows: int) -> list["Batch"]:
        """Micro-batches of `rows` rows."""
        masks = [None] * -(-len(self.ids) // rows) if self.mask is None else self.mask.split(rows)
        return [Batch(*part) for part in zip(self.ids.split(rows), self.targets.split(rows), masks, strict=True)]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids.to(device), self.targets.to(device), None if self.mask is None else self.mask.to(device))


@dataclass(frozen=True)
class Loop:
    """What happens at which step."""

    steps: int
    micro_batch_size: int
    learning_rate_scale: Callable[[int], float]
    batch: Callable[[int], Batch]
    """This worker's share of a step, counted from 0."""
    validate: Callable[[], float] | None = None
    validate_every: int = 1
    save: Callable[[int, list[dict[str, Any]]], None] | None = None
    """Called with the number of steps done and the log so far."""
    save_every: int = 1


@dataclass
class Clock:
    """Where the time went, in seconds. Never part of what is compared between runs."""

    train: float = 0.0
    validate: float = 0.0
    save: float = 0.0
    tokens: int = 0
    """Tokens trained on by all workers in this process's life."""
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

    Raises TrainingFailed at the first loss or gradient that is not finite, before it reaches the weights.
    """
    log = list(log)
    device = next(engine.model.parameters()).device
    engine.model.train()
    for step in range(done, loop.steps):
        started = time.perf_counter()
        scale = loop.learning_rate_scale(step)
        set_learning_rate(engine.optimizer, scale)
        batch = loop.batch(step).to(device)
        loss, tokens = optimizer_step(engine, batch, loop.micro_batch_size, step + 1)
        row = {"step": step + 1, "loss": loss, "learning_rate": engine.optimizer.param_groups[-1]["lr"]}
        assert isinstance(engine.model, Transformer)
        log.append(row | _router_metrics(engine.model))
        clock.train += time.perf_counter() - started
        clock.tokens += tokens
        last = step + 1 == loop.steps
        if loop.validate and (last or (step + 1) % loop.validate_every == 0):
            log.append({"step": step + 1, "validation_loss": _timed(clock, "validate", loop.validate)})
        if loop.save and (last or (step + 1) % loop.save_every == 0):
            _timed(clock, "save", lambda: loop.save(step + 1, log))  # type: ignore[misc]  # noqa: B023
        if clock.progress_due() or last:
            progress(step + 1, loop.steps, f"loss {loss:.3f}, {clock.tokens / clock.train:,.0f} tokens/s")
    return log


def optimizer_step(engine: Engine, batch: Batch, micro_batch_size: int, step: int) -> tuple[float, int]:
    """One step on the batch of all workers. Returns its mean loss in nats a token and its number of tokens.

    The loss is divided by the valid tokens of the whole step before the backward pass, so it weighs every token alike
    however they fall on workers and micro-batches.
    """
    assert isinstance(engine.model, Transformer)
    tokens = int(_sum_over_workers(batch.tokens, engine.world, batch.ids.device))
    if tokens == 0:
        raise TrainingFailed(f"step {step} has no token to learn from")
    local = torch.zeros((), device=batch.ids.device, dtype=torch.float64)
    for micro in batch.split(micro_batch_size):
        nats, count = cross_entropy_sum(engine.model, micro.ids, micro.targets, micro.mask)
        objective = nats / tokens
        if routing := engine.model.routing:
            objective = objective + auxiliary_loss(routing, engine.model.config) * (count / tokens)
        engine.backward(objective)
        local += nats.detach()
    loss = _sum_over_workers(local, engine.world, batch.ids.device) / tokens
    if not math.isfinite(loss):
        raise TrainingFailed(f"the loss is {loss} at step {step}: {_ADVICE}")
    if not engine.step():
        raise TrainingFailed(f"the gradient is not finite at step {step} (loss {loss:.3f}): {_ADVICE}")
    return loss, tokens


def _router_metrics(model: Transformer) -> dict[str, Any]:
    """Of this worker's last micro-batch: the largest share of a layer's choices that one expert took, and how many
    choices found their expert full.
    """
    if not model.routing:
        return {}
    load = expert_load(model.routing).amax(dim=-1).tolist()
    return {"expert_load": load, "dropped": int(sum(routing.dropped for routing in model.routing))}


@torch.inference_mode()
def validation_loss(
    model: Transformer, tokens: TokenSequence, *, windows: int, micro_batch_size: int, rank: int, world: int
) -> float:
    """Nats a token on at most `windows` windows spread over `tokens`, each worker taking its share."""
    device = next(model.parameters()).device
    starts = validation_starts(len(tokens), model.config.context, windows)[rank::world]
    model.eval()
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for first in range(0, len(starts), micro_batch_size):
        ids, targets = read_windows(tokens, starts[first : first + micro_batch_size], model.config.context)
        nats, _ = cross_entropy_sum(model, ids.to(device), targets.to(device))
        total += torch.tensor([nats.double(), targets.numel()], dtype=torch.float64, device=device)
    model.train()
    if world > 1:
        dist.all_reduce(total)
    loss = float(total[0] / total[1])
    if not math.isfinite(loss):
        raise TrainingFailed(f"the validation loss is {loss}: {_ADVICE}")
    return loss


def _sum_over_workers(value: Tensor | float, world: int, device: torch.device) -> float:
    total = torch.as_tensor(value, dtype=torch.float64, device=device)
    if world > 1:
        dist.all_reduce(total)
    return float(total)


def _timed(clock: Clock, name: str, action: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = action()
    setattr(clock, name, getattr(clock, name) + time.perf_counter() - started)
    return result

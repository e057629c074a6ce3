"""Interface between the training loop and the ways to train: plain PyTorch, ZeRO, pipeline."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor

from sluice.model.architecture.transformer import Transformer
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.criterion import Load


class StepOutcome(Enum):
    """Outcome of an optimizer step."""

    APPLIED = "applied"
    NOT_FINITE = "not finite"
    """Skipped: the gradient is not finite."""
    SCALED_DOWN = "the loss scale is lowered"
    """fp16: skipped, since the gradient overflowed under too large a loss scale. A normal part of fp16 training."""


class TrainingEngine(Protocol):
    """A way to train. Every process calls every method, in the same order."""

    model: Transformer
    """This process's part of the model."""
    optimizer: torch.optim.Optimizer
    world: int
    """Data-parallel workers."""
    rank: int
    """Data-parallel rank: all processes of one data-parallel worker read the same batches."""

    def forward_backward(self, micros: Sequence[Batch], tokens: int) -> Tensor:
        """Accumulate the gradient of the step's loss per token; `tokens`: the targets of all workers that count.

        Returns this worker's summed negative log-likelihood in nats, a float64 scalar.
        """
        ...

    def gradient_norm(self) -> float:
        """L2 norm of the whole accumulated gradient, before clipping; the same on all processes."""
        ...

    def gradient_norms(self) -> dict[str, float]:
        """The norms that make up `gradient_norm`, by layer group; the same on all processes."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """This process's weights by name: slices under tensor parallelism, partitions under ZeRO 3."""
        ...

    def update_norms(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        """L2 norms, by layer group, of the change of the weights since `before`, a copy of this process's `weights`.

        In 16 bits they move by what rounding leaves of a step.
        """
        ...

    def expert_load(self) -> Load | None:
        """Load of the experts over all workers since the last call; None without a mixture."""
        ...

    def step(self) -> StepOutcome:
        """Clip and step the optimizer, unless the gradient is not finite."""
        ...

    def discard(self) -> None:
        """Discard the accumulated gradient. Nothing else changes."""
        ...

    def nll_sum(self, batch: Batch, each: Tensor | None = None) -> Tensor:
        """Summed negative log-likelihood of this worker's batch, in nats: a float64 scalar without gradient.

        `each` [rows, seq] float32 is filled with that of every target, 0 where it does not count.
        """
        ...

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sums over the data-parallel workers, entry by entry, float64 of the same shape."""
        ...

    def full_weights(self) -> dict[str, Tensor]:
        """Every weight in full shape, by the model's names, on rank 0 of all."""
        ...

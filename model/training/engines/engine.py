"""What the loop trains through, whatever stands behind it."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor

from sluice.model.architecture.transformer import Transformer
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.criterion import Load


class StepOutcome(Enum):
    """What became of a step."""

    APPLIED = "applied"
    NOT_FINITE = "not finite"
    """Left out: the gradient is not finite."""
    SCALED_DOWN = "the loss scale is lowered"
    """fp16: left out, since the gradient overflowed under a loss scale that was too large. Part of fp16 training."""


class Engine(Protocol):
    """What the loop needs of any way to train. Every process calls every method, in the same order."""

    model: Transformer
    """What this process holds of the model."""
    optimizer: torch.optim.Optimizer
    world: int
    """Data-parallel workers."""
    rank: int
    """Which of them this process belongs to: all processes of one read the same batches."""

    def forward_backward(self, micros: Sequence[Batch], tokens: int) -> Tensor:
        """Accumulate the gradient of the step's loss a token, `tokens` being those of all workers that count.

        Returns this worker's summed nats, a float64 scalar.
        """
        ...

    def gradient_norm(self) -> float:
        """L2 norm of the whole accumulated gradient, before clipping; the same on all processes."""
        ...

    def gradient_norms(self) -> dict[str, float]:
        """The norms that make up `gradient_norm`, by layer group; the same on all processes."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What this process computes with, by name: under tensor parallelism slices, under ZeRO 3 shares."""
        ...

    def moved(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        """L2 norms, by layer group, of what changed in the weights since `before`, a copy of this process's.

        Of the weights that the model computes with: in 16 bits they move by what rounding leaves of a step.
        """
        ...

    def expert_load(self) -> Load | None:
        """Of a mixture of experts, over all workers, since it was last asked."""
        ...

    def step(self) -> StepOutcome:
        """Clip and step the optimizer, or say why that was left out."""
        ...

    def discard(self) -> None:
        """Forget the accumulated gradient. Nothing else changes."""
        ...

    def nats(self, batch: Batch, each: Tensor | None = None) -> Tensor:
        """Summed nats of this worker's batch under the present weights, a float64 scalar; no gradient.

        `each` [rows, seq] float32 is filled with those of every target, 0 where it does not count.
        """
        ...

    def total(self, value: Tensor | float) -> float:
        """The sum of the workers' values."""
        ...

    def totals(self, values: Tensor) -> Tensor:
        """The sums of the workers' values, entry by entry, float64 of the same shape."""
        ...

    def full_weights(self) -> dict[str, Tensor]:
        """Every weight in full shape, by the model's names, on rank 0 of all."""
        ...

"""The engine of one process: plain PyTorch."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sluice.model.architecture.transformer import Transformer
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.criterion import Criterion, Load
from sluice.model.training.engines.engine import StepOutcome
from sluice.model.training.engines.gradients import WholeGradients, square, squared_norm
from sluice.model.training.engines.norms import group_norms


class LocalEngine:
    """Plain PyTorch in this process: for short runs, and the reference of the other engines."""

    world, rank = 1, 0

    def __init__(
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        gradient_clip: float | None = None,
        z_loss: float = 0.0,
    ) -> None:
        self.model, self.optimizer, self.gradient_clip = model, optimizer, gradient_clip
        self._criterion = Criterion(model, z_loss)

    def forward_backward(self, micros: Sequence[Batch], tokens: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=micros[0].ids.device)
        for micro in micros:
            objective, nll_sum = self._criterion(micro, tokens)
            objective.backward()
            total += nll_sum
        return total

    def gradient_norm(self) -> float:
        return float(squared_norm(self._gradients()).sqrt())

    def gradient_norms(self) -> dict[str, float]:
        names = {each: name for name, each in self.model.named_parameters()}
        return group_norms(names.values(), [(names[each], value) for each, value in self._gradients().squares()])

    def weights(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def update_norms(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        return group_norms(before, [(name, square(each - before[name])) for name, each in self.weights().items()])

    def expert_load(self) -> Load | None:
        return self._criterion.take_load()

    def _gradients(self) -> WholeGradients:
        return WholeGradients(self.model.parameters(), copies=1)

    def step(self) -> StepOutcome:
        if not math.isfinite(self.gradient_norm()):
            self.discard()
            return StepOutcome.NOT_FINITE
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutcome.APPLIED

    def discard(self) -> None:
        self.optimizer.zero_grad()

    @torch.no_grad()
    def nll_sum(self, batch: Batch, each: Tensor | None = None) -> Tensor:
        nll_sum: Tensor = self._criterion(batch, 1, each)[1]
        return nll_sum.double()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values.double()

    def full_weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

"""Base class of the DeepSpeed engines: gradient norms, the decision to step, reductions."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.groups import Groups
from sluice.model.parallelism.tensor_parallel import gathered
from sluice.model.training.engines.criterion import Criterion, Load
from sluice.model.training.engines.engine import StepOutcome
from sluice.model.training.engines.gradients import (
    Gradients,
    PartitionedGradients,
    ShardedGradients,
    WholeGradients,
    square,
    squared_norm,
)
from sluice.model.training.engines.norms import group_norms
from sluice.model.training.engines.shares import own_range, share


class DistributedEngine:
    """Common part of the engines with and without a pipeline."""

    def __init__(  # noqa: PLR0917
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        config: PretrainConfig,
        groups: Groups,
        engine: Any,
        criterion: Criterion,
        names: Iterable[str],
    ) -> None:
        """`names`: all parameters of the model, of which `model` holds some."""
        self._criterion, self._names = criterion, tuple(names)
        self.model, self.optimizer, self._engine, self._groups = model, optimizer, engine, groups
        self.world, self.rank = groups.layout.data, groups.data_rank
        self._stage, self._scales, self._clip = config.zero_stage, config.dtype == "fp16", config.gradient_clip
        self._gradients = _gradients(engine, config.zero_stage, self.world)
        self._norm: float | None = None

    def gradient_norm(self) -> float:
        if self._norm is None:
            self._norm = float(self._sum_over_processes(squared_norm(self._gradients)).sqrt())
        return self._norm

    def gradient_norms(self) -> dict[str, float]:
        names = {each: name for name, each in self.model.named_parameters()}
        found = [(names[each], value / self._gradients.divisor) for each, value in self._gradients.squares()]
        return group_norms(self._names, found, self._sum_over_processes)

    def weights(self) -> dict[str, Tensor]:
        return {name: getattr(each, "ds_tensor", each) for name, each in self.model.named_parameters()}

    def update_norms(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        # Below ZeRO 3 the data-parallel workers hold the same weights.
        copies, now = 1 if self._stage == 3 else self.world, self.weights()
        found = []
        for name, parameter in self.model.named_parameters():
            own = own_range(parameter)[1] if self._stage == 3 else parameter.numel()
            change = (now[name].detach().float() - before[name].float()).flatten()[:own]
            found.append((name, square(change) * share(parameter) / copies))
        return group_norms(self._names, found, self._sum_over_processes)

    def expert_load(self) -> Load | None:
        return self._criterion.take_load(self._sum_over_processes)

    def _sum_over_processes(self, value: Tensor) -> Tensor:
        summed = value.to(self._engine.device, copy=True)
        dist.all_reduce(summed)
        return summed

    def step(self) -> StepOutcome:
        # With fp16, gradients that overflow are DeepSpeed's to see: it lowers the scale of the loss.
        if not self._scales and not math.isfinite(self.gradient_norm()):
            self.discard()
            return StepOutcome.NOT_FINITE
        if isinstance(self._gradients, WholeGradients) and self._clip is not None:
            # Here DeepSpeed's own norm would leave out what the other stages of a pipeline hold.
            self._gradients.scale(min(1.0, self._clip / (self.gradient_norm() + 1e-6)))
        self._apply()
        self._norm = None
        if self._engine.was_step_applied():
            return StepOutcome.APPLIED
        return StepOutcome.SCALED_DOWN if self._scales else StepOutcome.NOT_FINITE

    def discard(self) -> None:
        self._gradients.discard()
        self._norm = None

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        summed = values.to(self._engine.device, torch.float64, copy=True)
        if self.world > 1:
            dist.all_reduce(summed, group=self._groups.data)
        return summed

    def full_weights(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        if self._stage < 3:
            return {name: gathered(parameter, parameter.detach()) for name, parameter in named}
        import deepspeed

        weights = {}
        for name, parameter in named:
            with deepspeed.zero.GatheredParameters([parameter]):
                weights[name] = gathered(parameter, parameter.detach().clone())
        return weights

    def _apply(self) -> None:
        self._engine.step()


def _gradients(engine: Any, stage: int, world: int) -> Gradients:
    if stage == 0:
        return WholeGradients(engine.module.parameters(), copies=world)
    return ShardedGradients(engine.optimizer) if stage == 3 else PartitionedGradients(engine.optimizer)

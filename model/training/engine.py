"""What the loop trains through: this process alone, or DeepSpeed around the model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.architecture.transformer import Transformer
from model.config import PretrainConfig
from model.training.batch import Batch
from model.training.criterion import Criterion
from model.training.deepspeed_settings import import_deepspeed, settings
from model.training.gradients import Gradients, PartitionedGradients, ShardedGradients, WholeGradients
from model.training.groups import Groups
from model.training.layers import prepare_layers
from model.training.layout import Layout
from model.training.optimizer import build_optimizer
from model.training.tensor_parallel import gathered, split_model


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

    def step(self) -> bool:
        """Clip and step the optimizer. False where that was left out, for gradients that are not finite."""
        ...

    def discard(self) -> None:
        """Forget the accumulated gradient. Nothing else changes."""
        ...

    def nats(self, batch: Batch) -> Tensor:
        """Summed nats of this worker's batch under the present weights, a float64 scalar; no gradient."""
        ...

    def total(self, value: Tensor | float) -> float:
        """The sum of the workers' values."""
        ...

    def full_weights(self) -> dict[str, Tensor]:
        """Every weight in full shape, by the model's names, on rank 0 of all."""
        ...


class LocalEngine:
    """Plain PyTorch in this process: for work too short to pay for workers, and what the others are held to."""

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
        local = torch.zeros((), dtype=torch.float64, device=micros[0].ids.device)
        for micro in micros:
            objective, nats = self._criterion(micro, tokens)
            objective.backward()
            local += nats
        return local

    def gradient_norm(self) -> float:
        return float(WholeGradients(self.model.parameters(), copies=1).squares().sqrt())

    def step(self) -> bool:
        if not math.isfinite(self.gradient_norm()):
            self.discard()
            return False
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return True

    def discard(self) -> None:
        self.optimizer.zero_grad()

    @torch.no_grad()
    def nats(self, batch: Batch) -> Tensor:
        return self._criterion(batch, 1)[1].double()

    def total(self, value: Tensor | float) -> float:
        return float(value)

    def full_weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}


class DistributedEngine:
    """What DeepSpeed's engines have in common, with a pipeline or without."""

    def __init__(
        self, model: Transformer, optimizer: torch.optim.Optimizer, config: PretrainConfig, groups: Groups, engine: Any
    ) -> None:
        self.model, self.optimizer, self._engine, self._groups = model, optimizer, engine, groups
        self.world, self.rank = groups.layout.data, groups.data_rank
        self._stage, self._scales, self._clip = config.zero_stage, config.dtype == "fp16", config.gradient_clip
        self._gradients = _gradients(engine, config.zero_stage, self.world)
        self._norm: float | None = None

    def gradient_norm(self) -> float:
        if self._norm is None:
            squares = self._gradients.squares().to(self._engine.device)
            dist.all_reduce(squares)
            self._norm = float(squares.sqrt())
        return self._norm

    def step(self) -> bool:
        # With fp16, gradients that overflow are DeepSpeed's to see: it lowers the scale of the loss.
        if not self._scales and not math.isfinite(self.gradient_norm()):
            self.discard()
            return False
        if isinstance(self._gradients, WholeGradients) and self._clip is not None:
            # Here DeepSpeed's own norm would leave out what the other stages of a pipeline hold.
            self._gradients.scale(min(1.0, self._clip / (self.gradient_norm() + 1e-6)))
        self._apply()
        self._norm = None
        return bool(self._engine.was_step_applied())

    def discard(self) -> None:
        self._gradients.discard()
        self._norm = None

    def total(self, value: Tensor | float) -> float:
        summed = torch.as_tensor(value, dtype=torch.float64, device=self._engine.device).clone()
        if self.world > 1:
            dist.all_reduce(summed, group=self._groups.data)
        return float(summed)

    def full_weights(self) -> dict[str, Tensor]:
        return {name: self._whole(parameter) for name, parameter in self.model.named_parameters()}

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        if self._stage < 3:
            return gathered(parameter, parameter.detach())
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return gathered(parameter, parameter.detach().clone())

    def _apply(self) -> None:
        self._engine.step()


class ZeroEngine(DistributedEngine):
    """DeepSpeed at the ZeRO stage of `config` (Rajbhandari et al., arXiv 1910.02054), one of `processes`.

    The process group must exist. `optimizer` is the one that DeepSpeed steps: from ZeRO 1 on it holds this worker's
    partitions.
    """

    def __init__(self, model: Transformer, config: PretrainConfig, processes: int, extensions: Path) -> None:
        deepspeed = import_deepspeed(extensions)
        layout = Layout(processes, tensor=config.tensor_parallel)
        groups = Groups(layout)
        split_model(model, groups)
        prepare_layers(model, config)
        optimizer = build_optimizer(model, config)
        engine, *_ = deepspeed.initialize(
            model=Criterion(model, config.z_loss),
            optimizer=optimizer,
            config=settings(config, layout.data),
            mpu=groups,
            dist_init_required=False,
        )
        super().__init__(model, optimizer, config, groups, engine)

    def forward_backward(self, micros: Sequence[Batch], tokens: int) -> Tensor:
        engine, local = self._engine, torch.zeros((), dtype=torch.float64, device=micros[0].ids.device)
        for i, micro in enumerate(micros):
            engine.set_gradient_accumulation_boundary(i == len(micros) - 1)
            objective, nats = engine(micro, tokens)
            # DeepSpeed averages over the workers; the loss is already divided by the tokens of the whole step.
            engine.backward(objective * self.world, scale_wrt_gas=False)
            local += nats
        self._norm = None
        return local

    @torch.no_grad()
    def nats(self, batch: Batch) -> Tensor:
        return self._engine(batch, 1)[1].double()


def build_engine(model: Transformer, config: PretrainConfig, processes: int, extensions: Path) -> Engine:
    """The engine that `config` asks for. `model` is whole and the same in every process, and is left as a part."""
    if config.pipeline_stages == 1:
        return ZeroEngine(model, config, processes, extensions)
    from model.training.pipeline import PipelineEngine

    return PipelineEngine(model, config, processes, extensions)


def _gradients(engine: Any, stage: int, world: int) -> Gradients:
    if stage == 0:
        return WholeGradients(engine.module.parameters(), copies=world)
    return ShardedGradients(engine.optimizer) if stage == 3 else PartitionedGradients(engine.optimizer)

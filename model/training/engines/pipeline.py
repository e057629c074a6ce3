"""Pipeline parallelism: DeepSpeed's one-forward-one-backward schedule over the stages of the model.

One layer of DeepSpeed's PipelineModule is one whole stage. All processes of a data-parallel worker read the same
batches, so only the residual stream travels between stages; every stage has the masks and documents.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.groups import Groups
from sluice.model.parallelism.layout import layout_of
from sluice.model.parallelism.stages import keep_stage, owners, split_stages
from sluice.model.parallelism.tensor_parallel import full_shape, split_model
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.criterion import Criterion
from sluice.model.training.engines.deepspeed_settings import import_deepspeed, settings
from sluice.model.training.engines.distributed import DistributedEngine
from sluice.model.training.engines.layers import prepare_layers
from sluice.model.training.optimization.optimizer import build_optimizer


class _Work:
    """The micro-batches of the current step, and their loss in the last stage."""

    def __init__(self, micros: Sequence[Batch], tokens: int, scale: float, each: Tensor | None) -> None:
        self.micros, self.tokens, self.scale, self.each, self.begun = micros, tokens, scale, each, 0
        self.nll_sum = torch.zeros((), dtype=torch.float64, device=micros[0].ids.device)

    def next(self) -> Batch:
        # Every stage takes the micro-batches in their order.
        self.begun += 1
        return self.micros[self.begun - 1]


class _Stage(nn.Module):
    """A stage as the only layer of DeepSpeed's module. The last one computes the loss in `objective`, as DeepSpeed
    expects.
    """

    def __init__(self, model: Transformer, z_loss: float, last: bool) -> None:
        super().__init__()
        self.criterion, self.last = Criterion(model, z_loss), last
        self.work: _Work | None = None

    def forward(self, received: Tensor) -> Tensor:
        if self.last:
            return received
        assert self.work is not None
        return self.criterion.model.hidden(received, documents=self.work.next().documents)

    def objective(self, received: Tensor, _: Tensor) -> Tensor:
        assert self.work is not None
        micro = self.work.next()
        batch = Batch(received, micro.targets, micro.mask, micro.documents)
        objective, nll_sum = self.criterion(batch, self.work.tokens, self.work.each)
        self.work.nll_sum += nll_sum
        return objective * self.work.scale


class PipelineEngine(DistributedEngine):
    """Stages x data-parallel workers (x tensor slices); ZeRO 0 or 1."""

    def __init__(self, model: Transformer, config: PretrainConfig, extensions: Path) -> None:
        deepspeed = import_deepspeed(extensions)
        # PipelineModule communicates before `initialize` has passed the existing group to DeepSpeed.
        deepspeed.init_distributed(dist_backend=dist.get_backend(), dist_init_required=False)
        from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

        layout = layout_of(config)
        groups = Groups(layout)
        split_model(model, groups)
        prepare_layers(model, config)
        bounds = split_stages(model, config.pipeline_stages)
        self._owners, self._tied = owners(model, bounds), model.head is None
        self._shapes = {name: full_shape(each) for name, each in model.named_parameters()}
        keep_stage(model, groups.stage, bounds)
        self._module = _Stage(model, config.z_loss, last=groups.stage == len(bounds) - 1)
        topology = PipeModelDataParallelTopology(layout.pipeline, layout.tensor, layout.data)
        with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints here, and standard output is the command's
            pipeline = _pipeline(self._module, topology, tied=self._tied)
        # Norms count each copy of a parameter once. DeepSpeed treats all of a tied module as a copy: the last stage.
        for parameter in self._module.parameters():
            parameter.ds_pipe_replicated = False  # type: ignore[attr-defined]
        embedding = self._module.criterion.model.embedding
        if self._tied and groups.stage and embedding is not None:
            embedding.weight.ds_pipe_replicated = True  # type: ignore[attr-defined]
            embedding.weight.norm_share = 0.0  # type: ignore[attr-defined]
        optimizer = build_optimizer(model, config)
        engine, *_ = deepspeed.initialize(
            model=pipeline, optimizer=optimizer, config=settings(config, layout.data), dist_init_required=False
        )
        super().__init__(model, optimizer, config, groups, engine, self._module.criterion, self._owners)
        self._dtype = next(model.parameters()).dtype

    def forward_backward(self, micros: Sequence[Batch], tokens: int) -> Tensor:
        from deepspeed.runtime.pipe.schedule import OptimizerStep, TrainSchedule

        class WithoutStep(TrainSchedule):
            def steps(self) -> Iterator[list[Any]]:
                for commands in super().steps():
                    yield [each for each in commands if not isinstance(each, OptimizerStep)]

        engine = self._engine
        engine.module.train()
        nll_sum = self._run(micros, tokens, WithoutStep(len(micros), engine.num_stages, engine.stage_id))
        self._norm = None
        return nll_sum

    @torch.no_grad()
    def nll_sum(self, batch: Batch, each: Tensor | None = None) -> Tensor:
        return self._run([batch], 1, self._engine._inference_schedule(1), each)

    def _run(self, micros: Sequence[Batch], tokens: int, schedule: Any, each: Tensor | None = None) -> Tensor:
        """Summed nats of the micro-batches, on every stage; with `each`, for a single micro-batch, also those of its
        targets.
        """
        engine = self._engine
        # DeepSpeed divides by its configured accumulation, and averages over the workers.
        work = _Work(micros, tokens, scale=engine.gradient_accumulation_steps() * self.world, each=each)
        self._module.work = work
        # Buffers have the shape of the last micro-batch, in training or validation.
        engine.reset_activation_shape()
        engine.total_loss, engine.total_additional_losses, engine._compute_loss = None, None, True
        engine.micro_batches = len(micros)
        engine.set_dataiterator(iter([(micro.ids, micro.ids) for micro in micros]))
        engine._exec_schedule(schedule)
        self._module.work = None
        for found in (work.nll_sum,) if each is None else (work.nll_sum, each):
            dist.broadcast(found, src=self._groups.last_stage, group=self._groups.pipeline)
        return work.nll_sum

    def _apply(self) -> None:
        self._engine._exec_optimizer_step()

    def full_weights(self) -> dict[str, Tensor]:
        own = super().full_weights()
        weights, rank = {}, self._groups.rank
        for name, stage in self._owners.items():
            source = self._groups.layout.first_of_stage(stage)
            if rank == source == 0:
                weights[name] = own[name]
            elif rank == 0:
                weights[name] = torch.empty(self._shapes[name], dtype=self._dtype, device=self._engine.device)
                dist.recv(weights[name], src=source)
            elif rank == source:
                dist.send(own[name].contiguous(), dst=0)
        return weights


def _pipeline(stage: _Stage, topology: Any, *, tied: bool) -> Any:
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec

    class Built(nn.Module):
        """DeepSpeed expects a class to build; it builds the existing stage."""

        def __new__(cls) -> Any:
            return stage

    stages = topology.get_dim("pipe")
    specs: list[Any] = [LayerSpec(Built) for _ in range(stages)]
    if tied:
        for end in (0, stages - 1):
            specs[end] = TiedLayerSpec("embedding", Built, tied_weight_attr=["criterion.model.embedding.weight"])
    return PipelineModule(specs, topology=topology, loss_fn=stage.objective, partition_method="uniform")

"""The engine of data-parallel workers: DeepSpeed around the model, at any ZeRO stage."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.groups import Groups
from sluice.model.parallelism.layout import layout_of
from sluice.model.parallelism.tensor_parallel import split_model
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.criterion import Criterion
from sluice.model.training.engines.deepspeed_settings import import_deepspeed, settings
from sluice.model.training.engines.distributed import DistributedEngine
from sluice.model.training.engines.layers import prepare_layers
from sluice.model.training.optimization.optimizer import build_optimizer


class ZeroEngine(DistributedEngine):
    """DeepSpeed at the ZeRO stage of `config` (Rajbhandari et al., arXiv 1910.02054).

    The process group must exist. `optimizer` is the one that DeepSpeed steps: from ZeRO 1 on it holds this worker's
    partitions.
    """

    def __init__(self, model: Transformer, config: PretrainConfig, extensions: Path) -> None:
        deepspeed = import_deepspeed(extensions)
        layout = layout_of(config)
        groups = Groups(layout)
        split_model(model, groups)
        prepare_layers(model, config)
        criterion, optimizer = Criterion(model, config.z_loss), build_optimizer(model, config)
        engine, *_ = deepspeed.initialize(
            model=criterion,
            optimizer=optimizer,
            config=settings(config, layout.data),
            mpu=groups,
            dist_init_required=False,
        )
        names = [name for name, _ in model.named_parameters()]
        super().__init__(model, optimizer, config, groups, engine, criterion, names)

    def forward_backward(self, micros: Sequence[Batch], tokens: int) -> Tensor:
        engine, total = self._engine, torch.zeros((), dtype=torch.float64, device=micros[0].ids.device)
        for i, micro in enumerate(micros):
            engine.set_gradient_accumulation_boundary(i == len(micros) - 1)
            objective, nll_sum = engine(micro, tokens)
            # DeepSpeed averages over the workers; the loss is already divided by the tokens of the whole step.
            engine.backward(objective * self.world, scale_wrt_gas=False)
            total += nll_sum
        self._norm = None
        return total

    @torch.no_grad()
    def nll_sum(self, batch: Batch, each: Tensor | None = None) -> Tensor:
        # By its name: for tensors that come by place ZeRO 3's hooks hand on others.
        nll_sum: Tensor = self._engine(batch, 1, each=each)[1]
        return nll_sum.double()

"""DeepSpeed around the model: ZeRO and the averaging of gradients over the workers."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from model.config import PretrainConfig
from model.training.optimizer import build_optimizer, capture, restore

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_BUCKET_ELEMENTS = 20_000_000
"""DeepSpeed's default of 500 million makes it allocate gigabytes for a model of any size."""


class Engine(Protocol):
    """What the loop needs: gradients of the sum over all workers of what they pass to `backward`, then one step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    world: int

    def backward(self, loss: Tensor) -> None: ...
    def step(self) -> bool: ...


class LocalEngine:
    """Plain PyTorch in this process: for work too short to pay for workers, and what the others are held to."""

    world = 1

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, gradient_clip: float | None = None) -> None:
        self.model, self.optimizer, self.gradient_clip = model, optimizer, gradient_clip

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> bool:
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return True


class ZeroEngine:
    """DeepSpeed at the ZeRO stage of `config` (Rajbhandari et al., arXiv 1910.02054), one of `world` workers.

    The process group must exist. `optimizer` is the one that DeepSpeed steps: under ZeRO 1 it holds this worker's
    partitions.
    """

    def __init__(self, model: nn.Module, config: PretrainConfig, world: int, extensions: Path) -> None:
        deepspeed = _import_deepspeed(extensions)
        self.world, self.model = world, model
        self.optimizer = build_optimizer(model, config)
        self._engine: DeepSpeedEngine
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=self.optimizer, config=_settings(config), dist_init_required=False
        )
        self._micro_batches = config.batch_size // (world * config.micro_batch_size)
        self._pending = 0

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, whose sum over micro-batches and workers is what is being minimized."""
        # DeepSpeed averages over the workers; the loop has already divided by the tokens of the whole step.
        self._engine.backward(loss * self.world, scale_wrt_gas=False)
        self._pending += 1
        if self._pending < self._micro_batches:
            self._engine.step()  # counts the micro-batch; changes nothing

    def step(self) -> bool:
        """Step the optimizer. False if DeepSpeed skipped it, as it does, silently, on gradients that are not finite."""
        assert self._pending == self._micro_batches, f"{self._pending} micro-batches of {self._micro_batches}"
        self._pending = 0
        self._engine.step()
        return bool(self._engine.was_step_applied())

    def state(self) -> dict[str, Tensor]:
        """This worker's share of the optimizer state."""
        return capture(self.optimizer)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Go on from `weights` (the same for all workers) and this worker's `state`."""
        # In place: under ZeRO the parameters are views into flat buffers.
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])
        restore(self.optimizer, state)


def _import_deepspeed(extensions: Path) -> Any:
    """Imported here because it costs seconds, and because it reads its environment once."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    # A folder of this launch alone: a build killed elsewhere leaves a lock that later ones wait for without end.
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions)
    import deepspeed

    # Its shared-memory all-reduce would be compiled now, by a C++ compiler that may not be there, to save microseconds.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel(logging.WARNING)
    return deepspeed


def _settings(config: PretrainConfig) -> dict[str, Any]:
    return {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,
            "contiguous_gradients": False,
            "reduce_bucket_size": _BUCKET_ELEMENTS,
            "allgather_bucket_size": _BUCKET_ELEMENTS,
        },
        # The optimizer is torch's or DeepSpeed's own, built by us: DeepSpeed's default Adam compiles for minutes.
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": config.gradient_clip or 0.0,
        "bf16": {"enabled": config.dtype == "bf16"},
        "steps_per_print": 2**62,
    }

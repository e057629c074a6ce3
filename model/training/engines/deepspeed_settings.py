"""DeepSpeed's import and its configuration, from ours."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sluice.model.config import PretrainConfig
from sluice.model.parallelism.optimizers import OPTIMIZERS
from sluice.model.training.optimization.optimizers.muon import leave_muon_uncompiled

BUCKET_ELEMENTS = 20_000_000
"""DeepSpeed's default of 500 million makes it allocate gigabytes for a model of any size."""

PERSISTENT_ELEMENTS = 10_000
"""ZeRO 3 leaves smaller parameters whole: gathering a norm's gains costs more than they hold."""


def import_deepspeed(extensions: Path) -> Any:
    """Imported here because it costs seconds, and because it reads its environment once."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    # A folder for this launch only: a build killed elsewhere leaves a lock that later ones wait for forever.
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions)
    with _without("mlflow"):
        import deepspeed
    leave_muon_uncompiled()
    if on_cpu:
        # Its shared-memory all-reduce would be compiled now, by a C++ compiler that may not be there, to save
        # microseconds. Elsewhere there is none, and the query would try every operator and print to standard output.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel(logging.WARNING)
    return deepspeed


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Hide `module` from imports: DeepSpeed's unused autotuner imports MLflow if it is installed, which takes more than
    half of the seconds of the import.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def settings(config: PretrainConfig, data_workers: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a run with so many data-parallel workers."""
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": False,
        "contiguous_gradients": False,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    if config.zero_stage == 3:
        # A scatter leaves no whole gradients behind.
        zero["reduce_scatter"] = not OPTIMIZERS[config.optimizer].whole_gradients
        zero["stage3_prefetch_bucket_size"] = BUCKET_ELEMENTS
        zero["stage3_param_persistence_threshold"] = PERSISTENT_ELEMENTS
    return {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // (config.micro_batch_size * data_workers),
        "zero_optimization": zero,
        # The optimizer is torch's or DeepSpeed's own, built by us: DeepSpeed's default Adam compiles for minutes.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Without ZeRO the engine clips: it knows which copies of a parameter count.
        "gradient_clipping": (config.gradient_clip or 0.0) if config.zero_stage else 0.0,
        "bf16": {"enabled": config.dtype == "bf16"},
        "fp16": {"enabled": config.dtype == "fp16"},
        "pipeline": {"pipe_partitioned": False, "grad_partitioned": False, "use_reentrant": False},
        "steps_per_print": 2**62,
    }

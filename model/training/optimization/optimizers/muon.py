"""Muon on the matrices (Jordan et al., 2024), AdamW on embedding, head and vectors."""

from typing import Any

import torch

from sluice.model.config import PretrainConfig
from sluice.model.training.optimization.parameter_groups import Groups, with_peak


def build(groups: Groups, config: PretrainConfig) -> torch.optim.Optimizer:
    """DeepSpeed's version, which orthogonalizes whole matrices under ZeRO 1."""
    leave_muon_uncompiled()
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.muon import original_muon
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    if get_accelerator().device_name() == "cpu":
        # DeepSpeed takes float16 on processors that have it, so the same run would differ from one CPU to the next.
        original_muon.ns_compute_dtype = lambda _method="gram": torch.float32
    for kind, parameters in groups.items():
        for parameter in parameters:
            # ZeRO reads the mark from the parameter itself.
            parameter.use_muon = kind == "matrices"  # type: ignore[attr-defined]
    settings: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": 1e-8, "use_muon": False}
    return MuonWithAuxAdam(
        [
            with_peak(
                groups["matrices"],
                config.muon_learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.muon_momentum,
                use_muon=True,
            ),
            # No decay on the embedding: only the loss shapes its rows, as in the reference runs.
            with_peak(groups["embedding"], config.learning_rate, weight_decay=0.0, **settings),
            with_peak(groups["vectors"], config.learning_rate, weight_decay=0.0, **settings),
        ],
        adam_optimizer=torch.optim.AdamW,
        adam_optimizer_kwargs={"fused": True},
    )


def leave_muon_uncompiled() -> None:
    """Keep DeepSpeed's Muon from being compiled at its import, which every engine triggers: that takes seconds and a
    C++ compiler, which may be missing and would change its rounding. Call it before that import.
    """
    from deepspeed.runtime import compiler

    compiler.compile = lambda: compiler.dummy_decorator

"""Metrics of a run beside its losses: norms by layer group, which belong to its result, and speed, which does not.

`StepMetrics.observe` returns values for training.jsonl that a repeated run reproduces bit for bit; speed is kept apart,
for the timings of the report.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.flops import count_flops
from sluice.model.planner.machine_rates import measure_matmul_flops
from sluice.model.training.engines.engine import TrainingEngine
from sluice.model.training.loop import StepRecord

_PEAK_SIZE, _PEAK_ROUNDS = 8192, 10


class StepMetrics:
    """Observes a run through its engine, every `every` steps; all processes create one.

    The norms, by layer group, are those of the step's gradient before clipping and of its change of the weights, over
    all processes.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        *,
        every: int,
        flops_per_token: float,
        peak_flops: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine, self.every, self.flops_per_token, self.peak_flops = engine, every, flops_per_token, peak_flops
        self.speed: list[dict[str, float]] = []
        """A row every `every` steps: step, tokens_per_second, mfu, memory_bytes."""
        self._gradients: dict[str, float] = {}
        self._before: dict[str, Tensor] = {}
        self._tokens, self._clock = 0, clock
        self._since = clock()

    def start(self) -> None:
        """Start the clock: training begins or resumes now."""
        self._tokens, self._since = 0, self._clock()

    def inspect(self, step: int) -> None:
        """Called when the gradient of `step`, counted from 1, is complete and the weights have not moved yet."""
        if step % self.every == 0:
            self._gradients = self.engine.gradient_norms()
            self._before = {name: each.detach().clone() for name, each in self.engine.weights().items()}

    def observe(self, record: StepRecord) -> dict[str, Any]:
        """Norms of the finished step, if it is an observed one."""
        self._tokens += record.read
        if record.step % self.every:
            return {}
        found = {"gradient_norms": self._gradients, "update_norms": self.engine.update_norms(self._before)}
        # Free the copy of the weights.
        self._before = {}
        now = self._clock()
        seconds = now - self._since
        rate = self._tokens / seconds if seconds > 0 else 0.0
        self.speed.append(
            {
                "step": float(record.step),
                "tokens_per_second": rate,
                "mfu": rate * self.flops_per_token / self.peak_flops,
                "memory_bytes": float(memory_bytes()),
            }
        )
        self._tokens, self._since = 0, now
        return found


def memory_bytes() -> int:
    """Peak of this process: allocated on the accelerator where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def training_flops_per_token(config: TransformerConfig) -> float:
    """Matrix products of forward and backward, at the full context; of attention the visible pairs."""
    return count_flops(config).training


def matmul_peak(dtype: str, threads: int, devices: int = 1) -> float:
    """FLOPs a second that a large matrix product reaches here: of `threads` CPU threads, or of `devices` GPUs."""
    if torch.cuda.is_available():
        return devices * _cuda_peak({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
    return measure_matmul_flops("bf16" if dtype == "bf16" else "fp32", threads)


def _cuda_peak(dtype: torch.dtype) -> float:
    # A generator of its own: dropout uses the device's default one.
    random = torch.Generator("cuda").manual_seed(0)
    left, right = (torch.randn(_PEAK_SIZE, _PEAK_SIZE, device="cuda", generator=random).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_PEAK_ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        torch.mm(left, right)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    del left, right
    # The run reports its own memory.
    torch.cuda.reset_peak_memory_stats()
    return 2 * _PEAK_SIZE**3 / best

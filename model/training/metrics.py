"""What a run tells beside its losses: norms by layer group, which belong to its result, and speed, which does not.

`StepMetrics.observe` returns what a repeated run returns to the last bit, for training.jsonl; how fast it went is kept
apart, for the report's timings.
"""

import re
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from model.architecture.config import TransformerConfig
from model.budget.flops import count_flops
from model.budget.rates import measure_matmul_flops
from model.training.loop import StepRecord

_GROUP = re.compile(r"((?:encoder\.|decoder\.)?layers\.\d+|[a-z_]+)\.?")
_PEAK_SIZE, _PEAK_ROUNDS = 8192, 10


def layer_group(name: str) -> str:
    """The part of the model that a parameter belongs to: `layers.3`, or what stands before and after the layers."""
    found = _GROUP.match(name)
    assert found, name
    return found[1]


class StepMetrics:
    """Watches the parameters that this worker computes with.

    Every `every` steps, the L2 norm by layer group of this worker's accumulated gradient before clipping (under ZeRO 2
    and 3 of its last micro-batch, since the rest is already reduced) and of what the step changed in the weights. Make
    it before the engine, so that the gradients are seen before anybody moves them, and call `start` with the steps done
    once the weights are loaded.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int,
        flops_per_token: float,
        peak_flops: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.every, self.flops_per_token, self.peak_flops = every, flops_per_token, peak_flops
        self.speed: list[dict[str, float]] = []
        """A row every `every` steps: step, tokens_per_second, mfu, memory_bytes."""
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._gradients: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._step, self._tokens, self._clock = 0, 0, clock
        self._since = clock()
        for name, parameter in self._parameters.items():
            parameter.register_post_accumulate_grad_hook(self._hook(name))

    def start(self, done: int) -> None:
        """Training goes on after `done` steps, with the weights that the model now has."""
        self._step, self._tokens, self._since = done, 0, self._clock()
        self._prepare()

    def observe(self, record: StepRecord) -> dict[str, Any]:
        """Norms of the step, where it is one of those that are looked at."""
        self._step, self._tokens = record.step, self._tokens + record.tokens
        found: dict[str, Any] = {}
        if record.step % self.every == 0:
            found = {"gradient_norms": self._gradient_norms(), "update_norms": self._update_norms()}
            self._note_speed()
        self._prepare()
        return found

    @property
    def _due(self) -> bool:
        """Whether the step in progress is looked at."""
        return (self._step + 1) % self.every == 0

    def _prepare(self) -> None:
        self._gradients = {}
        self._before = {name: each.detach().clone() for name, each in self._parameters.items()} if self._due else {}

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def remember(parameter: Tensor) -> None:
            if self._due and parameter.grad is not None:
                # Of the last micro-batch, whose gradient has those before it in it.
                self._gradients[name] = parameter.grad.detach().double().square().sum()

        return remember

    def _gradient_norms(self) -> dict[str, float]:
        return _by_group(self._gradients)

    def _update_norms(self) -> dict[str, float]:
        with torch.no_grad():
            squares = {
                name: (self._parameters[name] - before).double().square().sum()
                for name, before in self._before.items()
                # Under ZeRO 3 a parameter is empty where it is not being used.
                if before.numel() and before.shape == self._parameters[name].shape
            }
        return _by_group(squares)

    def _note_speed(self) -> None:
        now = self._clock()
        seconds = now - self._since
        rate = self._tokens / seconds if seconds > 0 else 0.0
        row = {
            "step": float(self._step),
            "tokens_per_second": rate,
            "mfu": rate * self.flops_per_token / self.peak_flops,
        }
        self.speed.append({**row, "memory_bytes": float(memory_bytes())})
        self._tokens, self._since = 0, now


def _by_group(squares: dict[str, Tensor]) -> dict[str, float]:
    groups: dict[str, float] = {}
    for name, square in squares.items():
        group = layer_group(name)
        groups[group] = groups.get(group, 0.0) + float(square)
    return {group: total**0.5 for group, total in groups.items()}


def memory_bytes() -> int:
    """Peak of this process: allocated on the accelerator where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def training_flops_per_token(config: TransformerConfig) -> float:
    """Matrix products of forward and backward, at the full context; of attention the pairs that are seen."""
    return count_flops(config).training


def matmul_peak(dtype: str, threads: int, devices: int = 1) -> float:
    """FLOPs a second that a large matrix product reaches here: of `threads` CPU threads, or of `devices` GPUs."""
    if torch.cuda.is_available():
        return devices * _cuda_peak({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
    return measure_matmul_flops("bf16" if dtype == "bf16" else "fp32", threads)


def _cuda_peak(dtype: torch.dtype) -> float:
    left, right = (torch.randn(_PEAK_SIZE, _PEAK_SIZE, device="cuda").to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_PEAK_ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        torch.mm(left, right)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * _PEAK_SIZE**3 / best

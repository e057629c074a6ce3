"""Where the time of a step goes: a trace of a few optimizer steps, and the operators that take most of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.text import Packed
from sluice.model.training.trial import local_engine, single_process, trial_batches

TRACE = "trace.json"
PHASES = ("data", "forward and backward", "optimizer")


@dataclass(frozen=True)
class Operator:
    """One kind of operator, over the steps profiled."""

    name: str
    calls: int
    self_ms: float
    """Without the operators it calls; on the accelerator where there is one."""
    share: float
    """Share of all operators' own time."""


@dataclass(frozen=True)
class Profile:
    """Time of a few steps, by phase and operator."""

    steps: int
    step_ms: float
    phases_ms: dict[str, float]
    """Milliseconds of a step, by phase."""
    operators: list[Operator]
    """The largest first."""


def profile_steps(
    config: PretrainConfig, model: ModelConfig, packed: Packed, out: Path, *, steps: int, top: int = 15
) -> Profile:
    """Profile `steps` optimizer steps of one worker's batches after as many to warm up; the trace goes to `out`.

    The trace is in the format of Chrome's tracing page and Perfetto.
    """
    config = single_process(config)
    batches = trial_batches(config, model, packed)
    engine = local_engine(config, model, batches.objective)
    device = next(engine.model.parameters()).device

    def step(number: int) -> None:
        with record_function(PHASES[0]):
            batch = batches.read(number).to(device)
        with record_function(PHASES[1]):
            engine.forward_backward(batch.split(config.micro_batch_size), batch.tokens)
        with record_function(PHASES[2]):
            engine.step()

    for number in range(steps):
        step(number)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as found:
        for number in range(steps, 2 * steps):
            step(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
    out.mkdir(parents=True, exist_ok=True)
    found.export_chrome_trace(str(out / TRACE))
    return summarize(found.key_averages(), steps, top, on_device=device.type == "cuda")


def summarize(events: Any, steps: int, top: int, *, on_device: bool = False) -> Profile:
    """The profiler's averages by operator as a `Profile`."""
    phases = dict.fromkeys(PHASES, 0.0)
    operators: list[tuple[str, int, float]] = []
    for event in events:
        if event.key in phases:
            # An accelerator's copy of the mark has no CPU time.
            phases[event.key] += event.cpu_time_total / 1000 / steps
        else:
            self_us = event.self_device_time_total if on_device else event.self_cpu_time_total
            operators.append((event.key, event.count, self_us / 1000))
    total = sum(each[2] for each in operators) or 1.0
    largest = sorted(operators, key=lambda each: -each[2])[:top]
    return Profile(
        steps,
        sum(phases.values()),
        phases,
        [Operator(name, calls, self_ms, self_ms / total) for name, calls, self_ms in largest],
    )

"""Measurement on this machine: rates, from which a step is forecast, and a real step to compare with.

The step runs in a process of its own (`python -m sluice.model.planner.step_measurement`), so that peak memory is the
model's alone.
"""

import json
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel

from sluice.model.architecture.config import TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.accelerators import Device
from sluice.model.planner.base import Dtype
from sluice.model.planner.flops import count_flops
from sluice.model.planner.machine_rates import TORCH_DTYPE, both_means, measure_matmul_flops, measure_rates
from sluice.model.planner.step_forecast import (
    ForecastCheck,
    Rates,
    StepMeasured,
    forecast_check,
    forecast_step,
    worker_memory_bytes,
)

_LONGEST_STEP_S = 3.0
"""Micro-batches longer than this, by the matrix peak at half its speed, are not measured."""
TIMEOUT_S = 60.0
"""For the process that measures: idle, it takes a few seconds."""
_WARM_TOKENS = 32


class MeasurementJob(BaseModel):
    """Input of the measuring process."""

    config: TransformerConfig
    run: PretrainConfig
    threads: int


class _Measured(BaseModel):
    rates: Rates
    micro_batch_s: tuple[float, float]
    """CPU-seconds of a thread, and wall-clock seconds."""
    optimizer_s: tuple[float, float]
    peak_bytes: int


def this_machine(dtype: Dtype, threads: int) -> Device:
    """This machine's CPU, its peak measured. Its power and price are unknown."""
    return Device(
        name="this machine",
        peak_flops_per_s=measure_matmul_flops(dtype, threads),
        memory_bytes=psutil.virtual_memory().total,
        bandwidth_bytes_per_s=None,
        power_w=None,
        price_per_hour=None,
    )


def check_forecast(
    config: TransformerConfig, run: PretrainConfig, *, threads: int, peak_flops_per_s: float, free_bytes: int
) -> ForecastCheck:
    """The forecast of one data-parallel worker's optimizer step on `threads` threads beside a real one: the whole
    model in one process, without activation checkpointing.

    Not measured, with the reason in `skipped`, where a step would take too long or more than half of `free_bytes`.

    Raises ValueError where the process that measures fails.
    """
    micro_batches = run.batch_size // (run.copies * run.micro_batch_size)
    tokens = run.micro_batch_size * config.context
    seconds = count_flops(config).training * tokens / (peak_flops_per_s / 2)
    needed = worker_memory_bytes(config, run)
    skipped = None
    if needed > free_bytes // 2:
        skipped = f"a worker needs {needed / 2**30:,.1f} GiB, and {free_bytes / 2**30:,.1f} GiB are free here"
    elif seconds > _LONGEST_STEP_S:
        skipped = f"a micro-batch takes about {seconds:,.0f} s here; up to {_LONGEST_STEP_S:.0f} s are measured"
    if skipped is not None:
        return ForecastCheck(threads=threads, micro_batches=micro_batches, skipped=skipped)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sluice.model.planner.step_measurement"],
            input=MeasurementJob(config=config, run=run, threads=threads).model_dump_json(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        skipped = f"it did not end within {TIMEOUT_S:.0f} s, so other work keeps this machine busy"
        return ForecastCheck(threads=threads, micro_batches=micro_batches, skipped=skipped)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ValueError(f"the measured step failed with exit status {done.returncode}: {last}")
    found = _Measured.model_validate_json(done.stdout.splitlines()[-1])
    alone_s, clock_s = (
        micro_batches * micro + rest for micro, rest in zip(found.micro_batch_s, found.optimizer_s, strict=True)
    )
    measured = StepMeasured(step_s=alone_s, clock_s=clock_s, memory_bytes=found.peak_bytes)
    return forecast_check(threads, micro_batches, forecast_step(config, run, found.rates, micro_batches), measured)


def measure(job: MeasurementJob) -> _Measured:
    """Rates, then a real step; in this order, since a peak of memory cannot be taken back."""
    torch.set_num_threads(job.threads)
    rates = measure_rates(job.config, job.run)
    # A small step first, with every kind of layer once: loaded code and set-up of libraries are not the model's memory.
    layers = len(job.config.pattern or (1,))
    small = {"layers": layers, "context": min(_WARM_TOKENS, job.config.context), "vocab_size": 64}
    small |= {"encoder_layers": layers} if job.config.encoder_kinds else {}
    _train(job.config.model_copy(update=small), job.run.model_copy(update={"micro_batch_size": 1}))
    # The peak counts from here, where the kernel allows a process to reset it.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    micro_batch_s, optimizer_s = _train(job.config, job.run)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        scale = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return _Measured(rates=rates, micro_batch_s=micro_batch_s, optimizer_s=optimizer_s, peak_bytes=peak - before)


def _train(config: TransformerConfig, run: PretrainConfig) -> tuple[tuple[float, float], tuple[float, float]]:
    """`both_means` of a micro-batch, forward and backward, and of an optimizer step."""
    from sluice.model.architecture.initialization import initialize
    from sluice.model.architecture.inputs import Inputs
    from sluice.model.architecture.loss import cross_entropy_sum
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.training.optimization.optimizer import build_optimizer

    model = Transformer(config)
    initialize(model, run.seed)
    model.to(TORCH_DTYPE[run.dtype])
    optimizer = build_optimizer(model, run)
    generator = torch.Generator().manual_seed(run.seed)
    ids = torch.randint(config.vocab_size, (run.micro_batch_size, config.context), generator=generator)
    inputs = Inputs(source=ids) if config.kind == "encoder-decoder" else Inputs()

    def micro_batch() -> None:
        nats, count = cross_entropy_sum(model, ids, ids, **inputs)
        (nats / count).backward()

    micro_batch()
    optimizer.step()
    return both_means(micro_batch), both_means(optimizer.step)


def main() -> None:
    """A `MeasurementJob` comes in on standard input as JSON; what was found goes to standard output."""
    found = measure(MeasurementJob.model_validate(json.load(sys.stdin)))
    sys.stdout.write(found.model_dump_json() + "\n")


if __name__ == "__main__":
    main()

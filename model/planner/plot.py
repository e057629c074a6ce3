"""A picture of memory against sequence length and batch."""

from pathlib import Path

from sluice.model.architecture.config import TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import layout_of
from sluice.model.planner.accelerators import DEVICES
from sluice.model.planner.memory import device_memory
from sluice.model.planner.parameters import count_parameters
from sluice.model.planner.plan import planned_run
from sluice.model.planner.settings import PlanConfig

BATCHES = (1, 4, 16, 64)
"""Sequences of a micro-batch."""
_SHADES = ("#a9c6f2", "#6fa0e8", "#2f6fde", "#173e80")


def memory_by_length(
    config: TransformerConfig, run: PretrainConfig, settings: PlanConfig, *, checkpointing: bool
) -> dict[int, list[tuple[int, int]]]:
    """{sequences of a micro-batch: [(length, bytes of the fullest device), ..]}, lengths by powers of two up to 16
    times the context (at least 8,192).
    """
    run = planned_run(config, run, settings)
    layout = layout_of(run)
    longest = max(8192, 16 * config.context)
    lengths = [2**power for power in range(7, longest.bit_length())]
    return {
        batch: [
            (
                length,
                device_memory(
                    config,
                    layout,
                    dtype=run.dtype,
                    optimizer=run.optimizer,
                    micro_batch_size=batch,
                    micro_batches=layout.pipeline,
                    length=length,
                    checkpointing=checkpointing,
                    offload=run.offload,
                ).total_bytes,
            )
            for length in lengths
        ]
        for batch in BATCHES
    }


def draw_memory(config: TransformerConfig, run: PretrainConfig, settings: PlanConfig, path: Path) -> None:
    """One line a micro-batch, dashed with activation checkpointing; equal plans give equal bytes of SVG."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    mpl.rcParams["svg.hashsalt"] = "sluice"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    for checkpointing in (False, True):
        curves = memory_by_length(config, run, settings, checkpointing=checkpointing)
        for (batch, points), shade in zip(curves.items(), _SHADES, strict=True):
            lengths, sizes = zip(*points, strict=True)
            axes.plot(
                lengths,
                [size / 2**30 for size in sizes],
                color=shade,
                linestyle="--" if checkpointing else "-",
                label=None if checkpointing else f"micro-batch of {batch}",
            )
    axes.plot([], [], "--", color="#888888", label="with checkpointing")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    low, high = axes.get_ylim()
    for name in [settings.device] if settings.device else ["rtx-4090", "h100-sxm"]:
        size = DEVICES[name].memory_bytes / 2**30
        if low < size < high:
            axes.axhline(size, color="#c0392b", lw=1)
            axes.text(lengths[0], size, f" {name}", color="#c0392b", va="bottom", fontsize=9)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths], rotation=45, fontsize=8)
    layout = layout_of(planned_run(config, run, settings))
    axes.set_title(
        f"{count_parameters(config).total / 1e6:,.1f}M parameters in {run.dtype}, {run.optimizer}, on {layout.devices} "
        f"devices: data {layout.data} x tensor {layout.tensor} x pipeline {layout.pipeline}, ZeRO {layout.zero_stage}",
        fontsize=9,
        loc="left",
    )
    axes.set_xlabel("tokens a sequence")
    axes.set_ylabel("GiB on the fullest device")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)

"""A scaling law as a picture, SVG or PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sluice.model.training.search.scaling import Law, Run, frontier
from sluice.model.training.telemetry.curves import COLOURS, pyplot_for, save


def draw_scaling(
    runs: Sequence[Run], law: Law, laws: Sequence[Law], budget: float, path: Path, *, confidence: float
) -> None:
    """Loss against training FLOPs: the runs by size, and the least loss of each budget up to `budget` with its band."""
    pyplot = pyplot_for(path)
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    flops = np.geomspace(min(run.flops for run in runs), max(budget, *(run.flops for run in runs)), 60)
    drawn = np.stack([frontier(each, flops.tolist()) for each in laws])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    axes.fill_between(flops, low, high, color="#2f6fde", alpha=0.2, lw=0, label=f"{confidence:.0%} band")
    axes.plot(flops, frontier(law, flops.tolist()), color="#2f6fde", lw=1.2, label="least loss of a budget")
    for number, size in enumerate(sorted({run.parameters for run in runs})):
        own = sorted((run for run in runs if run.parameters == size), key=lambda run: run.flops)
        colour = COLOURS[(number + 1) % len(COLOURS)]
        axes.plot(
            [run.flops for run in own], [run.loss for run in own], "o-", color=colour, ms=4, lw=0.6, label=f"{size:,}"
        )
    axes.axvline(budget, color="#888888", lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.set_xlabel("training FLOPs, 6 x parameters x tokens")
    axes.set_ylabel("nats a token, held out")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)

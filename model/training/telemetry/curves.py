"""Pictures of runs as SVG or PNG: their losses. Equal figures give equal bytes of SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Log = Sequence[Mapping[str, Any]]
COLOURS = ("#2f6fde", "#c0392b", "#2e8b57", "#8e44ad", "#b9770e", "#555555")
_SMOOTH = 0.02
"""Share of the steps that a point of the drawn training loss is a mean over."""


def draw_losses(runs: Mapping[str, Log], path: Path) -> None:
    """Training loss (a line, smoothed) and validation loss (dots) in nats a token over the steps, a colour a run.

    `runs` are logs as in training.jsonl. ValueError for a log without a step.
    """
    pyplot = pyplot_for(path)
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    for (name, log), colour in zip(runs.items(), COLOURS * (1 + len(runs) // len(COLOURS)), strict=False):
        steps, losses = series(log, "loss")
        if not len(steps):
            raise ValueError(f"the log of {name} has no step: nothing to draw")
        smooth = smoothed(losses, max(1, round(len(losses) * _SMOOTH)))
        axes.plot(steps, smooth, color=colour, lw=1.2, label=f"{name}, training")
        held = series(log, "validation_loss")
        if len(held[0]):
            axes.plot(*held, "o-", color=colour, ms=4, lw=0.6, label=f"{name}, held out: {held[1][-1]:.4f} at the end")
    axes.set_xlabel("step")
    axes.set_ylabel("nats a token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def series(log: Log, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values [rows] of the rows that have `key`."""
    rows = [(row["step"], row[key]) for row in log if key in row]
    return np.array([step for step, _ in rows], dtype=np.int64), np.array([value for _, value in rows], dtype=float)


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of each value and up to `width` - 1 before it, [n]."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def pyplot_for(path: Path) -> Any:
    """matplotlib.pyplot set up to write `path`. ValueError unless that is .svg or .png."""
    if path.suffix not in {".svg", ".png"}:
        raise ValueError(f"{path}: the name of a picture must end in .svg or .png")
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    mpl.rcParams["svg.hashsalt"] = "sluice"
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    """Write the picture, without its date, and let go of it."""
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)

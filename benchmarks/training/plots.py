"""The pictures of the measured sections."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.training.results import Ablation, CopyingRun, Results, Resumed, Shakespeare
from benchmarks.training.targets import DEFAULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT, RESUME_PLOT = "training-speed.svg", "training-resume.svg"
CHOICES_PLOT, COPYING_PLOT = "training-choices.svg", "training-copying.svg"
_COLORS = {"sluice": "#2f6fde", "transformers": "#9fb3c8"}
_BOUND = "#c0392b"


def draw(results: Results, folder: Path) -> None:
    """The pictures of what was measured; equal results give equal bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sluice"
    for name, figure in _figures(results):
        figure.savefig(folder / name, metadata={"Date": None})


def _figures(results: Results) -> Iterator[tuple[str, "Figure"]]:
    if results.measured:
        yield PLOT, _speeds(results)
    if results.resumed:
        yield RESUME_PLOT, _resumes(results.resumed)
    if results.choices is not None:
        yield CHOICES_PLOT, _differences(results.choices)
    if results.copying:
        yield COPYING_PLOT, _copying(results.copying)


def _speeds(results: Results) -> "Figure":
    from matplotlib import pyplot

    panels = 1 + (results.shakespeare is not None)
    figure, grid = pyplot.subplots(panels, 1, figsize=(8, 2.9 * panels), layout="constrained", squeeze=False)
    axes = iter(grid.flat)
    _speed(next(axes), results)
    if results.shakespeare is not None:
        _curve(next(axes), results.shakespeare)
    for each in grid.flat:
        _plain(each)
    return figure


def _plain(axes: Any) -> None:
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _resumes(found: list[Resumed]) -> "Figure":
    from matplotlib import pyplot

    columns = 3
    rows = -(-len(found) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(9, 2.2 * rows), layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    for axes, each in zip(grid.flat, found, strict=False):
        steps = range(each.resumed_from + 1, each.resumed_from + len(each.resumed) + 1)
        axes.plot(range(1, len(each.undisturbed) + 1), each.undisturbed, color=_COLORS["transformers"], lw=2.5)
        axes.plot(steps, each.resumed, color=_COLORS["sluice"], lw=1)
        axes.axvline(each.killed_at, color=_BOUND, lw=1, ls=":")
        axes.set_title(each.before if each.same_layout else f"{each.before}\n→ {each.after}", fontsize=7)
    for axes in grid.flat:
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("step; grey: undisturbed, blue: resumed, dots: SIGKILL", fontsize=8)
    figure.supylabel("nats a token", fontsize=8)
    return figure


def _copying(found: list[CopyingRun]) -> "Figure":
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    for each, color in zip(found, _COLORS.values(), strict=False):
        axes.plot(each.steps, each.copies, color=color, lw=2, label=f"{each.name}: copies")
        axes.plot(each.steps, each.others, color=color, lw=1.2, ls="--", label=f"{each.name}: all else")
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("held out, nats a token", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    return figure


def _speed(axes: Any, results: Results) -> None:
    names = [each.case.name for each in results.measured]
    rates = [each.rate for each in results.measured]
    bars = axes.barh(names, rates, color=[_COLORS[each.case.library] for each in results.measured])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    said = "tokens a second"
    if (defaults := results.of("transformers", "fp32", compiled=False)) is not None:
        axes.axvline(DEFAULTS * defaults.rate, color=_BOUND, lw=1.5)
        said += f"; line: {DEFAULTS:g} times the Trainer's defaults"
    axes.invert_yaxis()
    axes.set_xlim(0, max(rates) * 1.2)
    axes.set_xlabel(said, fontsize=8)


def _curve(axes: Any, found: Shakespeare) -> None:
    axes.plot(*zip(*found.curve, strict=True), color=_COLORS["sluice"], lw=1.5, label="training, means of 50 steps")
    axes.axhline(statistics.fmean(found.ours), color=_COLORS["sluice"], ls=":", label="held out, after the last step")
    axes.axhline(statistics.fmean(found.reference), color=_COLORS["transformers"], ls=":", label="nanoGPT's, held out")
    axes.set_xlabel(f"steps of the preset on {found.text}", fontsize=8)
    axes.set_ylabel("nats a character", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _differences(found: Ablation) -> "Figure":
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    pairs = [found.against_default(each) for each in found.changed]
    means = [mean for mean, _ in pairs]
    halves = [half if math.isfinite(half) else 0.0 for _, half in pairs]
    names = [each.name for each in found.changed]
    axes.errorbar(means, names, xerr=halves, fmt="o", color=_COLORS["sluice"], ms=4, capsize=3, lw=1)
    axes.axvline(0, color=_BOUND, lw=1)
    axes.invert_yaxis()
    axes.set_xlabel("held-out bits per byte less the default's, 95 % interval (right of the line is worse)", fontsize=8)
    _plain(axes)
    return figure

"""The picture of the section "Speed"."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.model.results import Results
from benchmarks.model.targets import BEST, DEFAULT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"sluice": "#2f6fde", "transformers": "#9fb3c8"}
_BOUND = "#c0392b"


def draw(results: Results, folder: Path) -> None:
    """model-speed.svg; equal results give equal bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sluice"
    _speed(results).savefig(folder / "model-speed.svg", metadata={"Date": None})


def _speed(results: Results) -> "Figure":
    from matplotlib import pyplot

    columns = 2
    rows = -(-len(results.training) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(9, 2.7 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(results.training) :]:
        axes.set_visible(False)
    for axes, compared in zip(grid.flat, results.training, strict=False):
        names = list(compared.candidates)
        rates = [each.rate for each in compared.candidates.values()]
        bars = axes.barh(names, rates, color=[_COLORS[name.split(",")[0]] for name in names])
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.axvline(BEST * compared.of("transformers", DEFAULT).rate, color=_BOUND, lw=1.5)
        axes.invert_yaxis()
        axes.set_xlim(0, max(rates) * 1.2)
        axes.set_title(f"{compared.shape} parameters, rows of {compared.sequence} tokens", fontsize=9)
        axes.set_xlabel(f"tokens a second; line: {BEST:g} times transformers {DEFAULT}", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure

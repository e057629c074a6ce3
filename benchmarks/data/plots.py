"""The pictures of docs/data.md."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data.page import peer
from benchmarks.data.results import Results
from benchmarks.data.targets import RECALL, megabytes, of_workers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _THEIRS, _BOUND = "#2f6fde", "#9fb3c8", "#c0392b"


def draw(results: Results, folder: Path) -> None:
    """data-rates.svg, data-recall.svg and data-scale.svg; equal results give equal bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sluice"
    for name, figure in (("rates", _rates(results)), ("recall", _recall(results)), ("scale", _scale(results))):
        figure.savefig(folder / f"data-{name}.svg", metadata={"Date": None})


def _rates(results: Results) -> "Figure":
    from matplotlib import pyplot

    trained = results.training[-1]
    rows = [
        ("filter chain", results.filters, 2.0),
        ("MinHash signatures", results.minhash, 4.0),
        (f"tokenizer training, {trained.vocab_size:,} tokens", trained.rates, None),
        ("encoding", results.encoding, 5.0),
    ]
    figure, axes = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    for shift, stock in ((-0.2, False), (0.2, True)):
        values = [(peer(rates) if stock else rates["sluice"]).megabytes_a_second for _, rates, _ in rows]
        label = "datatrove 0.10 or Hugging Face tokenizers" if stock else "sluice"
        places = [place + shift for place in range(len(rows))]
        bars = axes.barh(places, values, height=0.36, color=_THEIRS if stock else _OURS, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=9)
    for place, (_, _, bound) in enumerate(rows):
        if bound is not None:
            axes.plot(
                [bound, bound], [place - 0.42, place + 0.02], color=_BOUND, lw=2, label="target" if not place else None
            )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("MB of text a CPU-second (more is better)")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def _recall(results: Results) -> "Figure":
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    names = [f"Jaccard {each.low:g} to {each.high:g}\n{each.pairs:,} pairs" for each in results.recall]
    for shift, label, color, values in (
        (-0.19, "sluice", _OURS, [100 * each.sluice for each in results.recall]),
        (0.19, "datatrove 0.10", _THEIRS, [100 * each.stock for each in results.recall]),
    ):
        bars = axes.bar([place + shift for place in range(len(names))], values, width=0.36, color=color, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    for place, each in enumerate(results.recall):
        bound = 100 * RECALL[each.low]
        axes.plot([place - 0.4, place + 0.4], [bound, bound], color=_BOUND, lw=2, label=None if place else "target")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("pairs found, %")
    axes.set_ylim(0, 112)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _scale(results: Results) -> "Figure":
    from matplotlib import pyplot

    built = {of_workers(workers): sizes[1:] for workers, sizes in results.sizes.items()}
    most = list(built.values())[-1]
    places = range(len(most))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    _pairs(left, {name: [each.cpu_ms_a_document for each in sizes] for name, sizes in built.items()}, "%.1f")
    left.set_ylabel("CPU a document with start-up, ms")
    _pairs(
        right,
        {
            "all processes": [each.all_processes_bytes / 1e9 for each in most],
            "the largest": [each.largest_process_bytes / 1e9 for each in most],
        },
        "%.2f",
    )
    right.axhline(1.5, color=_BOUND, lw=2, label="target")
    right.set_ylabel("peak memory, GB")
    for axes in (left, right):
        axes.set_xticks(places, [megabytes(each) for each in most])
        axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=3, columnspacing=1)
    return figure


def _pairs(axes: "Axes", columns: dict[str, list[float]], form: str) -> None:
    for shift, color, (label, values) in zip((-0.19, 0.19), (_OURS, _THEIRS), columns.items(), strict=True):
        bars = axes.bar([place + shift for place in range(len(values))], values, width=0.36, color=color, label=label)
        axes.bar_label(bars, fmt=form, padding=3, fontsize=9)

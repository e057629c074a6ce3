"""Figures of a run of the benchmark, kept as JSON, and the tables, bounds and plots of docs/data.md."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

from matplotlib.figure import Figure

from benchmarks.data.blocks import Trained
from benchmarks.data.clock import Rate
from benchmarks.data.neighbours import Merges, Recall
from benchmarks.data.scale import Size
from benchmarks.data.workers import Builds
from benchmarks.markers import markdown
from benchmarks.report import BOUND, OURS, THEIRS, Bound, Timed, bounds_table, down, grouped_bars

LEAST_RATE = {"filter chain": 2.0, "MinHash signatures": 4.0, "encoding": 5.0}
"""MB a CPU-second."""
RECALL = {0.9: 1.0, 0.8: 0.98, 0.7: 0.73}
"""Least recall by the lower end of a range of similarity."""


class DataResults(Timed):
    """Figures of one run on one machine."""

    machine: str
    text: str
    runs: int
    """Runs of everything but the sizes and what is counted."""
    filters: dict[str, Rate] = {}
    minhash: dict[str, Rate] = {}
    encoding: dict[str, Rate] = {}
    training: list[Trained] = []
    others: dict[str, Rate] = {}
    extraction: dict[str, Rate] = {}
    formats: dict[str, Rate] = {}
    recall: list[Recall] = []
    merges: Merges = Merges(documents=0, removed=0, false=0)
    builds: dict[str, Builds] = {}
    build_bytes: int = 0
    sizes: dict[int, list[Size]] = {}
    """By number of workers, from the smallest on; the first serves to subtract the start-up from the others."""
    session: str = ""


def bounds(results: DataResults) -> list[Bound]:
    training = max(each.rates["sluice"].median_s / each.rates["tokenizers"].median_s for each in results.training)
    lengths = [each.bytes_a_token["sluice"] / each.bytes_a_token["tokenizers"] for each in results.training]
    ray, merges = results.builds["ray"], results.merges
    built = [size for sizes in results.sizes.values() for size in sizes[1:]]
    reach = f"{megabytes(built[0])} to {megabytes(built[-1])}"
    at_most = partial(Bound, at_least=False)
    return [
        *(
            Bound(name, rates["sluice"].megabytes_a_second, LEAST_RATE[name], " MB/CPU-s")
            for name, rates in stock_rates(results).items()
            if name in LEAST_RATE
        ),
        *(
            Bound(
                f"recall at Jaccard {each.low:g} to {each.high:g}, {each.pairs:,} planted pairs",
                *(100 * each.sluice, 100 * RECALL[each.low], " %"),
                digits=1,
            )
            for each in results.recall
        ),
        at_most(
            f"false merges among {merges.documents:,} documents with planted edits ({merges.removed:,} removed)",
            merges.false if merges.removed else math.nan,
            0,
            digits=0,
        ),
        at_most("tokenizer training, CPU time over Hugging Face's, worse vocabulary", training, 0.5, " x"),
        at_most(
            "bytes a token, difference from Hugging Face's", 100 * max(abs(each - 1) for each in lengths), 0.5, " %"
        ),
        Bound("2 Ray workers over 1, scoring phase, wall time", ray.speedup(ray.score_s), 1.7, " x"),
        Bound("2 Ray workers over 1, whole build, wall time", ray.speedup(ray.build_s), 1.7, " x"),
        *(
            at_most(f"{what}, {reach}, {_of(workers)}: most over least", 100 * spread(values), 15, " % more")
            for workers, sizes in results.sizes.items()
            for what, values in (
                ("CPU a document, start-up included", [each.cpu_ms_a_document for each in sizes[1:]]),
                ("CPU a further document", cpu_ms_a_further_document(sizes)),
            )
        ),
        *(
            at_most(f"peak memory of {what}, {reach}", most / 1e9, 1.5, " GB")
            for what, most in (
                ("the largest process", max(each.largest_process_bytes for each in built)),
                ("all processes together", max(each.all_processes_bytes for each in built)),
            )
        ),
    ]


def tables(results: DataResults) -> dict[str, str]:
    peers = [
        (name, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.1f}")
        for name, rates in stock_rates(results).items()
        for ours, theirs in [(rates["sluice"].megabytes_a_second, peer(rates).megabytes_a_second)]
    ]
    recall = [
        (
            f"{each.low:g} to {each.high:g}",
            f"{each.pairs:,}",
            *(f"{down(100 * share, 1):.1f} %" for share in (each.sluice, each.stock)),
            f"{100 * RECALL[each.low]:g} %",
        )
        for each in results.recall
    ]
    others = [
        (f"{prefix}{name}", f"{rate.megabytes_a_second:.1f}")
        for prefix, rates in (
            ("", results.others),
            ("extraction, ", results.extraction),
            ("reading, ", results.formats),
        )
        for name, rate in rates.items()
    ]
    phases = [(name, f"{seconds:.1f}") for name, seconds in results.builds["local"].phases.items()]
    conditions = [
        ("machine", results.machine),
        ("text", results.text),
        ("raw text of the builds of Workers", f"{results.build_bytes / 1e6:.1f} MB"),
        ("runs, of which the median counts", str(results.runs)),
        *results.conditions(),
    ]
    head = ">text | local | >documents | >kept | >wall, s | >CPU a document, ms | >CPU a further document, ms"
    return {
        "session": f"```console\n{results.session}\n```",
        "conditions": markdown("measured on | ", conditions),
        "bounds": bounds_table(bounds(results)),
        "peers": markdown(" | >sluice, MB/CPU-s | >peer, MB/CPU-s | >times", peers),
        "tokenizers": markdown(
            ">vocabulary | >bytes a token, sluice | >Hugging Face | >CPU-s, sluice | >Hugging Face | >times",
            _tokenizers(results),
        ),
        "recall": markdown(">Jaccard | >pairs | >sluice | >datatrove | >bound", recall),
        "blocks": markdown(" | >MB/CPU-s", others),
        "workers": markdown(" | >1 worker, s | >2 workers, s | >times", _builds(results)),
        "phases": markdown("phase, block | >s", phases),
        "scale": markdown(f"{head} | >largest process, MB | >all processes, MB", _sizes(results)),
    }


def _tokenizers(results: DataResults) -> Iterator[tuple[str, ...]]:
    for each in results.training:
        ours, theirs = each.rates["sluice"].median_s, peer(each.rates).median_s
        lengths = (f"{each.bytes_a_token[name]:.4f}" for name in ("sluice", "tokenizers"))
        yield f"{each.vocab_size:,}", *lengths, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"


def _builds(results: DataResults) -> Iterator[tuple[str, ...]]:
    for where, title in (("local", "local processes"), ("ray", "Ray")):
        builds = results.builds[where]
        for phase, seconds in (("scoring", builds.score_s), ("whole build", builds.build_s)):
            one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
            yield f"{title}, {phase}", f"{one:.1f}", f"{two:.1f}", f"{down(one / two, 2):.2f}"
    hashes = set().union(*(builds.hashes for builds in results.builds.values()))
    yield (
        "different outcomes of all these builds, by hash",
        *[str(len(hashes)) if len(hashes) == 1 else f"**{len(hashes)}**"] * 2,
        "",
    )


def _sizes(results: DataResults) -> Iterator[tuple[str, ...]]:
    for workers, sizes in results.sizes.items():
        for size, further in zip(sizes[1:], cpu_ms_a_further_document(sizes), strict=True):
            yield (
                *(megabytes(size), _of(workers), f"{size.documents:,}", f"{size.kept:,}", f"{size.wall_s:.0f}"),
                *(f"{size.cpu_ms_a_document:.2f}", f"{further:.2f}"),
                *(f"{size.largest_process_bytes / 1e6:.0f}", f"{size.all_processes_bytes / 1e6:.0f}"),
            )


def stock_rates(results: DataResults) -> dict[str, dict[str, Rate]]:
    """Blocks that a stock block does too."""
    return {
        "filter chain": results.filters,
        "MinHash signatures": results.minhash,
        **{f"tokenizer training, {each.vocab_size:,} tokens": each.rates for each in results.training},
        "encoding": results.encoding,
    }


def peer(rates: Mapping[str, Rate]) -> Rate:
    return next(rate for name, rate in rates.items() if name != "sluice")


def spread(values: Sequence[float]) -> float:
    """Excess of the largest over the smallest, as a share of it; NaN where noise outweighs one of them."""
    return max(values) / min(values) - 1 if min(values) > 0 else math.nan


def cpu_ms_a_further_document(sizes: Sequence[Size]) -> list[float]:
    """CPU of each size beyond the one before it, by the documents beyond it: the start-up cancels out."""
    return [1000 * (more.cpu_s - less.cpu_s) / (more.documents - less.documents) for less, more in pairwise(sizes)]


def megabytes(size: Size) -> str:
    """Nominal size: a corpus ends with the first document beyond it."""
    return "1 GB" if size.text_bytes >= 1e9 else f"{size.text_bytes / 1e6:.0f} MB"


def _of(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def figures(results: DataResults) -> dict[str, Figure]:
    return {
        "data-rates.svg": _rates_figure(results),
        "data-recall.svg": _recall_figure(results),
        "data-scale.svg": _scale_figure(results),
    }


def _rates_figure(results: DataResults) -> Figure:
    rows = list(stock_rates(results).items())
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for shift, color, label, chosen in (
        (-0.2, OURS, "sluice", [rates["sluice"] for _, rates in rows]),
        (0.2, THEIRS, "datatrove 0.10 or Hugging Face tokenizers", [peer(rates) for _, rates in rows]),
    ):
        values = [each.megabytes_a_second for each in chosen]
        places = [place + shift for place in range(len(rows))]
        bars = axes.barh(places, values, 0.36, color=color, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=9)
    for place, (name, _) in enumerate(rows):
        if bound := LEAST_RATE.get(name):
            axes.plot([bound, bound], [place - 0.42, place + 0.02], color=BOUND, lw=2, label=None if place else "bound")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("MB of text a CPU-second (more is better)")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _recall_figure(results: DataResults) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    series = {
        "sluice": [100 * each.sluice for each in results.recall],
        "datatrove 0.10": [100 * each.stock for each in results.recall],
    }
    grouped_bars(axes, series, "%.1f")
    for place, each in enumerate(results.recall):
        bound = 100 * RECALL[each.low]
        axes.plot([place - 0.4, place + 0.4], [bound, bound], color=BOUND, lw=2, label=None if place else "bound")
    names = [f"Jaccard {each.low:g} to {each.high:g}\n{each.pairs:,} pairs" for each in results.recall]
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("pairs found, %")
    axes.set_ylim(0, 112)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _scale_figure(results: DataResults) -> Figure:
    built = {_of(workers): sizes[1:] for workers, sizes in results.sizes.items()}
    most = list(built.values())[-1]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    grouped_bars(left, {name: [each.cpu_ms_a_document for each in sizes] for name, sizes in built.items()}, "%.1f")
    left.set_ylabel("CPU a document with start-up, ms")
    memory = {
        "all processes": [each.all_processes_bytes / 1e9 for each in most],
        "the largest": [each.largest_process_bytes / 1e9 for each in most],
    }
    grouped_bars(right, memory, "%.2f")
    right.axhline(1.5, color=BOUND, lw=2, label="bound")
    right.set_ylabel("peak memory, GB")
    for axes in (left, right):
        axes.set_xticks(range(len(most)), [megabytes(each) for each in most])
        axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
        axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=3, columnspacing=1)
    return figure

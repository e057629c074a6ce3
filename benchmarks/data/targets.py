"""What was measured, held to what was asked for. Figures are rounded against us."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.data.results import Results
from benchmarks.data.scale import Size

RECALL = {0.9: 1.0, 0.8: 0.98, 0.7: 0.73}
"""Least recall by the lower end of a range of similarity."""


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    name: str
    measured: str
    asked: str
    is_met: bool


def targets(results: Results) -> list[Target]:
    filters, minhash, encoding = (
        rates["sluice"].megabytes_a_second for rates in (results.filters, results.minhash, results.encoding)
    )
    training = max(each.rates["sluice"].median_s / each.rates["tokenizers"].median_s for each in results.training)
    lengths = max(abs(_ratio(each.bytes_a_token) - 1) for each in results.training)
    ray = results.builds["ray"]
    scoring, whole = ray.speedup(ray.score_s), ray.speedup(ray.build_s)
    built = [size for sizes in results.sizes.values() for size in sizes[1:]]
    reach = f"{megabytes(built[0])} to {megabytes(built[-1])}"
    largest = max(each.largest_process_bytes for each in built) / 1e9
    together = max(each.all_processes_bytes for each in built) / 1e9
    merges = results.merges
    return [
        _at_least("Filter chain, every score", filters, 2, "MB/CPU-s"),
        _at_least("MinHash: words, shingles, signatures", minhash, 4, "MB/CPU-s"),
        *(
            Target(
                f"Recall at Jaccard {each.low:g} to {each.high:g}, {each.pairs:,} planted pairs",
                f"{down(100 * each.sluice, 1):.1f} %",
                f"≥ {100 * RECALL[each.low]:g} %",
                each.sluice >= RECALL[each.low],
            )
            for each in results.recall
        ),
        Target(
            f"False merges among {merges.documents:,} documents with planted edits ({merges.removed:,} removed)",
            str(merges.false),
            "0",
            merges.false == 0 < merges.removed,
        ),
        _at_least("Encoding", encoding, 5, "MB/CPU-s"),
        _at_most("Tokenizer training, CPU time beside Hugging Face's, the worse vocabulary", training, 0.5, "x"),
        _at_most("Bytes a token, apart from Hugging Face's", 100 * lengths, 0.5, "%"),
        _at_least("2 Ray workers beside 1, scoring phase, wall time", scoring, 1.7, "x"),
        _at_least("2 Ray workers beside 1, whole build, wall time", whole, 1.7, "x"),
        *(
            _at_most(f"{what}, {reach}, {of_workers(workers)}: most over least", 100 * spread(values), 15, "% more")
            for workers, sizes in results.sizes.items()
            for what, values in (
                ("CPU a document, start-up included", [each.cpu_ms_a_document for each in sizes[1:]]),
                ("CPU a further document", cpu_ms_a_further_document(sizes)),
            )
        ),
        _at_most(f"Peak memory of the largest process, {reach}", largest, 1.5, "GB"),
        _at_most(f"Peak memory of all processes together, {reach}", together, 1.5, "GB"),
    ]


def spread(values: Sequence[float]) -> float:
    """How much the largest exceeds the smallest, as a share of it; NaN where noise outweighs one of them."""
    return max(values) / min(values) - 1 if min(values) > 0 else math.nan


def cpu_ms_a_further_document(sizes: Sequence[Size]) -> list[float]:
    """What each size took beyond the one before it, a document that it has more: the start-up falls out."""
    return [1000 * (more.cpu_s - less.cpu_s) / (more.documents - less.documents) for less, more in pairwise(sizes)]


def megabytes(size: Size) -> str:
    """Its nominal size: a corpus ends with the first document beyond it."""
    return "1 GB" if size.text_bytes >= 1e9 else f"{size.text_bytes / 1e6:.0f} MB"


def of_workers(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def down(value: float, digits: int) -> float:
    return math.floor(value * 10**digits) / 10**digits


def up(value: float, digits: int) -> float:
    return math.ceil(value * 10**digits) / 10**digits


def _ratio(lengths: dict[str, float]) -> float:
    return lengths["sluice"] / lengths["tokenizers"]


def _at_least(name: str, value: float, least: float, unit: str) -> Target:
    return Target(name, f"{down(value, 2):.2f} {unit}", f"≥ {least:g} {unit}", value >= least)


def _at_most(name: str, value: float, most: float, unit: str) -> Target:
    if not math.isfinite(value):
        return Target(name, "noise alone", f"≤ {most:g} {unit}", is_met=False)
    return Target(name, f"{up(value, 2):.2f} {unit}", f"≤ {most:g} {unit}", value <= most)

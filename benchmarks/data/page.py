"""docs/data.md: the guide of benchmarks/data/guide.md with the figures of one run put in."""

import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.data.clock import Rate
from benchmarks.data.results import Results
from benchmarks.data.targets import RECALL, Target, cpu_ms_a_further_document, down, megabytes, of_workers, targets
from benchmarks.data.texts import EXACT_EVERY, NEAR_EVERY, PACK_BYTES

ROOT = Path(__file__).resolve().parents[2]
_GUIDE = Path(__file__).with_name("guide.md")
_PLACE = re.compile(r"\{\{(\w+)\}\}")

TESTS = {
    "sources, formats and their faults: truncation, bombs, loops, long lines": "tests/data/sources/",
    "every fault as a whole build: full disk, kills, a source that goes": "tests/data/test_build_faults.py, "
    "tests/pipelines/test_data_faults.py, tests/data/test_build_on_ray.py",
    "extraction and encoding": "tests/data/test_extract.py, tests/data/test_encoding.py",
    "each rule drops what it is for; scores are the reference's": "tests/data/test_quality_rules.py, "
    "tests/data/test_quality_gopher.py, tests/data/test_quality_scores.py",
    "recall by similarity, no false merge, order and sharding": "tests/data/test_deduplication_near.py",
    "lines, runs of words, what earlier runs kept": "tests/data/test_deduplication_pieces.py, "
    "tests/data/test_deduplication_substrings.py, tests/data/test_deduplication_index.py",
    "planted evaluation items, policies": "tests/data/test_decontamination.py",
    "precision and recall of masking on a labelled set": "tests/data/test_privacy_labelled.py",
    "same bytes whatever the order, shards and workers; nothing scored twice": "tests/data/test_refine.py",
    "a worker that fails or dies is named": "tests/data/test_executor.py",
    "tokenizers: round trip, determinism, the fast encoder's ids": "tests/data/test_tokenization_train.py, "
    "tests/data/test_tokenization_encoder.py",
    "packing, mix, a loader that resumes exactly": "tests/data/test_packing.py, tests/data/test_packing_mix.py, "
    "tests/data/test_packing_loader.py",
    "the card and the comparison": "tests/data/test_card.py, tests/data/test_data_diff.py",
    "throughput, speed-up, scale, memory": "benchmarks/data/__main__.py",
}


def render(results: Results) -> str:
    """The page. ValueError for a place in the guide that nothing fills, or a test that is not there."""
    held = targets(results)
    values = {
        "session": results.session,
        "machine": results.machine,
        "text": results.text,
        "runs": str(results.runs),
        "loads": ", ".join(f"{name} {load:.1f}" for name, load in results.loads.items()),
        "targets": _table(
            (each.name, each.measured, each.asked, "met" if each.is_met else "**not met**") for each in held
        ),
        "verdict": _verdict(held),
        "peers": _table(_peers(results)),
        "training": _table(_training(results)),
        "recall": _table(_recall(results)),
        "merges": _merges(results),
        "others": _table(_others(results)),
        "build_bytes": f"{results.build_bytes / 1e6:.1f} MB",
        "builds": _table(_builds(results)),
        "hashes": _hashes(results),
        "phases": ", ".join(f"{name} {value:.1f}" for name, value in results.builds["local"].phases.items()),
        "sizes": _table(_sizes(results)),
        "near_every": str(NEAR_EVERY),
        "exact_every": str(EXACT_EVERY),
        "pack": f"{PACK_BYTES / 1e6:g} MB",
        "base": megabytes(next(iter(results.sizes.values()))[0]),
        "tests": _table((what, _existing(where)) for what, where in TESTS.items()),
        "minutes": f"{sum(results.seconds.values()) / 60:.0f}",
    }
    guide = _GUIDE.read_text(encoding="utf-8")
    if missing := set(_PLACE.findall(guide)) ^ set(values):
        raise ValueError(f"{_GUIDE} and its values differ in {', '.join(sorted(missing))}")
    return _PLACE.sub(lambda place: values[place[1]], guide)


def _table(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _verdict(held: list[Target]) -> str:
    missed = [each.name for each in held if not each.is_met]
    said = f"Not met: {'; '.join(missed)}." if missed else "None is missed."
    return f"{len(held) - len(missed)} of {len(held)} are met. {said} Figures are rounded against us."


def peer(rates: Mapping[str, Rate]) -> Rate:
    """The one that is not ours."""
    return next(rate for name, rate in rates.items() if name != "sluice")


def _peers(results: Results) -> Iterable[tuple[str, ...]]:
    rows = {
        "filter chain": results.filters,
        "MinHash signatures": results.minhash,
        **{f"tokenizer training, {each.vocab_size:,} tokens": each.rates for each in results.training},
        "encoding": results.encoding,
    }
    for name, rates in rows.items():
        ours, theirs = rates["sluice"].megabytes_a_second, peer(rates).megabytes_a_second
        yield name, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.1f}"


def _training(results: Results) -> Iterable[tuple[str, ...]]:
    for each in results.training:
        ours, theirs = each.rates["sluice"].median_s, peer(each.rates).median_s
        lengths = each.bytes_a_token
        yield (
            f"{each.vocab_size:,}",
            f"{lengths['sluice']:.4f}",
            f"{lengths['tokenizers']:.4f}",
            f"{ours:.2f}",
            f"{theirs:.2f}",
            f"{ours / theirs:.2f}",
        )


def _recall(results: Results) -> Iterable[tuple[str, ...]]:
    for each in results.recall:
        shares = (f"{down(100 * share, 1):.1f} %" for share in (each.sluice, each.stock))
        yield f"{each.low:g} to {each.high:g}", f"{each.pairs:,}", *shares, f"{100 * RECALL[each.low]:g} %"


def _merges(results: Results) -> str:
    merges = results.merges
    return (
        f"Of {merges.documents:,} documents, originals and edits from nearly equal to well below the bound, "
        f"{merges.removed:,} were removed, {merges.false:,} of them for a document less similar than the bound."
    )


def _others(results: Results) -> Iterable[tuple[str, str]]:
    for prefix, rates in (("", results.others), ("extraction, ", results.extraction), ("reading, ", results.formats)):
        for name, rate in rates.items():
            yield f"{prefix}{name}", f"{rate.megabytes_a_second:.1f}"


def _builds(results: Results) -> Iterable[tuple[str, ...]]:
    for where, title in (("local", "local processes"), ("ray", "Ray")):
        builds = results.builds[where]
        for phase, seconds in (("scoring", builds.score_s), ("whole build", builds.build_s)):
            one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
            yield f"{title}, {phase}", f"{one:.1f}", f"{two:.1f}", f"{down(one / two, 2):.2f}"


def _hashes(results: Results) -> str:
    found = set().union(*(builds.hashes for builds in results.builds.values()))
    if len(found) == 1:
        return "Every one of these builds gave the same clean documents, by their hash."
    return f"**These builds gave {len(found)} different outcomes, which must not be.**"


def _sizes(results: Results) -> Iterable[tuple[str, ...]]:
    for workers, sizes in results.sizes.items():
        for size, further in zip(sizes[1:], cpu_ms_a_further_document(sizes), strict=True):
            yield (
                megabytes(size),
                of_workers(workers),
                f"{size.documents:,}",
                f"{size.kept:,}",
                f"{size.wall_s:.0f}",
                f"{size.cpu_ms_a_document:.2f}",
                f"{further:.2f}",
                f"{size.largest_process_bytes / 1e6:.0f}",
                f"{size.all_processes_bytes / 1e6:.0f}",
            )


def _existing(where: str) -> str:
    names = where.split(", ")
    if missing := [name for name in names if not (ROOT / name).exists()]:
        raise ValueError(f"{missing[0]} does not exist: correct TESTS in benchmarks/data/page.py")
    return ", ".join(f"`{name}`" for name in names)

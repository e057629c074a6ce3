"""The text that sizes are measured on, and a page that hides no miss."""

import re
from collections import Counter
from itertools import islice
from pathlib import Path

from benchmarks.data.blocks import Trained
from benchmarks.data.clock import Rate
from benchmarks.data.neighbours import Merges, Recall
from benchmarks.data.page import DataResults, bounds, figures, tables
from benchmarks.data.scale import Size
from benchmarks.data.texts import EXACT_EVERY, recombined
from benchmarks.data.workers import Builds
from benchmarks.markers import read_table, table_names
from benchmarks.report import DOCS, down, save_figures, up

REAL = [
    f"# Page {page}\n\n" + "\n\n".join(f"word{page} of line {line}" for line in range(page + 2)) for page in range(9)
]


def test_the_text_of_a_size_begins_with_that_of_a_smaller_one_and_holds_planted_copies():
    texts = list(islice(recombined(REAL), EXACT_EVERY))
    assert texts[:40] == list(islice(recombined(REAL), 40))
    assert texts[-1] == texts[-2]
    assert len(set(texts)) > EXACT_EVERY // 2


def test_a_pass_holds_each_length_of_the_real_documents_once_so_that_any_size_is_of_equal_documents():
    def lengths(texts: list[str]) -> list[int]:
        return sorted(text.strip().count("\n\n") for text in texts)

    texts = list(islice(recombined(REAL), 2 * len(REAL)))
    assert lengths(texts[: len(REAL)]) == lengths(texts[len(REAL) :]) == lengths(REAL)
    assert texts[: len(REAL)] != texts[len(REAL) :]


def test_nothing_repeats_across_passes_but_what_repeats_within_one_does():
    # Long paragraphs of code, of which one stands in two pages, in a pack that is dealt several times.
    def code(seed: int) -> str:
        return "    " + "; ".join(f"run_{seed}(item{n}, {n * seed})" for n in range(60))

    pages = [f"{code(2 * page)}\n\n{code(2 * page + 1)}" for page in range(20)] + [f"{code(0)}\n\n{code(99)}"]
    texts = list(islice(recombined(pages), 4 * len(pages)))
    passes = [Counter(run for text in some for run in _runs(text)) for some in (texts[:21], texts[42:63])]
    assert all(max(runs.values()) == 2 for runs in passes)
    assert not passes[0].keys() & passes[1].keys()


def _runs(text: str, words: int = 64) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[start : start + words]) for start in range(len(found) - words + 1)}


def test_figures_are_rounded_against_us():
    assert (down(1.699, 2), up(0.501, 2)) == (1.69, 0.51)


def test_what_is_missed_is_named():
    results = _results(ray_s=1.69)
    missed = [bound.name for bound in bounds(results) if not bound.is_met]
    assert missed == ["2 Ray workers over 1, scoring phase, wall time", "2 Ray workers over 1, whole build, wall time"]
    table = tables(results)["bounds"]
    assert all(name in table for name in missed)
    assert table.count("**not met**") == 2
    assert "**not" not in tables(_results(ray_s=1.8))["bounds"]


def test_what_noise_outweighs_is_not_met():
    results = _results(ray_s=1.8)
    sizes = results.sizes[2]
    sizes[1] = sizes[1].model_copy(update={"cpu_s": sizes[0].cpu_s})
    one, further = [bound for bound in bounds(results) if bound.name.startswith("CPU a further document")]
    assert one.is_met
    assert (further.is_met, further.shown, further.verdict) == (False, "none", "**not measured**")
    assert "**not measured**" in tables(results)["bounds"]


def test_no_removed_document_is_no_pass():
    results = _results(ray_s=1.8)
    results.merges = Merges(documents=9, removed=0, false=0)
    assert [bound.name for bound in bounds(results) if not bound.is_met] == [
        "false merges among 9 documents with planted edits (0 removed)"
    ]


def test_builds_with_different_outcomes_are_marked():
    results = _results(ray_s=1.8)
    assert "by hash | 1 | 1 |" in tables(results)["workers"]
    results.builds["ray"] = results.builds["ray"].model_copy(update={"hashes": {"b"}})
    assert "by hash | **2** | **2** |" in tables(results)["workers"]


def test_the_page_has_a_place_for_every_table_and_plot(tmp_path: Path):
    page, written = (DOCS / "data.md").read_text(encoding="utf-8"), tables(_results(ray_s=1.8))
    found = figures(_results(ray_s=1.8))
    # benchmarks/data/pages.py writes its own.
    assert sorted(table_names(page)) == sorted([*written, "pages"])
    assert all(read_table(DOCS / "data.md", name).startswith(each.partition("\n")[0]) for name, each in written.items())
    assert all(f"({name})" in page for name in found)
    save_figures(tmp_path, found)
    first = {name: (tmp_path / name).read_bytes() for name in found}
    save_figures(tmp_path, figures(_results(ray_s=1.8)))
    assert first == {name: (tmp_path / name).read_bytes() for name in found}


def _results(ray_s: float) -> DataResults:
    rates = {"sluice": _rate(0.1), "datatrove": _rate(1)}
    builds = Builds(score_s={1: [ray_s], 2: [1]}, build_s={1: [ray_s], 2: [1]}, hashes={"a"})
    lengths = {"sluice": 3.0, "tokenizers": 3.0}
    trained = Trained(
        vocab_size=300,
        rates={"sluice": _rate(0.1), "tokenizers": _rate(1)},
        library="rustbpe",
        bytes_a_token=lengths,
    )
    return DataResults(
        machine="a machine",
        text="a text",
        runs=3,
        filters=rates,
        minhash=rates,
        encoding=rates,
        training=[trained],
        recall=[Recall(low=low, high=low + 0.1, pairs=9, sluice=1, stock=1) for low in (0.9, 0.8, 0.7)],
        merges=Merges(documents=9, removed=3, false=0),
        builds={"local": builds, "ray": builds},
        build_bytes=1,
        sizes={workers: [_size(documents) for documents in (10, 100, 1000)] for workers in (1, 2)},
    )


def _rate(cpu_s: float) -> Rate:
    return Rate(size_bytes=1_000_000, cpu_s=[cpu_s])


def _size(documents: int) -> Size:
    return Size(
        text_bytes=documents * 10_000,
        documents=documents,
        kept=documents,
        cpu_s=documents * 0.01,
        wall_s=1,
        largest_process_bytes=1,
        all_processes_bytes=1,
        timings={},
    )

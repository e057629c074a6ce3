"""`make bench-data`: the data package beside stock blocks; writes the tables and plots of docs/data.md.

python -m benchmarks.data [--full] [--again] [--smoke DIR]
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.data import blocks, formats
from benchmarks.data.clock import RUNS
from benchmarks.data.neighbours import merges, recall
from benchmarks.data.page import DataResults, bounds, figures, tables
from benchmarks.data.planted import documents
from benchmarks.data.scale import Size, watched_build
from benchmarks.data.session import transcript
from benchmarks.data.texts import by_markup, documentation, extracted, sample, write_files, write_recombined
from benchmarks.data.workers import local_and_ray
from benchmarks.report import DOCS, keep, machine, run_in_turns, save_figures, write_page
from sluice.components.workspace import Workspace
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import IngestConfig, RefineConfig, TokenizerConfig
from sluice.data.document import Document
from sluice.pipelines.compose import compose

_WORKERS = 2
_SMALL = 10_000_000
"""Bytes of text up to which a size is built several times: a second of noise is much of a small build."""


@dataclass(frozen=True)
class DataPlan:
    """Amount of text and of everything else that is measured; sizes in bytes of text."""

    text: int | None = None
    """Raw documents to measure on; None: all there are."""
    blocks: int = 6_000_000
    builds: int = 16_000_000
    sizes: tuple[int, ...] = (2_000_000, 10_000_000, 100_000_000)
    """The first serves to subtract the start-up from the others."""
    vocabularies: tuple[int, ...] = (4096, 16_384)
    originals: int = 1200
    edited: int = 3200
    items: int = 1000
    runs: int = RUNS


_FULL = replace(DataPlan(), sizes=(*DataPlan().sizes, 1_000_000_000))
_SMOKE = DataPlan(
    text=3_000_000,
    blocks=500_000,
    builds=1_200_000,
    sizes=(600_000, 1_200_000, 2_400_000),
    vocabularies=(1024, 2048),
    originals=60,
    edited=1300,
    items=50,
    runs=1,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the data package beside its peers.")
    parser.add_argument("--full", action="store_true", help="1 GB of text too: several times as long")
    parser.add_argument("--again", action="store_true", help="write the page again from the last run's figures")
    parser.add_argument("--smoke", type=Path, metavar="DIR", help="everything on a little text, into DIR: a test run")
    arguments = parser.parse_args()
    kept = (arguments.smoke or Workspace.find().state) / "bench-data.json"
    if arguments.again:
        results = DataResults.model_validate_json(kept.read_text())
    else:
        results = run(_SMOKE if arguments.smoke else _FULL if arguments.full else DataPlan())
        keep(kept, results)
    out = arguments.smoke or DOCS
    write_page(out, "data.md", found := tables(results))
    save_figures(out, figures(results))
    print(*found.values(), sep="\n\n")
    if not arguments.smoke and (missed := [each.name for each in bounds(results) if not each.is_met]):
        raise SystemExit(f"not met: {'; '.join(missed)}")


def run(plan: DataPlan) -> DataResults:
    """Measure everything, from the quickest to the longest, with the settings of the default run."""
    workspace = Workspace.find()
    settings = compose(workspace, [])
    ingest, tokenizer = settings[IngestConfig], settings[TokenizerConfig]
    refine = with_absolute_paths(settings[RefineConfig], workspace.root).model_copy(update={"workers": _WORKERS})
    results = DataResults(machine=machine(), text="", runs=plan.runs)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary:
        folder = Path(temporary)
        with results.section("text"):
            raw, kind = documentation(ingest, workspace.state / "downloads")
            raw = raw if plan.text is None else _some(raw, plan.text)
            texts = extracted(raw)
            size = sum(len(text.encode()) for text in texts)
            results.text = f"{len(texts):,} documents of {kind}, {size / 1e6:.1f} MB extracted"
        _measure_blocks(plan, results, raw, texts, folder)
        _measure_tokenizer(plan, results, texts, tokenizer.min_frequency)
        with results.section("near duplicates"):
            results.recall, results.merges = recall(plan.originals), merges(plan.edited)
        with results.section("commands"):
            (folder / "session").mkdir()
            results.session = transcript(texts, folder / "session")
        with results.section("workers"):
            chosen = _some(raw, plan.builds)
            results.build_bytes = sum(len(document.text.encode()) for document in chosen)
            write_files(chosen, folder / "files")
            results.builds = local_and_ray(folder / "files", refine, folder, plan.runs)
        for size in plan.sizes:
            with results.section(f"{size / 1e6:g} MB"):
                source, runs = folder / "recombined", plan.runs if size <= _SMALL else 1
                size_bytes = write_recombined(texts, size, source)
                for workers, built in _builds_in_turns(source, size_bytes, refine, runs).items():
                    results.sizes.setdefault(workers, []).append(built)
                shutil.rmtree(source)
    return results


def _measure_blocks(plan: DataPlan, results: DataResults, raw: list[Document], texts: list[str], folder: Path) -> None:
    some = sample(texts, plan.blocks)
    with results.section("filters"):
        results.filters = blocks.filters(some, plan.runs)
    with results.section("MinHash"):
        results.minhash = blocks.minhash(some, plan.runs)
    with results.section("privacy and decontamination"):
        path = folder / "items.jsonl"
        items = ({"question": text[:400], "answer": text[400:600]} for text in documents(plan.items))
        path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in items), encoding="utf-8")
        results.others = blocks.others(some, [path], plan.runs)
    with results.section("extraction and formats"):
        results.extraction = blocks.extraction(by_markup(raw, plan.blocks // 3), plan.runs)
        results.formats = formats.reading(some, plan.runs)


def _measure_tokenizer(plan: DataPlan, results: DataResults, texts: list[str], min_frequency: int) -> None:
    held_out = sample(texts, plan.blocks // 10)
    left = set(held_out)
    rest = [text for text in texts if text not in left]
    with results.section("tokenizer"):
        results.training = [
            blocks.training(rest, held_out, size, min_frequency, plan.runs) for size in plan.vocabularies
        ]
        some = sample(texts, plan.blocks)
        results.encoding = blocks.encoding(some, plan.vocabularies[0], min_frequency, plan.runs)


def _some(raw: list[Document], size_bytes: int) -> list[Document]:
    """A sample of the documents, in their order."""
    chosen = set(sample([document.text for document in raw], size_bytes))
    return [document for document in raw if document.text in chosen]


def _builds_in_turns(source: Path, size_bytes: int, refine: RefineConfig, runs: int) -> dict[int, Size]:
    """The build of the median CPU, by number of workers."""

    def build(workers: int) -> Size:
        with tempfile.TemporaryDirectory(dir=source.parent) as out:
            config = refine.model_copy(update={"workers": workers})
            return watched_build(source, config, Path(out), size_bytes, source.with_name("bytecode"))

    found = run_in_turns({workers: partial(build, workers) for workers in (1, _WORKERS)}, runs)
    return {workers: sorted(each, key=lambda size: size.cpu_s)[runs // 2] for workers, each in found.items()}

"""`make bench-data`: the data room beside stock blocks on the same text, in one run; writes docs/data.md and its plots.

    python -m benchmarks.data [--full] [--again] [--smoke DIR]

Local workers import this file as it stands, so all that weighs is imported where it is used.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data.clock import RUNS, load

if TYPE_CHECKING:
    from benchmarks.data.results import Results
    from sluice.data.config import IngestConfig, RefineConfig, TokenizerConfig
    from sluice.data.document import Document

DOCS = Path(__file__).resolve().parents[2] / "docs"
_WORKERS = 2
_SMALL = 10_000_000
"""Bytes of text up to which a size is built several times."""


@dataclass(frozen=True)
class Plan:
    """How much of everything is measured; sizes in bytes of text."""

    text: int | None = None
    """Of the raw documents that all is measured on; None: all there are."""
    blocks: int = 6_000_000
    builds: int = 16_000_000
    sizes: tuple[int, ...] = (2_000_000, 10_000_000, 100_000_000)
    """The first is there to take the start-up out of the others."""
    vocabularies: tuple[int, ...] = (4096, 16_384)
    originals: int = 1200
    """Documents that pairs are planted in, a level."""
    edited: int = 3200
    items: int = 1000
    """Of the evaluation set."""
    runs: int = RUNS


_FULL = replace(Plan(), sizes=(*Plan().sizes, 1_000_000_000))
_SMOKE = Plan(
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
    parser = argparse.ArgumentParser(description="Measure the data room beside its peers.")
    parser.add_argument("--full", action="store_true", help="1 GB of text too: several times as long")
    parser.add_argument("--again", action="store_true", help="write the page again from the last run's figures")
    parser.add_argument(
        "--smoke",
        type=Path,
        metavar="DIR",
        help="everything on a little text, to see that it runs; the page goes to DIR",
    )
    arguments = parser.parse_args()
    from benchmarks.data.page import render
    from benchmarks.data.plots import draw
    from benchmarks.data.results import Results
    from benchmarks.data.targets import targets
    from sluice.components.workspace import Workspace

    out = arguments.smoke or DOCS
    kept = (arguments.smoke or Workspace.find().state) / "bench-data.json"
    if arguments.again:
        results = Results.model_validate_json(kept.read_text())
    else:
        results = run(_SMOKE if arguments.smoke else _FULL if arguments.full else Plan())
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(results.model_dump_json(indent=1))
    draw(results, out)
    page = render(results)
    (out / "data.md").write_text(page, encoding="utf-8")
    print(page)
    if not arguments.smoke and (missed := [each.name for each in targets(results) if not each.is_met]):
        raise SystemExit(f"not met: {'; '.join(missed)}")


def run(plan: Plan) -> "Results":
    """Measure everything, from the quickest to the longest."""
    from benchmarks.data.results import Results
    from benchmarks.data.texts import documentation, extracted
    from benchmarks.lifecycle import machine
    from sluice.components.workspace import Workspace

    ingest, refine, tokenizer = settings()
    results = Results(machine=machine(), text="", runs=plan.runs)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary:
        folder = Path(temporary)
        with _section(results, "text"):
            raw, kind = documentation(ingest, Workspace.find().state / "downloads")
            raw = raw if plan.text is None else _some(raw, plan.text)
            texts = extracted(raw)
            size = sum(len(text.encode()) for text in texts)
            results.text = f"{len(texts):,} documents of {kind}, {size / 1e6:.1f} MB extracted"
        _blocks(plan, results, raw, texts, folder)
        _tokenizer(plan, results, texts, tokenizer.min_frequency)
        _neighbours(plan, results)
        _session(results, texts, folder)
        _builds(plan, results, raw, refine, folder)
        _sizes(plan, results, texts, refine, folder)
    return results


def settings() -> "tuple[IngestConfig, RefineConfig, TokenizerConfig]":
    """Of the default run, with the paths in them made whole."""
    from sluice.components.params import validate
    from sluice.components.workspace import Workspace
    from sluice.data.config import IngestConfig, RefineConfig, TokenizerConfig
    from sluice.pipelines.compose import compose

    workspace = Workspace.find()
    blocks = validate(compose(workspace, []))
    ingest, refine, tokenizer = (blocks[name] for name in ("data", "refine", "tokenizer"))
    assert isinstance(ingest, IngestConfig)
    assert isinstance(refine, RefineConfig)
    assert isinstance(tokenizer, TokenizerConfig)
    sets = [each.model_copy(update={"path": str(workspace.root / each.path)}) for each in refine.sets]
    return ingest, refine.model_copy(update={"evaluation_sets": sets, "workers": _WORKERS}), tokenizer


@contextmanager
def _section(results: "Results", name: str) -> Iterator[None]:
    results.loads[name] = load()
    print(f"{name} ..", file=sys.stderr, flush=True)
    started = time.perf_counter()
    yield
    results.seconds[name] = time.perf_counter() - started


def _blocks(plan: Plan, results: "Results", raw: "list[Document]", texts: list[str], folder: Path) -> None:
    from benchmarks.data import blocks, formats
    from benchmarks.data.markups import by_markup
    from benchmarks.data.planted import documents
    from benchmarks.data.texts import sample

    some = sample(texts, plan.blocks)
    with _section(results, "filters"):
        results.filters = blocks.filters(some, plan.runs)
    with _section(results, "MinHash"):
        results.minhash = blocks.minhash(some, plan.runs)
    with _section(results, "privacy and decontamination"):
        items = folder / "items.jsonl"
        items.write_text("".join(_item(text) for text in documents(plan.items)), encoding="utf-8")
        results.others = blocks.others(some, [items], plan.runs)
    with _section(results, "extraction and formats"):
        results.extraction = blocks.extraction(by_markup(raw, plan.blocks // 3), plan.runs)
        results.formats = formats.reading(some, plan.runs)


def _item(text: str) -> str:
    import json

    return json.dumps({"question": text[:400], "answer": text[400:600]}, ensure_ascii=False) + "\n"


def _tokenizer(plan: Plan, results: "Results", texts: list[str], min_frequency: int) -> None:
    from benchmarks.data.blocks import encoding, training
    from benchmarks.data.texts import sample

    held_out = sample(texts, plan.blocks // 10)
    left = set(held_out)
    rest = [text for text in texts if text not in left]
    with _section(results, "tokenizer"):
        results.training = [training(rest, held_out, size, min_frequency, plan.runs) for size in plan.vocabularies]
        results.encoding = encoding(sample(texts, plan.blocks), plan.vocabularies[0], min_frequency, plan.runs)


def _neighbours(plan: Plan, results: "Results") -> None:
    from benchmarks.data.neighbours import merges, recall

    with _section(results, "near duplicates"):
        results.recall, results.merges = recall(plan.originals), merges(plan.edited)


def _session(results: "Results", texts: list[str], folder: Path) -> None:
    from benchmarks.data.session import transcript

    with _section(results, "commands"):
        (folder / "session").mkdir()
        results.session = transcript(texts, folder / "session")


def _builds(plan: Plan, results: "Results", raw: "list[Document]", refine: "RefineConfig", folder: Path) -> None:
    from benchmarks.data.texts import write_files
    from benchmarks.data.workers import local_and_ray

    with _section(results, "workers"):
        documents = _some(raw, plan.builds)
        results.build_bytes = sum(len(document.text.encode()) for document in documents)
        write_files(documents, folder / "files")
        results.builds = local_and_ray(folder / "files", refine, folder, plan.runs)


def _some(raw: "list[Document]", size_bytes: int) -> "list[Document]":
    """Documents from all over, in their order."""
    from benchmarks.data.texts import sample

    chosen = set(sample([document.text for document in raw], size_bytes))
    return [document for document in raw if document.text in chosen]


def _sizes(plan: Plan, results: "Results", texts: list[str], refine: "RefineConfig", folder: Path) -> None:
    from benchmarks.data.scale import Size, watched_build
    from benchmarks.data.texts import write_recombined

    for size in plan.sizes:
        with _section(results, f"{size / 1e6:g} MB"):
            source = folder / "recombined"
            size_bytes = write_recombined(texts, size, source)
            found: dict[int, list[Size]] = {1: [], _WORKERS: []}
            # A second of noise is much of a small build, and nothing of a large one.
            for _ in range(plan.runs if size <= _SMALL else 1):
                for workers, each in found.items():
                    out = folder / "scale"
                    out.mkdir()
                    config = refine.model_copy(update={"workers": workers})
                    each.append(watched_build(source, config, out, size_bytes, folder / "bytecode"))
                    shutil.rmtree(out)
            for workers, each in found.items():
                median = sorted(each, key=lambda size: size.cpu_s)[len(each) // 2]
                results.sizes.setdefault(workers, []).append(median)
            shutil.rmtree(source)


if __name__ == "__main__":
    main()

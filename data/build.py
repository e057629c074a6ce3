"""Build clean documents from sources, without the rest of the lifecycle: the function behind `sluice data build`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sluice.core.files import try_lock, with_file_system
from sluice.core.manifest import write_manifest
from sluice.core.progress import Progress, no_progress
from sluice.data.card.card import write_card
from sluice.data.config import IngestConfig, RefineConfig
from sluice.data.executor import WorkerDied, lasting_workers
from sluice.data.refining.refine import load_sets, refine
from sluice.data.refining.score import SUMMARIES
from sluice.data.refining.write import NothingKept
from sluice.data.report import EVIDENCE, INGEST, REJECTS, IngestReport, RefineReport, is_finished_build
from sluice.data.sources.ingest import ingest
from sluice.data.sources.location import LocalFiles, locate
from sluice.data.sources.parts import DONE

_REASONS = 4
READ = "read"
"""Folder of the parts that are read, in that of an unfinished build."""


class BuildReport(BaseModel):
    """The reports of ingest and refine."""

    ingest: IngestReport
    refine: RefineReport

    def summary(self) -> dict[str, Any]:
        """The most important numbers. `in` is `kept` plus everything under `dropped`."""
        return {
            "in": self.refine.documents_in,
            "kept": self.refine.documents_kept,
            "dropped": self.refine.dropped,
            "rejects": self.ingest.rejects,
            "noted": self.ingest.noted,
            "encodings": self.ingest.encodings,
            "masked": self.refine.masked,
            "contaminated": self.refine.contaminated,
            "shared_ngrams": {
                name: {str(words): each.documents for words, each in by_length.items()}
                for name, by_length in self.refine.shared_ngrams.items()
            },
            "joined_lines": {
                name: tally.joined_lines for name, tally in self.refine.by_source.items() if tally.joined_lines
            },
            "words_left_out": {
                name: [tally.words_left_out, tally.page_words]
                for name, tally in self.refine.by_source.items()
                if tally.words_left_out
            },
            "cut": {
                "contamination": self.refine.contamination_cut,
                "pieces": self.refine.pieces_removed,
                "substrings": self.refine.substrings_cut,
            },
            "sources": {name: counts.documents for name, counts in self.ingest.sources.items()},
            "bytes_in": self.refine.bytes_in,
            "bytes_kept": self.refine.bytes_kept,
            "content_sha256": self.refine.content_sha256,
        }


def build(
    ingest_config: IngestConfig,
    refine_config: RefineConfig,
    out: Path,
    *,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> BuildReport:
    """Write clean documents and the evidence about all of them into `out`, which appears when it is complete.

    After a crash or an interrupt, the next run of the same sources, settings and code reuses the parts that were read
    and scored. An earlier build in `out` is replaced. Raises ValueError if `out` holds something else, or another
    build is running there.
    """
    out = out.resolve()
    _check_out(ingest_config, out)
    load_sets(refine_config)  # Reports a mistake in an evaluation set before anything is fetched.
    with _unfinished(out) as half:
        raw, result, read = half / "raw", half / "result", half / READ
        half.chmod(0o700)
        try:
            for folder in (raw, result):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            with lasting_workers() as run:
                ingested = ingest(ingest_config, raw, cache=cache, work=read, executor=run, progress=progress)
                try:
                    refined = refine(refine_config, raw, result, work=half / "work", executor=run, progress=progress)
                except NothingKept as error:
                    note = ingested.rejects_note(_REASONS)
                    raise ValueError(f"{error}{note}; the scores are kept in {half} for the next try") from error
            ingest_report = ingested.model_dump_json(exclude={"timings"}, indent=2) + "\n"
            (result / EVIDENCE / INGEST).write_text(ingest_report, encoding="utf-8")
            shutil.copyfile(raw / REJECTS, result / EVIDENCE / REJECTS)
            report = BuildReport(ingest=ingested, refine=refined)
            seal(report, {"data": ingest_config.shown(), "refine": refine_config.shown()}, result)
            put_in_place(result, out)
            refined.remember()
        except WorkerDied:
            raise
        except Exception:
            # Not masked, so it stays only where the same command is to go on.
            shutil.rmtree(read, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(raw, ignore_errors=True)
            shutil.rmtree(result, ignore_errors=True)
        shutil.rmtree(half)
    return report


def seal(report: BuildReport, parameters: dict[str, Any], result: Path) -> None:
    """Complete a folder of documents and evidence with its manifest and its card."""
    summary = report.summary()
    write_manifest(result, report=summary, parameters=parameters, content_sha256=summary["content_sha256"])
    write_card(result)


def put_in_place(result: Path, out: Path) -> None:
    """Move a finished folder to `out`; an earlier build there is removed once the new one is in place."""
    old = _old(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    result.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _check_out(config: IngestConfig, out: Path) -> None:
    """Raise ValueError if `out` cannot be replaced or contains a source; restore a build that a crash left."""
    if not out.exists() and _old(out).is_dir():
        # A build died after it put the old one aside and before the new one was in place.
        _old(out).rename(out)
    for parent in (out, *out.parents):
        if parent.exists() and not parent.is_dir():
            raise ValueError(f"--out {out}: {parent} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not is_finished_build(out):
        raise ValueError(f"--out {out} holds something that is not a build: name an empty or a new folder")
    for location in map(locate, config.given):
        if isinstance(location, LocalFiles):
            top = location.top.resolve()
            reaches_below = location.glob is None or "**" in location.glob
            if out == top or out in top.parents or (reaches_below and top in out.parents):
                raise ValueError(f"--out {out} and source {location.name} contain each other: write somewhere else")


def unfinished(out: Path) -> Path:
    """Return the folder of a build in `out` while it is not finished."""
    return out.resolve().with_name(f".{out.resolve().name}.partial")


def reusable(half: Path) -> bool:
    """Return whether the folder of an unfinished build has parts that are read or scored."""
    return any(half.glob(f"{READ}/*/{DONE}")) or any(half.glob(f"work/*/{SUMMARIES}"))


@contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Yield the folder of the unfinished build; ValueError if another process is building there.

    It is kept on failure if it contains a part that is read or scored, which a later build reuses.
    """
    half = unfinished(out)
    half.mkdir(parents=True, exist_ok=True)
    lock = os.open(half, os.O_RDONLY)
    try:
        if not try_lock(lock):
            raise ValueError(f"another build is running in {out}: wait for it, or name another folder")
        try:
            yield half
        except OSError as error:
            raise with_file_system(error) from error
        finally:
            if not reusable(half):
                shutil.rmtree(half, ignore_errors=True)
    finally:
        os.close(lock)

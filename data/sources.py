"""Text comes in: pinned source distributions, local files, or what is installed. What is unreadable is counted."""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from data.archive import IndexUnreachable, fetch, read_members
from data.config import IngestConfig, PackageSource
from data.document import Document, content_id, write_documents
from data.installed import installed_documents
from data.progress import Progress, no_progress

MARKUP_OF_SUFFIX = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
}
SUFFIXES = (*MARKUP_OF_SUFFIX, ".jsonl")
_DOWNLOADS_AT_ONCE = 4


class SourceCounts(BaseModel):
    """What one source gave."""

    documents: int = 0
    bytes: int = 0
    licence: str = ""


class IngestReport(BaseModel):
    """What came in, and what did not."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of raw text, markup included."""
    sources: dict[str, SourceCounts] = {}
    rejects: dict[str, int] = {}
    """Files and lines that could not be read, by reason; each is a line of rejects.jsonl."""
    fallback_reason: str | None = None
    """Why the documentation of the installed packages was taken instead of the pinned packages, if it was."""
    timings: dict[str, float] = {}


@dataclass(frozen=True)
class Reject:
    """A file, or a line of one, that is not a document."""

    source: str
    path: str
    reason: str
    line: int | None = None


Read = Iterator[Document | Reject]


def ingest(
    config: IngestConfig, out: Path, *, cache: Path | None = None, progress: Progress = no_progress
) -> IngestReport:
    """Write documents-*.jsonl.gz and rejects.jsonl of the configured sources into `out`.

    Local sources go before packages. Downloads are kept in `cache`. ValueError for a source that does not exist, holds
    no document, or is not the file its pin names.
    """
    started = time.perf_counter()
    report = IngestReport()
    rejects: list[Reject] = []
    if config.local_sources:
        found = _local(config, progress)
    else:
        found, report.fallback_reason = _packages(config, cache, progress)
    fetched = time.perf_counter()
    write_documents(_accounted(found, report, rejects), out, config.documents_per_shard)
    lines = [json.dumps(vars(reject), ensure_ascii=False, sort_keys=True) + "\n" for reject in rejects]
    (out / "rejects.jsonl").write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
    if not report.documents:
        raise ValueError(f"no document in data.packages ({_first_reject(rejects)}): correct their include globs")
    report.sources = dict(sorted(report.sources.items()))
    report.rejects = dict(sorted(report.rejects.items()))
    report.timings = {"fetch_s": fetched - started, "read_s": time.perf_counter() - fetched}
    return report


def _accounted(found: Read, report: IngestReport, rejects: list[Reject]) -> Iterator[Document]:
    for each in found:
        if isinstance(each, Reject):
            rejects.append(each)
            report.rejects[each.reason] = report.rejects.get(each.reason, 0) + 1
            continue
        counts = report.sources.setdefault(each.metadata["source"], SourceCounts(licence=each.metadata["licence"]))
        size = len(each.text.encode())
        for tally in (counts, report):
            tally.documents += 1
            tally.bytes += size
        yield each


def _document(text: str, source: str, path: str, licence: str, markup: str) -> Document:
    metadata = {"source": source, "path": path, "licence": licence, "title": Path(path).stem, "markup": markup}
    return Document(text=text, id=content_id(text), metadata=metadata)


def _read_text(content: bytes, source: str, path: str, licence: str, markup: str) -> Document | Reject:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Reject(source, path, "not UTF-8 text")
    if "\0" in text:
        return Reject(source, path, "binary")
    return _document(text, source, path, licence, markup) if text.strip() else Reject(source, path, "empty")


# Packages


def _packages(config: IngestConfig, cache: Path | None, progress: Progress) -> tuple[Read, str | None]:
    """The pinned packages' documents, or the installed packages' and the reason for it.

    All or nothing: a corpus of whichever packages happened to arrive would be another corpus on every machine.
    """
    try:
        if cache is not None:
            return _read_packages(config, _fetch_all(config.packages, cache, progress), progress), None
        with TemporaryDirectory(prefix="sluice-") as folder:
            archives = _fetch_all(config.packages, Path(folder), progress)
            return iter(list(_read_packages(config, archives, progress))), None
    except IndexUnreachable as error:
        reason = f"{error}; took the documentation of the installed packages instead"
        progress(0, config.fallback_bytes, reason)
        return installed_documents(config.fallback_bytes, progress=progress), reason


def _fetch_all(packages: list[PackageSource], cache: Path, progress: Progress) -> list[Path]:
    pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download")
    try:
        fetching = {pool.submit(fetch, package, cache): package for package in packages}
        for done, future in enumerate(as_completed(fetching), start=1):
            future.result()
            progress(done, len(packages), f"fetched {fetching[future].name}")
        return [future.result() for future in fetching]
    finally:
        pool.shutdown(cancel_futures=True)


def _read_packages(config: IngestConfig, archives: list[Path], progress: Progress) -> Read:
    for done, (package, archive) in enumerate(zip(config.packages, archives, strict=True), start=1):
        source = f"{package.name}=={package.version}"
        members = read_members(archive, package.include, package.exclude, config.max_document_bytes)
        found = 0
        for path, content in sorted(members, key=lambda member: member[0]):
            found += 1
            if content is None:
                yield Reject(source, path, f"larger than {config.max_document_bytes} bytes")
                continue
            markup = package.markup or MARKUP_OF_SUFFIX.get(Path(path).suffix.lower(), "txt")
            yield _read_text(content, source, path, package.licence, markup)
        if not found:
            raise ValueError(f"{source}: no file matches include {package.include}; correct data.packages")
        progress(done, len(archives), f"read {source}")


# Local files


def _local(config: IngestConfig, progress: Progress) -> Read:
    sources = config.local_sources
    for name in sources:
        if not Path(name).exists():
            raise ValueError(f"data.sources: {name} does not exist")
    for done, name in enumerate(sources, start=1):
        rejects: list[Reject] = []
        documents = 0
        for path, shown in _files(Path(name)):
            for each in _read_file(path, shown, config.max_document_bytes):
                documents += isinstance(each, Document)
                if isinstance(each, Reject):
                    rejects.append(each)
                yield each
        if not documents:
            raise ValueError(
                f"data.sources: {name} holds no document ({_first_reject(rejects)}); "
                f"files of {', '.join(SUFFIXES)} are read"
            )
        progress(done, len(sources), f"read {documents} documents from {name}")


def _first_reject(rejects: list[Reject]) -> str:
    if not rejects:
        return "it is empty"
    first = rejects[0]
    where = f"{first.path}:{first.line}" if first.line else first.path
    return f"{len(rejects)} rejected, first {where}: {first.reason}"


def _files(source: Path) -> Iterator[tuple[Path, str]]:
    """(file, path to show) of a file, or of a directory's visible files in name order."""
    if source.is_file():
        yield source, source.name
        return
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(folder) / name
                yield path, path.relative_to(source).as_posix()


def _read_file(path: Path, shown: str, max_bytes: int) -> Read:
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        yield from _read_lines(path, shown, max_bytes)
    elif suffix not in MARKUP_OF_SUFFIX:
        yield Reject("local", shown, f"unsupported suffix {suffix or '(none)'}")
    elif not path.is_file():
        yield Reject("local", shown, "not a regular file")
    elif path.stat().st_size > max_bytes:
        yield Reject("local", shown, f"larger than {max_bytes} bytes")
    else:
        yield _read_text(path.read_bytes(), "local", shown, "unspecified", MARKUP_OF_SUFFIX[suffix])


def _read_lines(path: Path, shown: str, max_bytes: int) -> Read:
    """One document a line, its text under the key `text`."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            text = _text_of(line)
            if text is None:
                yield Reject("local", shown, "line is not a JSON object with a string under `text`", number)
            elif not text.strip():
                yield Reject("local", shown, "empty", number)
            elif len(line) > max_bytes:
                yield Reject("local", shown, f"larger than {max_bytes} bytes", number)
            else:
                yield _document(text, "local", f"{shown}:{number}", "unspecified", "txt")


def _text_of(line: bytes) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    text = row.get("text") if isinstance(row, dict) else None
    # A lone surrogate, which JSON can escape, has no UTF-8 form.
    return text if isinstance(text, str) and _encodes(text) else None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

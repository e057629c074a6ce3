"""The format of a file by its suffix, and its reader. Every fault of a file becomes a reject."""

import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sluice.data.config import Format, Markup
from sluice.data.document import Document
from sluice.data.sources.code_files import language_of
from sluice.data.sources.compression import PACKINGS, Damaged, open_stream
from sluice.data.sources.files import cannot_be_read
from sluice.data.sources.json_values import ranges_of_json, read_json
from sluice.data.sources.jsonl_csv import ranges_of_csv, ranges_of_json_lines, read_csv, read_json_lines
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import RAW, Origin, Read, Reject
from sluice.data.sources.parquet import ranges_of_parquet, read_parquet
from sluice.data.sources.ranges import FileRange
from sluice.data.sources.warc import read_warc

MARKUP_OF_SUFFIX: dict[str, Markup] = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
Reader = Callable[..., Read]
"""Called with path, packing, shown name, origin and limits; those of `_SPLITTERS` also with a range."""
_FORMAT_OF_SUFFIX: dict[str, Format] = {
    **dict.fromkeys(MARKUP_OF_SUFFIX, "text"),
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
}
SUFFIXES = tuple(_FORMAT_OF_SUFFIX)
"""Each of them, Parquet aside, also with .gz or .zst after it."""

UNSUPPORTED = "unsupported suffix"


def read_file(
    path: Path, shown: str, origin: Origin, limits: Limits, part: FileRange | None = None, *, chosen: bool = False
) -> Read:
    """Read the documents and rejects of one file, or of a range of it. `shown` is its name in them, with its suffix.

    A file of another suffix is read as source code if it was `chosen` by its suffix. A damaged file yields what is
    before the damage, then one reject.
    """
    suffix, packing = kind(shown)
    found = format_of(shown, origin, chosen=chosen)
    if found is None:
        yield origin.reject(shown, f"{UNSUPPORTED} {suffix or '(none)'}")
        return
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield origin.reject(shown, "not a regular file")
        elif not status.st_size:
            yield origin.reject(shown, "empty")
        elif part is not None:
            yield from _READERS[found](path, packing, shown, origin, limits, part)
        else:
            yield from _READERS[found](path, packing, shown, origin, limits)
    except Damaged as damage:
        yield origin.reject(shown, str(damage), damage.line)
    except OSError as error:
        yield origin.reject(shown, cannot_be_read(error))


def ranges_of(
    path: Path, shown: str, origin: Origin, limits: Limits, size_bytes: int, *, chosen: bool
) -> list[FileRange]:
    """Return ranges of a file of rows, of about this size, that give the same documents and rejects as the whole file.

    None for a file that can only be read as a whole, such as a compressed one.
    """
    splitter = _SPLITTERS.get(format_of(shown, origin, chosen=chosen) or "")
    try:
        if splitter is None or kind(shown)[1] or path.stat().st_size > limits.file_bytes:
            return []
        return splitter(path, shown, origin, limits, size_bytes)
    except (OSError, Damaged):
        return []


def format_of(name: str, origin: Origin, *, chosen: bool) -> Format | None:
    """Return the format that a file is read in; None if it is not read. `chosen`: a glob names its suffix."""
    known = origin.format or _FORMAT_OF_SUFFIX.get(kind(name)[0])
    return known or ("text" if chosen or origin.markup is not None else None)


@lru_cache(maxsize=64)
def kind(name: str) -> tuple[str, str | None]:
    """Return (suffix of the format, packing): `a.jsonl.gz` is (.jsonl, gzip)."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in PACKINGS:
        return (suffixes[-2] if len(suffixes) > 1 else ""), PACKINGS[suffixes[-1]]
    return (suffixes[-1] if suffixes else ""), None


def read_text(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read the whole file as one document."""
    with open_stream(path, limits, packing) as stream:
        content = stream.read(limits.document_bytes + 1)
    if len(content) > limits.document_bytes:
        yield origin.reject(shown, too_large(limits.document_bytes))
        return
    yield text_document(content, shown, origin)


def text_document(content: bytes, shown: str, origin: Origin) -> Document | Reject:
    """Make a document of a text file. The text of source code is kept as it is, with its language as metadata."""
    name = shown.removesuffix(PurePosixPath(shown).suffix) if kind(shown)[1] else shown
    by_suffix = MARKUP_OF_SUFFIX.get(kind(shown)[0])
    markup = origin.markup_or(by_suffix or RAW)
    if "html" in {markup, by_suffix}:
        return origin.of_page(content, shown, markup=markup)
    language = language_of(name) if by_suffix is None and origin.markup is None else None
    fields = {"programming_language": language} if language else None
    return origin.of_file(content, shown, markup, fields=fields)


_READERS: dict[Format, Reader] = {
    "text": read_text,
    "json": read_json,
    "jsonl": read_json_lines,
    "csv": read_csv,
    "tsv": read_csv,
    "parquet": read_parquet,
    "warc": read_warc,
}
_SPLITTERS: dict[str, Callable[[Path, str, Origin, Limits, int], list[FileRange]]] = {
    "json": ranges_of_json,
    "jsonl": ranges_of_json_lines,
    "csv": ranges_of_csv,
    "tsv": ranges_of_csv,
    "parquet": ranges_of_parquet,
}

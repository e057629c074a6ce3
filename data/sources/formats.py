"""The format of a file by its suffix, and its reader. Every fault of a file becomes a reject."""

import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from sluice.data.config import Markup
from sluice.data.sources.compression import PACKINGS, Damaged, open_stream
from sluice.data.sources.files import cannot_be_read
from sluice.data.sources.jsonl_csv import read_csv, read_json_lines
from sluice.data.sources.origin import Limits, Origin, Read, too_large
from sluice.data.sources.parquet import read_parquet
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
Reader = Callable[[Path, str | None, str, Origin, Limits], Read]
_READERS: dict[str, Reader] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".warc": read_warc,
}
SUFFIXES = (*MARKUP_OF_SUFFIX, *_READERS)
"""Each of them, Parquet aside, also with .gz or .zst after it."""


UNSUPPORTED = "unsupported suffix"


def read_file(path: Path, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read the documents and rejects of one file. `shown` is its name in them, with its suffix.

    A damaged file yields what is before the damage, then one reject.
    """
    suffix, packing = kind(shown)
    reader = _READERS.get(suffix)
    if reader is None and suffix not in MARKUP_OF_SUFFIX and origin.markup is None:
        yield origin.reject(shown, f"{UNSUPPORTED} {suffix or '(none)'}")
        return
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield origin.reject(shown, "not a regular file")
        elif not status.st_size:
            yield origin.reject(shown, "empty")
        else:
            yield from (reader or read_text)(path, packing, shown, origin, limits)
    except Damaged as damage:
        yield origin.reject(shown, str(damage), damage.line)
    except OSError as error:
        yield origin.reject(shown, cannot_be_read(error))


def kind(name: str) -> tuple[str, str | None]:
    """Return (suffix of the format, packing): `a.jsonl.gz` is (.jsonl, gzip)."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in PACKINGS:
        return (suffixes[-2] if len(suffixes) > 1 else ""), PACKINGS[suffixes[-1]]
    return (suffixes[-1] if suffixes else ""), None


def markup_of(name: str) -> Markup:
    """Return the markup of a text file by its suffix; plain text for other suffixes."""
    return MARKUP_OF_SUFFIX.get(kind(name)[0], "txt")


def read_text(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read the whole file as one document."""
    with open_stream(path, limits, packing) as stream:
        content = stream.read(limits.document_bytes + 1)
    if len(content) > limits.document_bytes:
        yield origin.reject(shown, too_large(limits.document_bytes))
        return
    markup = origin.markup or markup_of(shown)
    yield origin.of_page(content, shown) if markup == "html" else origin.of_file(content, shown, markup)

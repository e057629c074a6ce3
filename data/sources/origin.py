"""The items that readers yield: documents with their origin, and rejects with their reason."""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from sluice.data.config import UNSPECIFIED, IngestConfig, Markup
from sluice.data.document import Document, content_id

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_HEAD_BYTES = 2048
"""Beginning of a page that must name its charset; the standard says 1024."""


@dataclass(frozen=True)
class Reject:
    """A file, line or row that is not a document."""

    source: str
    path: str
    reason: str
    line: int | None = None


Read = Iterator[Document | Reject]


@dataclass(frozen=True)
class Limits:
    """Limits of what is read."""

    document_bytes: int
    file_bytes: int
    """Size of one file, decompressed."""
    expansion: float
    """Decompressed over compressed bytes."""

    @classmethod
    def of(cls, config: IngestConfig) -> "Limits":
        return cls(config.max_document_bytes, config.max_file_bytes, config.max_expansion)


@dataclass(frozen=True)
class Origin:
    """The source of documents, and what is known about all of them."""

    source: str
    licence: str = UNSPECIFIED
    text_field: str = "text"
    markup: Markup | None = None
    """Markup of every file, overriding the suffix."""

    def document(self, text: str, path: str, markup: str) -> Document:
        metadata = {
            "source": self.source,
            "path": path,
            "licence": self.licence,
            "title": PurePosixPath(path).stem,
            "markup": markup,
        }
        return Document(text=text, id=content_id(text), metadata=metadata)

    def reject(self, path: str, reason: str, line: int | None = None) -> Reject:
        return Reject(self.source, path, reason, line)

    def of_file(self, content: bytes, path: str, markup: str) -> Document | Reject:
        """Make one document of a whole file."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.reject(path, "not UTF-8 text")
        if "\0" in text:
            return self.reject(path, "binary")
        return self.document(text, path, markup) if text.strip() else self.reject(path, "empty")

    def of_page(self, content: bytes, path: str, charset: str | None = None) -> Document | Reject:
        """Make one document of an HTML page, in the `charset` it was sent with, or else in the one it declares."""
        named = _CHARSET.search(content[:_HEAD_BYTES])
        charset = charset or (named[1].decode() if named else None)
        if charset is None or content.startswith(codecs.BOM_UTF8):
            return self.of_file(content, path, "html")
        try:
            return self.of_file(content.decode(charset).encode(), path, "html")
        except (LookupError, UnicodeError):
            return self.reject(path, "not text in the charset it names")

    def of_row(
        self, text: str, path: str, number: int, limits: Limits, first: Mapping[str, str] | None = None
    ) -> Document | Reject:
        """Make a document of a line or row of a file; numbers begin at 1. `first` is its original source, path, licence
        and title, if it comes from an earlier build.
        """
        if not text.strip():
            return self.reject(path, "empty", number)
        if longer_than(text, limits.document_bytes):
            return self.reject(path, too_large(limits.document_bytes), number)
        document = self.document(text, f"{path}:{number}", self.markup or "txt")
        if first is not None:
            # A licence in the settings overrides the original one.
            document.metadata |= {**first, "licence": first["licence"] if self.licence == UNSPECIFIED else self.licence}
        return document


def longer_than(text: str, size_bytes: int) -> bool:
    """Return whether the text takes more bytes in UTF-8, where a character takes at most four."""
    return len(text) * 4 > size_bytes and len(text.encode("utf-8", "surrogatepass")) > size_bytes


def too_large(size_bytes: int) -> str:
    return f"larger than {size_bytes} bytes"

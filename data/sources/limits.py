"""Limits of what is read."""

from dataclasses import dataclass

from sluice.data.config import IngestConfig


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


def longer_than(text: str, size_bytes: int) -> bool:
    """Return whether the text takes more bytes in UTF-8, where a character takes at most four."""
    return len(text) * 4 > size_bytes and len(text.encode("utf-8", "surrogatepass")) > size_bytes


def too_large(size_bytes: int) -> str:
    return f"larger than {size_bytes} bytes"

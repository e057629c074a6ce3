"""Documents: datatrove's class, with a hash of the text as id, in deterministic JSONL shards."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document

from sluice.core.files import atomic_write

OWN_METADATA = ("source", "path", "licence", "title", "language", "raw_id", "cut_from")
"""Metadata that the pipeline itself writes; a row's field of such a name is kept as `row_NAME`."""


TURNS = "messages"
"""Name of a row's turns in the metadata."""


def content_id(text: str) -> str:
    """Return the first 128 bits, in hex, of the sha256 of the text in UTF-8: only equal texts have equal ids."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def encodes(text: str) -> bool:
    """Return whether the text can be written as UTF-8: it has no lone surrogate, which JSON can escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Escape what UTF-8 cannot hold, such as the bytes of a file name that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def with_fields(own: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a finished document: the pipeline's own, and the fields of the row beside its text."""
    renamed = {f"row_{name}" if name in OWN_METADATA else name: value for name, value in fields.items()}
    if renamed.get("row_title") == own.get("title"):
        renamed.pop("row_title", None)
    return {**renamed, **own}


def document_shards(folder: Path) -> list[Path]:
    """List the shards `documents-*.jsonl` (or `.jsonl.gz`) of a folder in name order. ValueError if there are none."""
    shards = sorted([*folder.glob("documents-*.jsonl"), *folder.glob("documents-*.jsonl.gz")])
    if not shards:
        raise ValueError(f"{folder} holds no documents-*.jsonl: run the step that writes it first")
    return shards


def read_shard(path: Path) -> Iterator[Document]:
    """Yield the documents of one shard. Raises ValueError naming file and line if it is damaged."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                document = Document(text=row["text"], id=row["id"], metadata=row["metadata"])
                number += 1
                yield document
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged after line {number}: {error}; delete it and run its step again") from error


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield every document of a folder in shard name order. ValueError if there is no shard or one is damaged."""
    for shard in document_shards(folder):
        yield from read_shard(shard)


def document_line(document: Document) -> bytes:
    """Serialize a document as a line of a shard: equal documents, equal bytes."""
    row = {"id": document.id, "text": document.text, "metadata": document.metadata}
    return json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def write_lines(lines: Iterable[bytes], path: Path) -> int:
    """Write one file atomically and return its number of lines."""
    count = 0
    with atomic_write(path) as partial, partial.open("wb") as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def write_documents(
    documents: Iterable[Document], folder: Path, per_shard: int, *, prefix: str = "documents"
) -> list[Path]:
    """Write `{prefix}-NNNN.jsonl` of `per_shard` documents each; an empty shard if there are no documents."""
    return write_line_shards(map(document_line, documents), folder, per_shard, prefix=prefix)


def write_line_shards(lines: Iterable[bytes], folder: Path, per_shard: int, *, prefix: str = "documents") -> list[Path]:
    """Write shards like `write_documents`, from serialized lines."""
    rest = iter(lines)
    paths: list[Path] = []
    while (batch := list(islice(rest, per_shard))) or not paths:
        paths.append(folder / f"{prefix}-{len(paths):04d}.jsonl")
        write_lines(batch, paths[-1])
    return paths

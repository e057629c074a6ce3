"""What becomes of the texts once it is decided, a part of the corpus at a time: cut, measured, written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datatrove.data import Document

from sluice.data.deduplication.substrings import write_covered
from sluice.data.document import content_id, document_line, write_lines
from sluice.data.quality.prose import Prose
from sluice.data.refining.cut import Cut
from sluice.data.refining.tables import read_places

_METADATA = ("source", "path", "licence", "title", "language", "raw_id")


@dataclass(frozen=True)
class CoverTask:
    """Documents of one part whose words around shared anchors are wanted."""

    part: Path
    places: np.ndarray
    """Of the documents in the part, ascending, [n]."""
    min_words: int
    shared: Path
    """Folder of the shared anchors."""
    folder: Path
    """What is written."""

    def __str__(self) -> str:
        return f"{self.part.name} (repeated words)"


def cover_part(task: CoverTask) -> None:
    """See `write_covered`."""
    texts = (row["text"] for row in read_places(task.part, task.places.tolist(), ["text"]))
    write_covered(task.folder, texts, task.min_words, task.shared)


@dataclass(frozen=True)
class Left:
    """What cutting leaves of a document."""

    id: str
    words: int | None
    """None where the text is as it was."""
    characters: int
    size_bytes: int
    removed: Mapping[str, int]
    """Pieces cut out, by kind."""


@dataclass(frozen=True)
class CutTask:
    """Documents of one part that something is cut out of."""

    part: Path
    cuts: Mapping[int, Cut]
    """By place in the part, ascending."""
    min_piece_words: int

    def __str__(self) -> str:
        return f"{self.part.name} (cuts)"


def measure_cuts(task: CutTask) -> dict[int, Left]:
    """By place, what is left of each document; nothing is written."""
    found = {}
    rows = read_places(task.part, task.cuts, ["id", "text"])
    for (place, each), row in zip(task.cuts.items(), rows, strict=True):
        text, name = row["text"], row["id"]
        final, removed = each.apply(text, task.min_piece_words)
        same = final == text
        words = None if same else len(Prose.of(final).tokens)
        found[place] = Left(name if same else content_id(final), words, len(final), len(final.encode()), removed)
    return found


@dataclass(frozen=True)
class WriteTask:
    """Documents of one part that are kept."""

    part: Path
    places: np.ndarray
    """Of the documents in the part, ascending, [n]."""
    cuts: Mapping[int, Cut]
    """By place."""
    min_piece_words: int
    lines: Path
    """What is written: a line a document."""

    def __str__(self) -> str:
        return f"{self.part.name} (writing)"


def write_kept(task: WriteTask) -> None:
    """Write the lines of the clean documents; one that something was cut out of has the id of what is left of it."""
    write_lines((document_line(each) for each in _clean(task)), task.lines)


def _clean(task: WriteTask) -> Iterator[Document]:
    places = task.places.tolist()
    for place, row in zip(places, read_places(task.part, places, ["id", "text", *_METADATA]), strict=True):
        final = row["text"]
        if place in task.cuts:
            final, _ = task.cuts[place].apply(final, task.min_piece_words)
        metadata = {name: row[name] for name in _METADATA}
        final_id = row["id"]
        if final != row["text"]:
            metadata["cut_from"], final_id = row["id"], content_id(final)
        yield Document(text=final, id=final_id, metadata=metadata)

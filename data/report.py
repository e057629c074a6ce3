"""What ingest and refine report, as it is written and read again."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field


class SourceCounts(BaseModel):
    """What one source gave."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text read, markup included."""
    licence: str = ""
    sha256: str | None = None
    """Of the one file that the source is, where it was checked."""


class IngestReport(BaseModel):
    """What came in, and what did not."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text read, markup included."""
    sources: dict[str, SourceCounts] = {}
    rejects: dict[str, int] = {}
    """Files, lines and rows that are no documents, by reason; each is a row of rejects.csv."""
    fallback_reason: str | None = None
    """Why the documentation of the installed packages was taken instead of the pinned packages, if it was."""
    timings: dict[str, float] = {}


class Tally(BaseModel):
    """Documents of one source, of one language, or of all."""

    documents_in: int = 0
    bytes_in: int = 0
    """UTF-8 bytes of extracted text."""
    documents_kept: int = 0
    bytes_kept: int = 0
    """UTF-8 bytes of clean text."""
    dropped: dict[str, int] = {}
    """Documents by rule."""


class Overlap(BaseModel):
    """What all documents share with one evaluation set by n-grams of one length."""

    documents: int = 0
    spans: int = 0
    """Runs of words in these documents."""


class RefineReport(Tally):
    """What refine kept and why it dropped the rest."""

    dropped_bytes: dict[str, int] = {}
    """UTF-8 bytes of the extracted text of dropped documents, by rule."""
    masked: dict[str, int] = {}
    """Placeholders put in, by kind."""
    evaluation_sets: dict[str, int] = {}
    """Items of each evaluation set that documents were held against."""
    short_items: dict[str, int] = {}
    """Items of each evaluation set that are too short to be told from any other text, and so were not looked for."""
    contaminated: dict[str, int] = {}
    """Documents in which `contamination_sign` finds text of an evaluation set, by set, whatever became of them."""
    shared_ngrams: dict[str, dict[int, Overlap]] = {}
    """By set and words of the n-gram: a shared run of 13 words is a strong sign, one of 8 a second figure."""
    pieces_removed: int = 0
    substrings_cut: int = 0
    split_groups: int = 0
    """Groups of documents too large to compare at once for repeated runs of words."""
    contamination_cut: int = 0
    """Spans shared with an evaluation set that were cut out of kept documents."""
    by_source: dict[str, Tally] = {}
    by_language: dict[str, Tally] = {}
    content_sha256: str = ""
    """Of the sorted ids of the kept documents, one a line: equal hashes, equal texts, in whatever files."""
    kept_rows: Any = Field(default=None, exclude=True)
    """[documents] bool, in canonical order: what was kept; not part of what is written."""
    remember: Callable[[], object] = Field(default=lambda: None, exclude=True)
    """Puts what was kept into the duplicate index, if there is one: to be called once the folder is where it stays.
    Sooner, a run that fails at its end would leave documents there that nobody has, and no later run would keep them.
    """
    timings: dict[str, float] = {}
    """Seconds: of each kind of block, summed over the workers, and of the phases."""

"""The reports of ingest and refine, and the names of the files that hold them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sluice.core.manifest import MANIFEST

EVIDENCE = "evidence"
"""Folder, in a build, of what is known about all documents, those that were dropped included."""
REPORT = "report.json"
INGEST, REJECTS = "ingest.json", "rejects.csv"
"""The report of ingest, and the files and lines that are not documents."""


def is_finished_build(folder: Path) -> bool:
    """Return whether the folder has clean documents and the evidence about them."""
    return (folder / MANIFEST).is_file() and (folder / EVIDENCE).is_dir()


class IngestCounts(BaseModel):
    """Counts of one source."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text read, markup included."""
    licence: str = ""
    sha256: str | None = None
    """Hash of the source's one file, where it was checked."""


_COUNTS = ("rejects", "noted", "encodings", "fields", "fields_left_out")
_MOST_NAMES, _FURTHER = 1000, ".."


class IngestReport(BaseModel):
    """Counts of what ingest read and rejected."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text read, markup included."""
    sources: dict[str, IngestCounts] = {}
    rejects: dict[str, int] = {}
    """Number of files, lines and rows that are not documents, by reason; each is a row of rejects.csv."""
    noted: dict[str, int] = {}
    """Items that were passed over because they are no text by their type, such as requests in web archives, and items
    that were truncated before they came here; by kind.
    """
    encodings: dict[str, int] = {}
    """Documents in other encodings than UTF-8, by encoding and how it is known."""
    fields: dict[str, int] = {}
    """Documents whose metadata has a field of their row, by its name."""
    fields_left_out: dict[str, int] = {}
    """Documents whose row had a field that is not kept, because it is long or nested, by its name."""
    fallback_reason: str | None = None
    """Why the documentation of the installed packages was read instead of the pinned packages, if it was."""
    timings: dict[str, float] = {}

    @classmethod
    def merged(cls, reports: Sequence["IngestReport"]) -> "IngestReport":
        """Return the sums of the counts of parts, with sorted keys."""
        whole = cls()
        for part in reports:
            whole.documents += part.documents
            whole.bytes += part.bytes
            for name, counts in part.sources.items():
                of_source = whole.sources.setdefault(name, IngestCounts(licence=counts.licence))
                of_source.documents += counts.documents
                of_source.bytes += counts.bytes
            for table in _COUNTS:
                for name, count in getattr(part, table).items():
                    add_count(getattr(whole, table), name, count)
        for table in ("sources", *_COUNTS):
            setattr(whole, table, dict(sorted(getattr(whole, table).items())))
        return whole

    def rejects_note(self, most: int) -> str:
        """Describe the rejected files and lines as the end of a message, with the `most` most frequent reasons."""
        if not self.rejects:
            return ""
        reasons = sorted(self.rejects.items(), key=lambda each: (-each[1], each[0]))
        shown = ", ".join(f"{reason} {count:,}" for reason, count in reasons[:most])
        return f"; {sum(self.rejects.values()):,} more could not be read ({shown}{', ..' if reasons[most:] else ''})"


def add_count(counts: dict[str, int], name: str, more: int = 1) -> None:
    """Count a name. Rows may have any number of names: those after the first thousand, in the order of the alphabet,
    are counted together, so the counts do not depend on the order or on the parts in which they are added up.
    """
    if name not in counts and name != _FURTHER and len(counts) - (_FURTHER in counts) >= _MOST_NAMES:
        last = max(counts.keys() - {_FURTHER})
        if name < last:
            counts[_FURTHER] = counts.get(_FURTHER, 0) + counts.pop(last)
        else:
            name = _FURTHER
    counts[name] = counts.get(name, 0) + more


EXTRACTION_COUNTS = ("joined_lines", "page_words", "words_left_out")
"""Names of the counts of extraction in a document; fields of `Tally`."""


class Tally(BaseModel):
    """Counts of the documents of one source, of one language, or of all."""

    documents_in: int = 0
    bytes_in: int = 0
    """UTF-8 bytes of extracted text."""
    documents_kept: int = 0
    bytes_kept: int = 0
    """UTF-8 bytes of clean text."""
    joined_lines: int = 0
    """Lines of hard-wrapped plain text that were joined to the line before, in kept documents or not."""
    page_words: int = 0
    """Words that a reader sees on web pages, their navigation included, in kept documents or not."""
    words_left_out: int = 0
    """Those of them beside the main content."""
    dropped: dict[str, int] = {}
    """Documents by rule."""

    def count(self, size_bytes: int, rule: str | None, final_bytes: int, extraction: Mapping[str, int]) -> None:
        """Count a document of `size_bytes`: dropped by `rule`, or kept with `final_bytes` after cutting.

        `extraction` has its EXTRACTION_COUNTS.
        """
        self.documents_in += 1
        for name, number in extraction.items():
            setattr(self, name, getattr(self, name) + number)
        self.bytes_in += size_bytes
        if rule is None:
            self.documents_kept += 1
            self.bytes_kept += final_bytes
        else:
            self.dropped[rule] = self.dropped.get(rule, 0) + 1


class Overlap(BaseModel):
    """Counts of what all documents share with one evaluation set, by n-grams of one length."""

    documents: int = 0
    spans: int = 0
    """Runs of words in these documents."""


class RefineReport(Tally):
    """Counts of what refine kept, and why it dropped the rest."""

    dropped_bytes: dict[str, int] = {}
    """UTF-8 bytes of the extracted text of dropped documents, by rule."""
    masked: dict[str, int] = {}
    """Number of placeholders for personal data, by kind."""
    evaluation_sets: dict[str, int] = {}
    """Number of items of each evaluation set that documents were searched for."""
    short_items: dict[str, int] = {}
    """Number of items of each evaluation set that are too short to be distinctive, and were not searched for."""
    contaminated: dict[str, int] = {}
    """Documents in which `contamination_sign` finds text of an evaluation set, by set, kept or not."""
    shared_ngrams: dict[str, dict[int, Overlap]] = {}
    """By set and words of the n-gram: a shared run of 13 words is the strong sign, one of 8 the weaker."""
    pieces_removed: int = 0
    substrings_cut: int = 0
    split_groups: int = 0
    """Groups of documents too large to compare at once for repeated runs of words."""
    contamination_cut: int = 0
    """Spans shared with an evaluation set that were cut out of kept documents."""
    by_source: dict[str, Tally] = {}
    by_language: dict[str, Tally] = {}
    content_sha256: str = ""
    """Hash of the sorted ids of the kept documents, one a line: it depends on the texts alone, not on the files."""
    kept_rows: Any = Field(default=None, exclude=True)
    """Whether each document was kept, [documents] bool, in canonical order; not written."""
    remember: Callable[[], object] = Field(default=lambda: None, exclude=True)
    """Adds what was kept to the duplicate index, if there is one. To be called once the folder is in its final place:
    called earlier, a failed run would index documents that were never published, and no later run would keep them.
    """
    timings: dict[str, float] = {}
    """Seconds of each scoring block, summed over the workers, and of each phase."""

    @property
    def warning(self) -> str | None:
        """A line where evaluation sets dropped most documents, as they do when a source is the set itself."""
        dropped = self.dropped.get("contaminated", 0)
        if 2 * dropped <= self.documents_in:
            return None
        sets = ", ".join(sorted(name for name, documents in self.contaminated.items() if documents))
        return (
            f"the evaluation sets ({sets}) dropped {dropped:,} of {self.documents_in:,} documents: check that none of "
            "them is made of the sources"
        )

"""Cut: take repeated paragraphs, repeated runs of words and spans of evaluation sets out of kept documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sluice.data.config import RefineConfig
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.decontamination.spans import character_spans as contamination_spans
from sluice.data.deduplication.paragraphs import remove, surplus_paragraphs
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.deduplication.spans import cut
from sluice.data.deduplication.substrings import RepeatCache, character_spans, repeated_substrings, write_windows
from sluice.data.document import content_id
from sluice.data.executor import RunTasks
from sluice.data.quality.prose import Prose
from sluice.data.refining.corpus import Corpus
from sluice.data.refining.decide import KEPT, DocumentDecision, spans_under
from sluice.data.refining.tables import read_rows

_FEW = 32
"""So few documents are read in this process, without workers; the last rounds cut about as many."""


@dataclass(frozen=True)
class Cut:
    """A plan of what to cut out of one document. Equal cuts of equal texts give equal results."""

    contamination: tuple[SharedSpan, ...] = ()
    runs: tuple[tuple[int, int], ...] = ()
    """Repeated runs of words (first, end) of the scored text."""
    paragraphs: tuple[int, ...] = ()
    """Hashes of repeated paragraphs and lines, sorted."""

    def apply(self, text: str, min_piece_words: int) -> tuple[str, dict[str, int]]:
        """Return the text after cutting, and how many spans of each kind were cut."""
        shared = contamination_spans(text, self.contamination)
        repeated = character_spans(text, self.runs) if self.runs else []
        final = cut(text, [*shared, *repeated])
        removed = {"contamination": len(shared), "substrings": len(repeated), "paragraphs": 0}
        if self.paragraphs:
            hashes = np.array(self.paragraphs, np.uint64)
            final, removed["paragraphs"] = remove(final, hashes, min_piece_words)
        return final, removed


@dataclass(frozen=True)
class Cuts:
    """The cuts of all documents that something is cut out of."""

    by_row: Mapping[int, Cut] = field(default_factory=dict)
    split_groups: int = 0
    """Groups of documents too large to compare at once for repeated runs."""


@dataclass(frozen=True)
class CutResult:
    """A document after cutting."""

    id: str
    words: int | None
    """None where the text is unchanged."""
    characters: int
    size_bytes: int
    removed: Mapping[str, int]
    """Number of spans cut out, by kind."""


@dataclass(frozen=True)
class CutTask:
    """Documents of one part that something is cut out of."""

    part: Path
    cuts: Mapping[int, Cut]
    """By row index in the part, ascending."""
    min_piece_words: int

    def __str__(self) -> str:
        return f"{self.part.name} (cuts)"


def measure_cuts(task: CutTask) -> dict[int, CutResult]:
    """Return the result of each cut by row index in the part; nothing is written."""
    found = {}
    stored = read_rows(task.part, task.cuts, ["id", "text"])
    for (index, each), row in zip(task.cuts.items(), stored, strict=True):
        text, name = row["text"], row["id"]
        final, removed = each.apply(text, task.min_piece_words)
        same = final == text
        words = None if same else len(Prose.of(final).tokens)
        found[index] = CutResult(name if same else content_id(final), words, len(final), len(final.encode()), removed)
    return found


@dataclass(frozen=True)
class WindowTask:
    """Documents of one part whose words around shared anchors are needed."""

    part: Path
    rows: np.ndarray
    """Row indices in the part, ascending, [n]."""
    min_words: int
    shared: Path
    """Folder of the shared anchors."""
    out: Path

    def __str__(self) -> str:
        return f"{self.part.name} (repeated words)"


def write_task_windows(task: WindowTask) -> None:
    """Run `write_windows` over the documents of a task."""
    texts = (row["text"] for row in read_rows(task.part, task.rows.tolist(), ["text"]))
    write_windows(task.out, texts, task.min_words, task.shared)


@dataclass
class Cutter:
    """Plans cuts and measures their results, round after round.

    The workers read the texts, one part at a time. What an earlier round found about a document is reused where the
    next round cuts it alike.
    """

    corpus: Corpus
    config: RefineConfig
    sketches: Sequence[SketchPart]
    """Sketches of the corpus's parts, in their order."""
    scratch: Path
    """A folder that every worker can read."""
    run: RunTasks
    workers: int

    def __post_init__(self) -> None:
        self._repeats = RepeatCache(self.scratch, len(self.corpus))
        self._results: dict[int, tuple[Cut, CutResult]] = {}
        """By row: the last cut that was measured, and its result."""

    def plan(self, decisions: Sequence[DocumentDecision]) -> Cuts:
        """Return what to cut out of the documents that `decisions` keep."""
        corpus, config = self.corpus, self.config
        kept = np.array([decision is KEPT for decision in decisions], dtype=bool)
        slot_ids, eligible = corpus.slot_ids(), kept[corpus.part_rows]
        paragraphs: dict[str, np.ndarray] = {}
        runs: dict[str, list[tuple[int, int]]] = {}
        split_groups = 0
        if config.max_piece_copies is not None:
            paragraphs = surplus_paragraphs(self.sketches, slot_ids, eligible, config.max_piece_copies)
        if config.min_substring_words is not None:
            found = repeated_substrings(
                self.sketches, slot_ids, self._write_windows, eligible, config.min_substring_words, self._repeats
            )
            runs, split_groups = found.runs, found.split_groups
        contamination = spans_under("cut", corpus, config)
        by_row = {}
        for row in np.flatnonzero(kept).tolist():
            name = corpus.ids[row]
            if row in contamination or name in runs or name in paragraphs:
                hashes = np.sort(paragraphs[name]).tolist() if name in paragraphs else ()
                by_row[row] = Cut(tuple(contamination.get(row, ())), tuple(runs.get(name, ())), tuple(hashes))
        return Cuts(by_row, split_groups)

    def measure(self, cuts: Cuts) -> dict[int, CutResult]:
        """Return the result of every cut by row."""
        new = [row for row, each in cuts.by_row.items() if row not in self._results or self._results[row][0] != each]
        slots = self.corpus.slots_of(np.array(new, np.int64))
        row_of = dict(zip(slots.tolist(), new, strict=True))
        tasks, rows_of_tasks = [], []
        for part, indices in self.corpus.by_part(np.sort(slots)):
            start = int(self.corpus.part_starts[part])
            rows = {index: row_of[start + index] for index in indices.tolist()}
            of_part = {index: cuts.by_row[row] for index, row in rows.items()}
            tasks.append(CutTask(self.corpus.parts[part], of_part, self.config.min_piece_words))
            rows_of_tasks.append(rows)
        measured = self._run(measure_cuts, tasks, len(slots), "cut texts")
        for rows, results in zip(rows_of_tasks, measured, strict=True):
            for index, result in results.items():
                self._results[rows[index]] = cuts.by_row[rows[index]], result
        return {row: self._results[row][1] for row in cuts.by_row}

    def _write_windows(self, slots: np.ndarray, folder: Path) -> list[Path]:
        """See `sluice.data.deduplication.substrings.AnchorWindows`."""
        assert self.config.min_substring_words is not None
        tasks = [
            WindowTask(
                self.corpus.parts[part], rows, self.config.min_substring_words, folder, folder / f"part-{part:04d}"
            )
            for part, rows in self.corpus.by_part(slots)
        ]
        self._run(write_task_windows, tasks, len(slots), "repeated runs")
        return [task.out for task in tasks]

    def _run(self, function: Any, tasks: Sequence[Any], documents: int, note: str) -> list[Any]:
        if documents <= _FEW:
            return [function(task) for task in tasks]
        return self.run(function, tasks, workers=self.workers, note=note)


def too_short(results: Mapping[int, CutResult], config: RefineConfig) -> dict[int, DocumentDecision]:
    """Return the decision, by row, about documents with fewer words after cutting than `min_words` requires."""
    least = max(config.min_words or 0, 1)
    return {
        row: DocumentDecision("too_few_words", f"words {result.words} < {least} after cutting")
        for row, result in results.items()
        if result.words is not None and result.words < least
    }

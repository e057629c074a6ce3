"""From scores to clean documents: decide, cut, and decide again where too little is left; then write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sluice.core.progress import Progress, no_progress
from sluice.data.config import RefineConfig
from sluice.data.decontamination.sets import count_documents, count_ngrams
from sluice.data.deduplication.near import Duplicate
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.deduplication.substrings import Known
from sluice.data.refining.corpus import ScoredCorpus
from sluice.data.refining.cut import Cut, Cuts, plan_cuts, too_short
from sluice.data.refining.decide import Decision, decide
from sluice.data.refining.executor import RunTasks, run_tasks
from sluice.data.refining.finishing import CoverTask, CutTask, Left, cover_part, measure_cuts
from sluice.data.refining.write import write_outcome
from sluice.data.report import RefineReport

_FEW = 32
"""Documents that are done with here before a worker has been asked; the last rounds are about so many."""


def keep(  # noqa: PLR0917
    config: RefineConfig,
    corpus: ScoredCorpus,
    sketches: Sequence[SketchPart],
    pairs: np.ndarray,
    earlier: Mapping[str, Duplicate],
    out: Path,
    *,
    run: RunTasks | None = None,
    progress: Progress = no_progress,
) -> RefineReport:
    """Decide by `config` and write documents and decisions into `out`. ValueError if nothing is kept.

    A document of which too little is left after cutting falls, and what fell is nobody's twin and holds nobody's piece:
    so it is decided again without it, until nothing more falls. What a round has found out about documents that the
    next one cuts alike is not found out again. `run` is called like `run_tasks`, which is taken, with
    one worker, where none is given.
    """
    fallen: dict[int, Decision] = {}
    # Where every worker can read it: on a cluster that is the folder of the run alone.
    with TemporaryDirectory(dir=out, prefix=".texts-") as scratch:
        texts = _Texts(corpus, config, Path(scratch), run or run_tasks, config.workers if run else 1)
        known = Known(Path(scratch), len(corpus))
        while True:
            decisions = decide(corpus.columns, pairs, earlier, config, fallen)
            cuts = plan_cuts(corpus, sketches, decisions, config, texts.cover, known)
            left = texts.left(cuts)
            falling = too_short({row: each.words for row, each in left.items()}, config)
            if not falling:
                break
            fallen |= falling
        report = write_outcome(
            corpus,
            decisions,
            cuts,
            left,
            config.min_piece_words,
            out,
            texts.scratch,
            texts.run,
            texts.workers,
            progress=progress,
        )
    shared = corpus.columns.contamination.values()
    report.contaminated = count_documents(shared, config.contamination_sign)
    report.shared_ngrams = count_ngrams(shared)
    return report


@dataclass
class _Texts:
    """What the rounds ask about texts; the workers read them, a part at a time."""

    corpus: ScoredCorpus
    config: RefineConfig
    scratch: Path
    run: RunTasks
    workers: int
    known: dict[int, tuple[Cut, Left]] = field(default_factory=dict)
    """By row: what was cut when it was last asked, and what that left."""

    def cover(self, documents: np.ndarray, folder: Path) -> list[Path]:
        """See `sluice.data.deduplication.substrings.Cover`."""
        assert self.config.min_substring_words is not None
        tasks = [
            CoverTask(
                self.corpus.parts[part], places, self.config.min_substring_words, folder, folder / f"part-{part:04d}"
            )
            for part, places in self.corpus.by_part(documents)
        ]
        self._run(cover_part, tasks, len(documents), "repeated runs")
        return [task.folder for task in tasks]

    def left(self, cuts: Cuts) -> dict[int, Left]:
        """By row, what is left of every document that is cut."""
        new = [row for row, each in cuts.by_row.items() if row not in self.known or self.known[row][0] != each]
        rows = np.array(new, np.int64)
        documents = self.corpus.documents_of(rows)
        row_of = dict(zip(documents.tolist(), new, strict=True))
        tasks, rows_of_tasks = [], []
        for part, places in self.corpus.by_part(np.sort(documents)):
            start = int(self.corpus.part_starts[part])
            by_place = {place: row_of[start + place] for place in places.tolist()}
            of_part = {place: cuts.by_row[row] for place, row in by_place.items()}
            tasks.append(CutTask(self.corpus.parts[part], of_part, self.config.min_piece_words))
            rows_of_tasks.append(by_place)
        measured = self._run(measure_cuts, tasks, len(documents), "cut texts")
        for by_place, found in zip(rows_of_tasks, measured, strict=True):
            for place, left in found.items():
                self.known[by_place[place]] = cuts.by_row[by_place[place]], left
        return {row: self.known[row][1] for row in cuts.by_row}

    def _run(self, function: Any, tasks: Sequence[Any], documents: int, note: str) -> list[Any]:
        if documents <= _FEW:
            return [function(task) for task in tasks]
        return self.run(function, tasks, workers=self.workers, note=note)

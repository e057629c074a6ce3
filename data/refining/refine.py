"""Refine raw documents into a clean corpus: score, compare, decide, cut, write.

Dropped documents are kept with their reason, and every document's scores stay, so that thresholds can be changed
without scoring again.
"""

import hashlib
import shutil
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sluice.core.files import remove
from sluice.core.progress import Progress, no_progress
from sluice.data.config import RefineConfig
from sluice.data.decontamination.policy import count_documents, count_ngrams
from sluice.data.decontamination.sets import EvaluationSets
from sluice.data.deduplication.index import DuplicateIndex
from sluice.data.deduplication.near import Duplicate
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.document import document_shards
from sluice.data.executor import RunTasks, lasting_workers, run_tasks
from sluice.data.privacy import mask
from sluice.data.refining.compare import earlier_duplicates, similar_pairs
from sluice.data.refining.corpus import Corpus
from sluice.data.refining.cut import Cutter, too_short
from sluice.data.refining.decide import DocumentDecision, decide
from sluice.data.refining.evidence import write_evidence, write_report
from sluice.data.refining.fingerprint import fingerprint
from sluice.data.refining.score import ScoreTask, score_part
from sluice.data.refining.write import write_outcome
from sluice.data.report import EVIDENCE, RefineReport

_PARTS = 16
_LEAST_PART_BYTES, _MOST_PART_BYTES = 1 << 18, 1 << 24
"""Raw bytes a part: enough parts for the workers, and a worker's memory does not grow with the corpus."""


def refine(
    config: RefineConfig,
    documents: Path,
    out: Path,
    *,
    work: Path | None = None,
    executor: RunTasks | None = None,
    progress: Progress = no_progress,
) -> RefineReport:
    """Clean the documents of a folder into `out`: documents-*.jsonl sorted by id, and evidence/ about all of them.

    The outcome depends on the documents and the settings alone, not on order, shards or workers. Scored parts stay in
    `work`, where a later run of the same inputs and code finds them: after a crash, or with other thresholds.
    `executor` is called like `run_tasks`; the default starts local processes for this call, or uses Ray. With `work`,
    the caller runs `report.remember()` once `out` is in its final place. Raises ValueError if the folder is empty or
    nothing is kept.
    """
    started = time.perf_counter()
    sets, parts = load_sets(config), work or out / ".work"
    tasks = plan_tasks(config, documents, parts, sets)
    with ExitStack() as stack:
        run = executor or stack.enter_context(lasting_workers())

        # Score. The longest parts go first, so that no worker begins a long one when the others are done.
        ordered = sorted(tasks, key=lambda task: (-task.size_bytes, task.number))
        summaries = run(score_part, ordered, workers=config.workers, progress=progress, note="extract, mask, score")
        filled = sorted(task.number for task, each in zip(ordered, summaries, strict=True) if each.documents)
        if not filled:
            raise ValueError(f"{documents} holds no document: add a source")
        scored = time.perf_counter()

        # Compare
        corpus = Corpus.open([tasks[number].scores for number in filled])
        sketches = [SketchPart(tasks[number].sketches) for number in filled]
        pairs = similar_pairs(config, corpus, sketches)
        index = DuplicateIndex.open(Path(config.index), config) if config.index else None
        run_id = hashlib.sha256("\n".join(corpus.ids).encode()).hexdigest()[:32]
        earlier = earlier_duplicates(corpus, sketches, index, run_id)
        compared = time.perf_counter()
        write_evidence([tasks[number] for number in filled], corpus, pairs, earlier, out / EVIDENCE)

        report = decide_cut_write(config, corpus, sketches, pairs, earlier, out, run=run, progress=progress)

    report.masked = dict(sorted(sum((Counter(each.masked) for each in summaries), Counter[str]()).items()))
    report.evaluation_sets, report.short_items = sets.counts, sets.ignored
    write_report(report, out)
    if index is not None:
        report.remember = partial(index.add, sketches, corpus.slot_ids(), report.kept_rows[corpus.part_rows], run_id)
    report.timings = {
        **{f"{name}_workers_s": sum(each.seconds[name] for each in summaries) for name in summaries[0].seconds},
        "score_s": scored - started,
        "compare_s": compared - scored,
        "write_s": time.perf_counter() - compared,
    }
    if work is None:
        # The caller cannot do it later: the sketches are removed with the parts.
        report.remember()
        shutil.rmtree(parts)
    return report


def decide_cut_write(  # noqa: PLR0917
    config: RefineConfig,
    corpus: Corpus,
    sketches: Sequence[SketchPart],
    pairs: np.ndarray,
    earlier: Mapping[str, Duplicate],
    out: Path,
    *,
    run: RunTasks | None = None,
    progress: Progress = no_progress,
) -> RefineReport:
    """Decide by `config`, cut, and write documents and decisions into `out`. Raises NothingKept if nothing is kept.

    A document that is too short after cutting is dropped. What is dropped is nobody's twin and the first place of no
    repeated text, so everything is decided again without it, until no more documents are dropped. `run` is called like
    `run_tasks`; the default is `run_tasks` with one worker.
    """
    dropped: dict[int, DocumentDecision] = {}
    # Inside `out`, because on a cluster only the run's folder is seen by every worker.
    with TemporaryDirectory(dir=out, prefix=".texts-") as folder:
        scratch, workers = Path(folder), config.workers if run else 1
        run = run or run_tasks
        cutter = Cutter(corpus, config, sketches, scratch, run, workers)
        while True:
            decisions = decide(corpus, pairs, earlier, config, dropped)
            cuts = cutter.plan(decisions)
            results = cutter.measure(cuts)
            newly_dropped = too_short(results, config)
            if not newly_dropped:
                break
            dropped |= newly_dropped
        report = write_outcome(
            corpus, decisions, cuts, results, config.min_piece_words, out, scratch, run, workers, progress=progress
        )
    spans = corpus.contamination.values()
    report.contaminated = count_documents(spans, config.contamination_sign)
    report.shared_ngrams = count_ngrams(spans)
    return report


def load_sets(config: RefineConfig) -> EvaluationSets:
    """Load the evaluation sets of the settings, their items prepared like documents: in NFC, personal data masked."""
    return EvaluationSets.load(
        [Path(each.path) for each in config.evaluation_sets],
        config.contamination_ngrams,
        lambda string: mask(unicodedata.normalize("NFC", string), config.masks)[0],
    )


def plan_tasks(config: RefineConfig, documents: Path, work: Path, sets: EvaluationSets) -> list[ScoreTask]:
    """Group the raw shards into parts of about equal size, whatever the number of workers, each to be scored into the
    folder of the inputs, settings and code in `work`; all else there is removed.
    """
    folder = work / fingerprint(config, documents, sets.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    # Parts of other inputs or settings, and files that a crash left unfinished.
    for stale in [*(path for path in work.iterdir() if path != folder), *folder.glob(".*")]:
        remove(stale)
    shards = document_shards(documents)
    sizes = {path: path.stat().st_size for path in shards}
    wanted = min(max(sum(sizes.values()) // _PARTS, _LEAST_PART_BYTES), _MOST_PART_BYTES)
    tasks: list[ScoreTask] = []
    group: list[Path] = []
    for shard in shards:
        group.append(shard)
        if sum(map(sizes.__getitem__, group)) >= wanted or shard == shards[-1]:
            tasks.append(ScoreTask(tuple(group), len(tasks), folder, config, sets))
            group = []
    return tasks

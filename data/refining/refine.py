"""Raw documents to a clean corpus: score, compare, decide, cut, write. What is dropped is kept with its reason, and
every document's scores stay, so that thresholds can be cut again.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from sluice.core.files import copy_tree, remove
from sluice.core.manifest import EVIDENCE
from sluice.core.progress import Progress, no_progress
from sluice.data.config import RefineConfig
from sluice.data.decontamination.sets import EvaluationSets
from sluice.data.deduplication.index import DuplicateIndex
from sluice.data.deduplication.near import Duplicate
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.document import document_shards
from sluice.data.refining.compare import PAIR_FLOOR, ids_along, is_first, similar_pairs
from sluice.data.refining.corpus import ScoredCorpus
from sluice.data.refining.executor import RunTasks, lasting_workers
from sluice.data.refining.fingerprint import fingerprint
from sluice.data.refining.rounds import keep
from sluice.data.refining.score import ScoreTask, Summary, score_part
from sluice.data.refining.tables import EARLIER, PAIRS, REPORT, SKETCHES, write_twins
from sluice.data.report import RefineReport

_PARTS = 16
_LEAST_PART_BYTES, _MOST_PART_BYTES = 1 << 18, 1 << 24
"""Raw bytes a part: enough parts for some workers, small enough that a worker's memory knows nothing of the corpus."""


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

    The outcome depends on the documents and the settings only, not on order, shards or workers. Scored parts stay in
    `work`, where a later run of the same inputs and code finds them: after a run that died, and after thresholds
    changed. `executor` is called like `sluice.data.refining.executor.run_tasks`; the default starts local processes for
    this call, or uses Ray. With `work`, the caller runs `report.remember()` once `out` is in its final place.
    ValueError if the folder is empty or nothing is kept.
    """
    started = time.perf_counter()
    if config.min_quality is not None and config.quality_model is None:
        raise ValueError(f"min_quality {config.min_quality} needs quality_model, the classifier that scores it")
    sets = load_sets(config)
    parts = _own_folder(work or out / ".work", fingerprint(config, documents, sets.fingerprint))
    tasks = plan_tasks(config, documents, parts, sets)
    with ExitStack() as stack:
        run = executor or stack.enter_context(lasting_workers())
        # The longest first: no worker begins with a long one when the others are done.
        ordered = sorted(tasks, key=lambda task: (-task.size_bytes, task.number))
        summaries = run(score_part, ordered, workers=config.workers, progress=progress, note="extract, mask, score")
        scored = time.perf_counter()
        filled = [task.number for task, summary in zip(ordered, summaries, strict=True) if summary.documents]
        if not filled:
            raise ValueError(f"{documents} holds no document: add a source")
        report = _decide(config, [tasks[number] for number in sorted(filled)], out, run, progress)
    report.masked = dict(sorted(sum((Counter(summary.masked) for summary in summaries), Counter[str]()).items()))
    report.evaluation_sets, report.short_items = sets.counts, sets.ignored
    write_report(report, out)
    report.timings = {**_worker_seconds(summaries), "score_s": scored - started, **report.timings}
    if work is None:
        # Nobody else can: the sketches go with the parts.
        report.remember()
        shutil.rmtree(parts.parent)
    return report


def _decide(
    config: RefineConfig, tasks: Sequence[ScoreTask], out: Path, run: RunTasks, progress: Progress
) -> RefineReport:
    """All that follows once the parts are scored: compare, keep the evidence, decide, cut, write, remember."""
    started = time.perf_counter()
    corpus = ScoredCorpus.open([task.scores for task in tasks])
    sketches = [SketchPart(task.sketches) for task in tasks]
    pairs = similar_pairs(config, corpus, sketches)
    index = DuplicateIndex.open(Path(config.index), config) if config.index else None
    name = hashlib.sha256("\n".join(corpus.columns.ids).encode()).hexdigest()[:32]
    earlier = _earlier(corpus, sketches, index, name)
    compared = time.perf_counter()
    write_evidence(tasks, corpus, pairs, earlier, out / EVIDENCE)
    report = keep(config, corpus, sketches, pairs, earlier, out, run=run, progress=progress)
    if index is not None:
        report.remember = partial(index.add, sketches, ids_along(corpus), report.kept_rows[corpus.part_rows], name)
    report.timings = {"compare_s": compared - started, "write_s": time.perf_counter() - compared}
    return report


def load_sets(config: RefineConfig) -> EvaluationSets:
    return EvaluationSets.load([Path(each.path) for each in config.sets], config.contamination_ngrams, config.masks)


def plan_tasks(config: RefineConfig, documents: Path, work: Path, sets: EvaluationSets) -> list[ScoreTask]:
    """Raw shards in groups of about equal size. The plan knows nothing of workers."""
    shards = document_shards(documents)
    sizes = {path: path.stat().st_size for path in shards}
    wanted = min(max(sum(sizes.values()) // _PARTS, _LEAST_PART_BYTES), _MOST_PART_BYTES)
    tasks: list[ScoreTask] = []
    group: list[Path] = []
    for shard in shards:
        group.append(shard)
        if sum(map(sizes.__getitem__, group)) >= wanted or shard == shards[-1]:
            tasks.append(ScoreTask(tuple(group), len(tasks), work, config, sets))
            group = []
    return tasks


def _own_folder(work: Path, name: str) -> Path:
    """`work/name`; what runs of other inputs or settings left beside it is removed, and in it what is half made."""
    own = work / name
    own.mkdir(parents=True, exist_ok=True)
    for other in [*(path for path in work.iterdir() if path != own), *own.glob(".*")]:
        remove(other)
    return own


def _earlier(
    corpus: ScoredCorpus, sketches: Sequence[SketchPart], index: DuplicateIndex | None, name: str
) -> dict[str, Duplicate]:
    """Id -> its twin among what earlier runs kept. `name` is this run's in the index: that of the texts it is about."""
    if index is None:
        return {}
    found = index.duplicates(sketches, ids_along(corpus), is_first(corpus), PAIR_FLOOR, name)
    return {duplicate.id: duplicate for duplicate in found}


def write_evidence(
    tasks: Sequence[ScoreTask],
    corpus: ScoredCorpus,
    pairs: np.ndarray,
    earlier: Mapping[str, Duplicate],
    evidence: Path,
) -> None:
    """What a later cut of the thresholds needs: scores, what repeats, and who resembles whom."""
    evidence.mkdir(parents=True)
    write_pairs(corpus, pairs, evidence)
    write_twins([(each.id, each.duplicate_of, each.jaccard) for each in earlier.values()], evidence / EARLIER)
    for number, task in enumerate(tasks):
        shutil.copyfile(task.scores, evidence / f"scores-{number:04d}.parquet")
        copy_tree(task.sketches, evidence / SKETCHES.format(number), _copy_all_but_shingles)


def write_pairs(corpus: ScoredCorpus, pairs: np.ndarray, evidence: Path) -> None:
    """`pairs` is [n] of dtype PAIR over the distinct ids."""
    ids = [corpus.columns.ids[row] for row in corpus.columns.first_rows()]
    write_twins([(ids[one], ids[other], similarity) for one, other, similarity in pairs.tolist()], evidence / PAIRS)


def _copy_all_but_shingles(source: Path, target: Path) -> None:
    """Shingles outweigh the text, of which they can be made again."""
    if not source.name.startswith("shingles"):
        shutil.copyfile(source, target)


def write_report(report: RefineReport, out: Path) -> None:
    text = json.dumps(report.model_dump(exclude={"timings"}), indent=2, sort_keys=True, ensure_ascii=False)
    (out / EVIDENCE / REPORT).write_text(text + "\n", encoding="utf-8")


def _worker_seconds(summaries: Sequence[Summary]) -> dict[str, float]:
    return {f"{name}_workers_s": sum(each.seconds[name] for each in summaries) for name in summaries[0].seconds}

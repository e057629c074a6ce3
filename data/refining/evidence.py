"""The evidence of a build: scores, sketches and similar pairs, from which thresholds can be changed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sluice.data.deduplication.near import PAIR, Duplicate
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.refining.corpus import Corpus
from sluice.data.refining.score import ScoreTask
from sluice.data.refining.tables import EARLIER, PAIRS, SKETCHES, read_twins, score_parts, write_twins
from sluice.data.report import EVIDENCE, REPORT, RefineReport


class RefineEvidence(NamedTuple):
    """Measurements of the documents of a build, from which it is decided which are kept."""

    corpus: Corpus
    sketches: list[SketchPart]
    """A part each, without shingles."""
    pairs: np.ndarray
    """Pairs of distinct ids, [n] of dtype PAIR."""
    earlier: dict[str, Duplicate]
    """Id -> its twin among what earlier runs kept."""


def write_evidence(
    tasks: Sequence[ScoreTask], corpus: Corpus, pairs: np.ndarray, earlier: Mapping[str, Duplicate], evidence: Path
) -> None:
    """Write what a later change of thresholds needs."""
    evidence.mkdir(parents=True)
    write_pairs(corpus, pairs, evidence)
    write_twins([(each.id, each.duplicate_of, each.jaccard) for each in earlier.values()], evidence / EARLIER)
    for number, task in enumerate(tasks):
        shutil.copyfile(task.scores, evidence / f"scores-{number:04d}.parquet")
        # Without the shingles, which are larger than the text and can be computed from it again.
        copied = evidence / SKETCHES.format(number)
        copied.mkdir(parents=True)
        for path in sorted(task.sketches.iterdir()):
            if not path.name.startswith("shingles"):
                shutil.copyfile(path, copied / path.name)


def read_evidence(evidence: Path) -> RefineEvidence:
    """Read what `write_evidence` wrote."""
    corpus = Corpus.open(score_parts(evidence))
    number = {corpus.ids[row]: number for number, row in enumerate(corpus.first_rows())}
    pairs = [(number[one], number[other], jaccard) for one, other, jaccard in read_twins(evidence / PAIRS)]
    return RefineEvidence(
        corpus,
        [SketchPart(evidence / SKETCHES.format(part)) for part in range(len(corpus.parts))],
        np.array(pairs, dtype=PAIR),
        {name: Duplicate(name, twin, jaccard) for name, twin, jaccard in read_twins(evidence / EARLIER)},
    )


def write_pairs(corpus: Corpus, pairs: np.ndarray, evidence: Path) -> None:
    """Write pairs of distinct ids, [n] of dtype PAIR, into an evidence folder."""
    ids = [corpus.ids[row] for row in corpus.first_rows()]
    write_twins([(ids[one], ids[other], similarity) for one, other, similarity in pairs.tolist()], evidence / PAIRS)


def write_report(report: RefineReport, out: Path) -> None:
    """Write the report without its timings, so that equal outcomes are equal bytes."""
    text = json.dumps(report.model_dump(exclude={"timings"}), indent=2, sort_keys=True, ensure_ascii=False)
    (out / EVIDENCE / REPORT).write_text(text + "\n", encoding="utf-8")

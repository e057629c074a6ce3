"""Score: extract, mask, score and sketch one part of the corpus. Nothing is dropped here.

Scoring and deciding are separate, so that thresholds can change without scoring again. A part is never scored twice:
its summary is written last and marks it as complete.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from sluice.core.files import atomic_write
from sluice.data.config import RefineConfig
from sluice.data.decontamination.sets import EvaluationSets, find
from sluice.data.deduplication.sketch import sketch, write_sketches
from sluice.data.deduplication.words import word_hashes
from sluice.data.document import content_id, read_shard
from sluice.data.extraction.extract import RAW, convert
from sluice.data.privacy import mask
from sluice.data.privacy.fields import mask_field
from sluice.data.quality.classifier import load as load_classifier
from sluice.data.quality.rules import score
from sluice.data.refining.tables import score_schema, write_rows
from sluice.data.report import EXTRACTION_COUNTS

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)


SUMMARIES = "summary-*.json"
"""Completion marker of a scored part."""


@dataclass(frozen=True)
class ScoreTask:
    """Some raw shards to score as one part."""

    shards: tuple[Path, ...]
    number: int
    work: Path
    """Folder of the parts."""
    config: RefineConfig
    sets: EvaluationSets

    def __str__(self) -> str:
        return f"{self.shards[0].name} to {self.shards[-1].name}"

    @property
    def size_bytes(self) -> int:
        """Size of the raw shards on disk."""
        return sum(path.stat().st_size for path in self.shards)

    @property
    def scores(self) -> Path:
        return self.work / f"scores-{self.number:04d}.parquet"

    @property
    def sketches(self) -> Path:
        return self.work / f"sketches-{self.number:04d}"

    @property
    def summary(self) -> Path:
        return self.work / SUMMARIES.replace("*", f"{self.number:04d}")


@dataclass
class Summary:
    """Counts of a scored part, for the driver, which does not open it."""

    documents: int = 0
    masked: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each block."""


class ReadShards(PipelineStep):
    """Read the documents of the part's raw shards."""

    type = "📖 - READER"
    name = "read"

    def __init__(self, shards: tuple[Path, ...]) -> None:
        super().__init__()
        self.shards = shards

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for shard in self.shards:
            yield from read_shard(shard)


class ExtractMarkup(PipelineStep):
    """Convert markup to the document text contract; the first heading, if any, becomes the title. Raw text is kept."""

    type = "⛏ - EXTRACT"
    name = "extract"

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                markup = document.metadata.pop("markup", RAW)
                found = convert(document.text, markup)
                document.metadata["extraction"] = {name: getattr(found, name) for name in EXTRACTION_COUNTS}
                document.metadata["control_characters"] = 0
                if markup != RAW:
                    document.metadata["control_characters"] = len(_CONTROL.findall(found.text))
                    document.text = _CONTROL.sub("", found.text)
                    if heading := _HEADING.search(document.text):
                        document.metadata["title"] = heading[1]
            yield document


class MaskPersonalData(PipelineStep):
    """Replace personal data by placeholders before any text is stored; after this the text and its id are final."""

    type = "🕶 - PRIVACY"
    name = "mask"

    def __init__(self, kinds: Collection[str] | None) -> None:
        super().__init__()
        self.kinds = kinds
        self.masked: Counter[str] = Counter()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                document.text, counts = mask(document.text, self.kinds)
                for name in ("title", "path", "source"):
                    document.metadata[name], _ = mask(str(document.metadata[name]), self.kinds)
                fields = document.metadata.get("fields", {})
                document.metadata["fields"] = {name: mask_field(name, fields[name], self.kinds) for name in fields}
                raw_id, document.id = document.id, content_id(document.text)
                # The hash of the original beside the masked text would let anybody test guesses of what was masked.
                document.metadata["raw_id"] = document.id if any(counts.values()) else raw_id
                self.masked.update(counts)
            yield document


class ScoreRules(PipelineStep):
    """Compute the scores of every rule, whatever the thresholds are."""

    type = "📐 - SCORES"
    name = "score"

    def __init__(self, quality_model: str | None) -> None:
        super().__init__()
        self.quality = load_classifier(Path(quality_model)) if quality_model else None

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                scored = score(document.text, self.quality)
                removed = document.metadata.pop("control_characters")
                # They were removed from the text, but a text that was full of them should still fail the rule.
                scored.scores["control_character_fraction"] += removed / max(len(document.text) + removed, 1)
                # No rule uses them; the report counts them by source.
                scored.scores.update(document.metadata.pop("extraction"))
                document.metadata["scores"] = scored.scores
                document.metadata["language"] = scored.language
            yield document


class SketchWords(PipelineStep):
    """Hash the words once, for the duplicate sketch and for the n-grams shared with evaluation sets."""

    type = "🫂 - DEDUPS"
    name = "sketch"

    def __init__(self, config: RefineConfig, sets: EvaluationSets) -> None:
        super().__init__()
        self.config, self.sets = config, sets

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                hashes = word_hashes(document.text)
                document.metadata["sketch"] = sketch(document.text, self.config, hashes)
                spans = find(hashes, self.sets)
                document.metadata["contamination"] = [asdict(span) for span in spans]
            yield document


def score_part(task: ScoreTask) -> Summary:
    """Score one part into `task.scores` and `task.sketches`, unless an earlier run has done it."""
    if task.summary.is_file():
        return Summary(**json.loads(task.summary.read_text()))
    masking = MaskPersonalData(task.config.masks)
    blocks: list[PipelineStep] = [
        ReadShards(task.shards),
        ExtractMarkup(),
        masking,
        ScoreRules(task.config.quality_model),
        SketchWords(task.config, task.sets),
    ]
    stream: Any = None
    for block in blocks:
        stream = block(stream, task.number)
    documents = sorted(stream, key=canonical)
    started = time.perf_counter()
    write_sketches(task.sketches, [document.metadata["sketch"] for document in documents], task.config)
    names = sorted(documents[0].metadata["scores"]) if documents else []
    rows = [
        {
            **document.metadata["scores"],
            **{name: document.metadata[name] for name in ("raw_id", "source", "path", "licence", "title", "language")},
            "id": document.id,
            "characters": len(document.text),
            "bytes": len(document.text.encode()),
            "text": document.text,
            "contamination": json.dumps(document.metadata["contamination"]),
            "fields": json.dumps(document.metadata["fields"], ensure_ascii=False, sort_keys=True),
        }
        for document in documents
    ]
    write_rows(rows, score_schema(names), task.scores)
    seconds = {str(block.name): block.stats.time_stats.total for block in blocks[1:]}
    summary = Summary(len(documents), dict(masking.masked), seconds | {"write": time.perf_counter() - started})
    # Last, because it marks the part as complete.
    with atomic_write(task.summary) as partial:
        partial.write_text(json.dumps(asdict(summary)))
    return summary


def canonical(document: Document) -> tuple[str, ...]:
    """Sort key of the canonical order: id, then where the document came from, whatever its shard."""
    metadata = document.metadata
    return document.id, metadata["source"], metadata["path"], metadata["raw_id"]

"""Train the quality classifier on the documents of sources: good ones and bad ones."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sluice.core.files import atomic_write
from sluice.core.progress import Progress, no_progress
from sluice.data.config import IngestConfig, Source
from sluice.data.document import read_documents
from sluice.data.quality.classifier import TrainingReport, train
from sluice.data.refining.score import ExtractMarkup, MaskPersonalData
from sluice.data.sources.ingest import ingest


def train_on_sources(
    good: Sequence[Source | str],
    bad: Sequence[Source | str],
    out: Path,
    *,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> TrainingReport:
    """Train a classifier with `sluice.data.quality.classifier.train` and write it to `out` atomically.

    Documents are prepared as for scoring: without markup, with placeholders for personal data. Raises ValueError for a
    source that cannot be read, and as `train` does.
    """
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: name a file, such as {out / 'quality.safetensors'}")
    texts = []
    for sources in (good, bad):
        with TemporaryDirectory(prefix="sluice-") as name:
            folder, config = Path(name), IngestConfig.model_validate({"sources": list(sources)})
            ingest(config, folder, cache=cache, progress=progress)
            documents = MaskPersonalData(None).run(ExtractMarkup().run(read_documents(folder)))
            texts.append([document.text for document in documents])
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        return train(texts[0], texts[1], partial, seed)

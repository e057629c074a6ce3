"""Train the quality classifier on the documents of sources: good ones and bad ones."""

from collections.abc import Iterator, Sequence
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
    good_texts, bad_texts = (list(_texts(sources, cache, progress)) for sources in (good, bad))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        return train(good_texts, bad_texts, partial, seed)


def _texts(sources: Sequence[Source | str], cache: Path | None, progress: Progress) -> Iterator[str]:
    with TemporaryDirectory(prefix="sluice-") as folder:
        ingest(IngestConfig.model_validate({"sources": list(sources)}), Path(folder), cache=cache, progress=progress)
        for document in MaskPersonalData(None).run(ExtractMarkup().run(read_documents(Path(folder)))):
            yield document.text

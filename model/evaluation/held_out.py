"""The corpus as an evaluation sees it: test documents to measure on, train documents for the baselines."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sluice.data.config import PackConfig
from sluice.data.document import content_id, read_documents
from sluice.data.split import split_of
from sluice.model.config import EvaluateConfig


def cut(text: str, max_bytes: int) -> str:
    """Return the longest beginning of `text` of at most `max_bytes` of UTF-8. Every model and baseline scores this."""
    return text.encode()[:max_bytes].decode(errors="ignore")


@dataclass(frozen=True)
class HeldOut:
    """The documents in the order of their ids."""

    test: list[tuple[str, str]]
    """(id, text), complete."""
    train: list[str]
    sources: dict[str, str]
    """Source of each test document, by id."""
    data_hash: str

    def scored(self, config: EvaluateConfig) -> list[tuple[str, str]]:
        """Return the documents of bits per byte, cut to their beginnings."""
        return [(name, cut(text, config.max_document_bytes)) for name, text in self.test[: config.documents]]


def read_held_out(documents: Path, split: PackConfig) -> HeldOut:
    """Read a refined folder. ValueError for one without a test or without a train document."""
    test, train, sources, digest = [], [], {}, hashlib.sha256()
    for document in sorted(read_documents(documents), key=lambda d: d.id):
        digest.update(f"{document.id}\n".encode())
        side = split_of(document.id, split)
        if side == "test" and document.text.strip():
            test.append((document.id, document.text))
            sources[document.id] = str(document.metadata.get("source", "unnamed"))
        elif side == "train":
            train.append(document.text)
    if not test or not train:
        raise ValueError(
            f"{documents}: {len(test)} test and {len(train)} train documents, evaluation needs both; "
            "add documents or raise pack.test_fraction"
        )
    return HeldOut(test, train, sources, digest.hexdigest())


_TEXTS = (".txt", ".md", ".rst")
_PASSAGE = 2_000
"""Characters from which a passage of a single file ends at the next empty line."""


def read_data(path: Path, split: PackConfig) -> HeldOut:
    """Read what an evaluation is given: a refined folder, a folder of texts, or one text file.

    A refined folder is split as its documents are for training. Of texts, no one is known to be held out, so half of
    them, by a hash, are measured and the others are for the baselines; a single file is cut into passages. ValueError
    for a path without text.
    """
    if path.is_dir() and any(path.glob("documents-*.jsonl*")):
        return read_held_out(path, split)
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix in _TEXTS and each.is_file())
        texts = [_read(each) for each in files]
    elif path.is_file():
        texts = _passages(_read(path))
    else:
        raise ValueError(f"{path}: no such file or folder; name a refined folder, a folder of texts or a text file")
    documents = sorted((content_id(text), text) for text in set(texts) if text.strip())
    if len(documents) < 2:
        raise ValueError(
            f"{path}: {len(documents)} texts, and an evaluation needs two: name a refined folder, a folder of "
            f"{', '.join(_TEXTS)} files, or one longer text file"
        )
    measured, others = documents[::2], documents[1::2]
    digest = hashlib.sha256("".join(f"{name}\n" for name, _ in documents).encode()).hexdigest()
    return HeldOut(
        measured, [text for _, text in others], dict.fromkeys((name for name, _ in measured), path.name), digest
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): convert it") from None


def _passages(text: str) -> list[str]:
    passages, current = [], ""
    for paragraph in text.split("\n\n"):
        current = f"{current}\n\n{paragraph}" if current else paragraph
        if len(current) >= _PASSAGE:
            passages.append(current)
            current = ""
    return [*passages, *([current] if current.strip() else [])]

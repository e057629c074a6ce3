"""The corpus as an evaluation sees it: test documents to measure on, train documents for the baselines."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sluice.data.config import PackConfig
from sluice.data.document import read_documents
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

"""The split into training, validation and test documents: a pure function of the content id."""

import hashlib
from typing import Literal, get_args

from sluice.data.config import PackConfig

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(document_id: str, config: PackConfig) -> Split:
    """Return the split of a document. Equal texts are in one split, whatever the rest of the corpus or its sharding."""
    digest = hashlib.sha256(f"{config.split_salt}:{document_id}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < config.test_fraction:
        return "test"
    return "valid" if point < config.test_fraction + config.valid_fraction else "train"

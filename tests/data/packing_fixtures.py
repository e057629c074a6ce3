"""A small mixed corpus and a tokenizer for the tests of packing."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from datatrove.data import Document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sluice.data.config import PackConfig
from sluice.data.document import content_id, write_documents

VOCABULARY = 400
CONFIG = PackConfig(valid_fraction=0.15, test_fraction=0.2, tokens_per_shard=5000)
SOURCES = {"guide==1.0": 60, "manual==2.1": 90, "notes": 30}
"""Documents of each source."""
_WORDS = (
    "the",
    "cache",
    "queue",
    "router",
    "session",
    "naïve",
    "日本語",
    "cursor",
    "<|endoftext|>",
    "42",
    "stores",
    "drops",
    "reads",
    "for",
    "a",
    "worker",
)


def made_documents() -> list[Document]:
    """Documents of 5 to 300 words, sorted by id."""
    draw = random.Random(7)
    texts = [
        (source, f"{source} {number} " + " ".join(draw.choices(_WORDS, k=draw.randint(5, 300))))
        for source, count in SOURCES.items()
        for number in range(count)
    ]
    found = [Document(text=text, id=content_id(text), metadata={"source": source}) for source, text in texts]
    return sorted(found, key=lambda document: document.id)


def write_corpus(documents: Iterable[Document], folder: Path, per_shard: int = 50) -> Path:
    folder.mkdir()
    write_documents(documents, folder, per_shard)
    return folder


@pytest.fixture(scope="session")
def mixed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(made_documents(), tmp_path_factory.mktemp("mixed") / "refine")


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [word + str(number) for word in _WORDS for number in range(20)]
    tokenizer.train_from_iterator([*words, *(document.text for document in made_documents())], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder

"""A small corpus, tokenizer and model for the tests of evaluation."""

import random
from pathlib import Path

import pytest
import torch
from datatrove.data import Document
from tokenizers import Tokenizer

from sluice.data.config import PackConfig, TokenizerConfig
from sluice.data.document import content_id, read_documents, write_documents
from sluice.data.split import split_of
from sluice.data.tokenization import load_tokenizer, train_tokenizer
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import save_model

SPLIT = PackConfig(valid_fraction=0.1, test_fraction=0.4)
_TOPICS = ("cache", "queue", "router", "session", "template", "cursor", "signal", "worker", "schema", "token")
_VERBS = ("starts", "stores", "drops", "reads", "checks", "splits", "names", "closes", "merges", "signs")


def document_text(number: int) -> str:
    """Prose in the document text contract whose sections speak of what their headings name."""
    draw = random.Random(number)
    parts = [f"# Manual {number}", f"This is manual number {number}."]
    for topic in draw.sample(_TOPICS, 4):
        sentences = [
            f"The {topic} {draw.choice(_VERBS)} the {draw.choice(_TOPICS)} {draw.randint(2, 99)} times."
            for _ in range(draw.randint(3, 6))
        ]
        parts += [f"## The {topic} of {number}", " ".join(sentences)]
    return "\n\n".join(parts)


def build_corpus(folder: Path, documents: int = 60, sources: tuple[str, ...] = ("local",)) -> Path:
    """documents-*.jsonl.gz under `folder`/refine, and a tokenizer under `folder`/tokenizer."""
    texts = [document_text(number) for number in range(documents)]
    refine, tokenizer = folder / "refine", folder / "tokenizer"
    refine.mkdir()
    tokenizer.mkdir()
    found = [
        Document(text=text, id=content_id(text), metadata={"source": sources[number % len(sources)]})
        for number, text in enumerate(texts)
    ]
    write_documents(sorted(found, key=lambda d: d.id), refine, 20)
    train_tokenizer(TokenizerConfig(vocab_size=420), refine, tokenizer, split=SPLIT)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, built once a session."""
    return build_corpus(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="session")
def tokenizer(corpus: Path) -> Tokenizer:
    """Its tokenizer."""
    return load_tokenizer(corpus / "tokenizer")


def side_of(folder: Path, side: str, source: str | None = None) -> list[str]:
    """Texts of one side of the split, by id; of all sources or of one."""
    return [
        document.text
        for document in read_documents(folder / "refine")
        if split_of(document.id, SPLIT) == side and source in (None, document.metadata["source"])
    ]


def tiny_model(tokenizer: Tokenizer, seed: int = 0, context: int = 64) -> Transformer:
    """An untrained model of a few thousand parameters."""
    settings = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, context=context)
    model = Transformer(TransformerConfig.from_settings(settings, tokenizer.get_vocab_size()))
    initialize(model, seed)
    return model.eval()


def train(model: Transformer, tokenizer: Tokenizer, texts: list[str], steps: int) -> Transformer:
    """A few steps of plain AdamW: enough to know words, in seconds."""
    torch.manual_seed(0)
    ids = torch.tensor([token for text in texts for token in [0, *tokenizer.encode(text).ids]])
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    width = model.config.context
    for _ in range(steps):
        starts = torch.randint(len(ids) - width - 1, (8,))
        rows = torch.stack([ids[s : s + width + 1] for s in starts])
        loss = torch.nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def saved_model(corpus: Path, folder: Path, seed: int = 0, steps: int = 60) -> Path:
    """A model directory, trained for `steps` on the corpus's train side."""
    tokenizer = load_tokenizer(corpus / "tokenizer")
    model = train(tiny_model(tokenizer, seed), tokenizer, side_of(corpus, "train"), steps)
    folder.mkdir(parents=True)
    save_model(folder, model, corpus / "tokenizer", {})
    return folder

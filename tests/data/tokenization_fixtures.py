"""Documents and tokenizers for the tests of tokenization."""

import json
from pathlib import Path

import pytest
from datatrove.data import Document

from sluice.data.config import PackConfig, TokenizerConfig
from sluice.data.document import content_id, write_documents
from sluice.data.tokenization import TokenizerReport, train_tokenizer

SPLIT = PackConfig(valid_fraction=0.1, test_fraction=0.2)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beginnings of the standard library's modules, prose and code: about 150 documents."""
    out = tmp_path_factory.mktemp("library")
    texts = [
        path.read_text(encoding="utf-8")[:4000] for path in sorted(Path(json.__file__).parents[1].glob("[a-z]*.py"))
    ]
    documents = [Document(text=text, id=content_id(text), metadata={"language": "en"}) for text in texts if text]
    write_documents(sorted(documents, key=lambda each: each.id), out, 50)
    return out


def train(documents: Path, out: Path, **settings: object) -> TokenizerReport:
    """Train into the new folder `out`."""
    out.mkdir()
    return train_tokenizer(TokenizerConfig.model_validate({"vocab_size": 600} | settings), documents, out, split=SPLIT)

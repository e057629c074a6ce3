"""Fixtures shared by the tests of several packages of the model. Its folder is on sys.path for them too."""

from pathlib import Path

import pytest
from evaluation_fixtures import SPLIT, build_corpus

from sluice.data.packing import pack


@pytest.fixture(scope="session")
def packed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with refine/, tokenizer/ and pack/."""
    folder = build_corpus(tmp_path_factory.mktemp("training"))
    (folder / "pack").mkdir()
    pack(SPLIT, folder / "refine", folder / "tokenizer", folder / "pack")
    return folder

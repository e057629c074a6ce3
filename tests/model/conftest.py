"""What tests of several of the model room's rooms share. As a conftest it puts its folder on their path too."""

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

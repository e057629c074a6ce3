"""A small corpus of real documentation, built with the data package."""

import json
from pathlib import Path

import pytest

from sluice.data.config import IngestConfig, RefineConfig
from sluice.data.refining.refine import refine
from sluice.data.sources.ingest import ingest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Refined documentation of the standard library's modules: about 150 documents."""
    root = tmp_path_factory.mktemp("corpus")
    texts = list(_standard_library())
    source = root / "stdlib.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    for name in ("raw", "clean"):
        (root / name).mkdir()
    ingest(IngestConfig(sources=str(source)), root / "raw")
    refine(RefineConfig(workers=1), root / "raw", root / "clean")
    return root / "clean"


def _standard_library() -> list[str]:
    from sluice.data.extraction.extract import extract
    from sluice.data.sources.installed import docstrings

    folder = Path(json.__file__).parent.parent
    found = ((path, docstrings(path, path.stem)) for path in sorted(folder.glob("[a-z]*.py")))
    return [extract(text, "rst") for _, text in found if len(text) > 500]


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refined folder with a card's worth of evidence."""
    from refined_folder import write_refined

    return write_refined(tmp_path_factory.mktemp("card") / "refined")


@pytest.fixture(scope="module")
def page(refined: Path) -> str:
    """Its card."""
    from sluice.data.card.card import render

    return render(refined)

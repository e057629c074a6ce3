"""Source code: read where a glob names its suffix, as it is, with its language as metadata."""

from pathlib import Path

import pytest

from sluice.data.config import IngestConfig, Source
from sluice.data.document import Document, read_documents
from sluice.data.sources.code_files import language_of, names_suffix
from sluice.data.sources.ingest import ingest
from sluice.data.sources.local_hash import contents_sha256

CODE = "def f(x):\n    return x\n\n\nclass A:\n\tdef g(self):\n\t\tpass\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    for name, content in {
        "src/a.py": CODE,
        "src/b.rs": "fn main() {}\n",
        "Makefile": "all:\n",
        "README.md": "# A\n",
    }.items():
        (folder / name).write_text(content)
    (folder / "logo.png").write_bytes(b"\x89PNG\x00")
    return folder


def read(out: Path, *sources: Source | str) -> tuple[list[Document], dict[str, int]]:
    out.mkdir()
    report = ingest(IngestConfig(sources=list(sources)), out)
    return list(read_documents(out)), report.rejects


def test_code_is_read_by_include_as_it_is_with_its_language(project: Path, tmp_path: Path) -> None:
    chosen = Source(uri=str(project), include=["**/*.py", "**/*.rs", "Makefile", "*.md"])
    documents, rejects = read(tmp_path / "out", chosen)
    assert rejects == {}
    assert [(each.metadata["path"], each.metadata.get("fields")) for each in documents] == [
        ("Makefile", {"programming_language": "make"}),
        ("README.md", None),
        ("src/a.py", {"programming_language": "python"}),
        ("src/b.rs", {"programming_language": "rust"}),
    ]
    assert documents[2].text == CODE


def test_without_a_glob_that_names_its_suffix_a_file_is_unsupported(project: Path, tmp_path: Path) -> None:
    for number, source in enumerate((str(project), Source(uri=str(project), include=["**/*"]), f"{project}/**")):
        documents, rejects = read(tmp_path / f"out{number}", source)
        assert [each.metadata["path"] for each in documents] == ["README.md"]
        assert sum(rejects.values()) == 4
    documents, rejects = read(tmp_path / "globbed", f"{project}/**/*.py", str(project / "Makefile"))
    assert [each.metadata["path"] for each in documents] == ["src/a.py", "Makefile"]
    _, rejects = read(tmp_path / "binary", Source(uri=str(project), include=["*.png", "*.md"]))
    assert rejects == {"binary": 1}


def test_a_change_of_code_is_a_change_of_the_sources(project: Path) -> None:
    config = IngestConfig(sources=[Source(uri=str(project), include=["**/*.py"])])
    before = contents_sha256(config)
    (project / "src" / "a.py").write_text("pass\n")
    assert contents_sha256(config) != before


@pytest.mark.parametrize(
    ("glob", "path", "named"),
    [
        ("**/*.py", "src/a.py", True),
        ("src/a.*", "src/a.py", False),
        ("**", "src/a.py", False),
        ("*", "a.py", False),
        ("*.[ch]", "a.c", True),
        ("**/Makefile", "src/Makefile", True),
    ],
)
def test_a_glob_names_a_suffix(glob: str, path: str, named: bool) -> None:
    assert names_suffix(glob, path) is named


def test_languages_of_ordinary_suffixes() -> None:
    names = {"a.py": "python", "a.R": "r", "a.pl": "perl", "a.sql": "sql", "a.ts": "typescript", "a.unknown": None}
    assert {name: language_of(name) for name in names} == names

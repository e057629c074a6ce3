"""`why` by path: as the user types it, from any folder, and never for another document than the one meant."""

import json
import os
import shutil
from pathlib import Path

import pytest
from test_refine import page

from sluice.data.build import build
from sluice.data.config import EvaluationSet, IngestConfig, RefineConfig
from sluice.data.explain.why import why

QUIET = RefineConfig(workers=1, min_stop_words=None, max_top_3gram_fraction=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders and a JSONL file of texts, built into `out` (one source) and `both` (several)."""
    place = tmp_path_factory.mktemp("why")
    for number, name in enumerate(("texts/a/page.rst", "texts/b/page.rst", "more/page.rst", "more/only.rst")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(page("caching", number))
    (place / "texts" / "short.rst").write_text("Too short.\n")
    lines = [json.dumps({"text": page("signals", number)}) for number in range(3)]
    (place / "lines.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    (place / "texts" / "a" / "blob.bin").write_bytes(b"\0")
    build(IngestConfig(sources=str(place / "texts")), QUIET, place / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        build(IngestConfig(sources=["texts", "more/*.rst", "lines.jsonl"]), QUIET, place / "both")
    return place


def path_of(folder: Path, name: str, here: Path) -> tuple[str, str]:
    (found,) = why(folder, name, here)
    return found.source, found.path


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("{place}/texts/a/page.rst", "."),
        ("page.rst", "texts/a"),
        ("../texts/a/page.rst", "more"),
        ("a/page.rst", "more"),
    ],
)
def test_a_path_of_the_only_source_is_known(place: Path, name: str, here: str):
    asked = name.format(place=place)
    assert path_of(place / "out", asked, place / here) == ("local", "a/page.rst")
    assert why(place / "out", "texts/short.rst", place)[0].rule == "too_few_words"


def test_a_path_with_bytes_that_are_not_utf_8_is_known(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.rst")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(page("caching", 1))
    build(IngestConfig(sources=str(tmp_path / "in")), QUIET, tmp_path / "out")
    for typed in (f"in/{name}", name, str(tmp_path / "in" / name)):
        assert path_of(tmp_path / "out", typed, tmp_path) == ("local", r"caf\udce9.rst")


@pytest.mark.parametrize(
    ("name", "here", "found"),
    [
        ("{place}/texts/b/page.rst", ".", ("texts", "b/page.rst")),
        ("texts/b/page.rst", ".", ("texts", "b/page.rst")),
        ("page.rst", ".", ("more/*.rst", "page.rst")),
        ("{place}/more/page.rst", "texts", ("more/*.rst", "page.rst")),
        ("../more/only.rst", "texts", ("more/*.rst", "only.rst")),
        ("{place}/lines.jsonl:2", "texts", ("lines.jsonl", "lines.jsonl:2")),
        ("lines.jsonl:3", ".", ("lines.jsonl", "lines.jsonl:3")),
    ],
)
def test_a_path_of_one_of_several_sources_is_known(place: Path, name: str, here: str, found: tuple[str, str]):
    assert path_of(place / "both", name.format(place=place), place / here) == found


def test_a_file_of_the_same_name_elsewhere_is_not_taken_for_it(place: Path):
    for name in ("elsewhere/page.rst", "elsewhere/short.rst", "texts/a/only.rst"):
        with pytest.raises(ValueError, match="no document of"):
            why(place / "out", str(place / name), place)


def test_what_names_several_lists_them(place: Path):
    with pytest.raises(ValueError, match=r"page\.rst names 2 documents: .*\(more/\*\.rst, page\.rst\)") as refusal:
        why(place / "both", "page.rst", place / "texts" / "b")  # below a source, and in the current folder
    assert "(texts, b/page.rst)" in str(refusal.value)
    with pytest.raises(ValueError, match=r"lines\.jsonl names 3 documents: give the id of one, .*lines\.jsonl:1\), "):
        why(place / "both", str(place / "lines.jsonl"), place)


def test_what_was_never_a_document_is_known_by_its_path_too(place: Path):
    with pytest.raises(ValueError, match=r"blob\.bin was never a document: unsupported suffix \.bin"):
        why(place / "both", "blob.bin", place / "texts" / "a")
    with pytest.raises(ValueError, match=r"lines\.jsonl:4 was never a document: line is not a JSON object"):
        why(place / "both", str(place / "lines.jsonl:4"), place / "texts")


def test_without_known_sources_the_end_of_the_path_decides(place: Path, tmp_path: Path):
    artifact = Path(shutil.copytree(place / "both", tmp_path / "artifact"))
    manifest = json.loads((artifact / "manifest.json").read_text())
    del manifest["parameters"]["data"]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    assert path_of(artifact, "/unpacked/texts/b/page.rst", tmp_path) == ("texts", "b/page.rst")
    with pytest.raises(ValueError, match="no document of"):
        why(artifact, "/unpacked/texts/b", tmp_path)


def test_a_file_name_that_is_the_only_one_is_enough(place: Path):
    assert path_of(place / "out", "short.rst", place.parent) == ("local", "short.rst")
    (place / "deep" / "txt").mkdir(parents=True)
    (place / "deep" / "img").mkdir()
    (place / "deep" / "txt" / "note01-near.txt").write_text(page("caching", 2))
    (place / "deep" / "img" / "image.png").write_bytes(b"\x89PNG")
    build(IngestConfig(sources=str(place / "deep")), QUIET, place / "deeper")
    assert path_of(place / "deeper", "note01-near.txt", place) == ("local", "txt/note01-near.txt")
    for name in ("image.png", "img/image.png"):
        with pytest.raises(ValueError, match=r"image\.png was never a document: unsupported suffix \.png"):
            why(place / "deeper", name, place)
    with pytest.raises(ValueError, match="no document of"):
        why(place / "deeper", "01-near.txt", place)
    (place / "deep" / "bad.jsonl").write_text("{broken\n{worse\n")
    build(IngestConfig(sources=str(place / "deep")), QUIET, place / "deeper")
    with pytest.raises(ValueError, match=r"bad\.jsonl was never a document: line is not a JSON object"):
        why(place / "deeper", "bad.jsonl", place)
    with pytest.raises(ValueError, match=r"page\.rst names 2 documents: .*[ab]/page\.rst.*[ab]/page\.rst"):
        why(place / "out", "page.rst", place.parent)


def test_cuts_and_masks_are_explained(tmp_path: Path):
    question = "Which of the seven seas did the very old captain of the wooden ship cross first in spring"
    (tmp_path / "in").mkdir()
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": question}) + "\n")
    short = f"{question}? {' '.join(page('signals', 3).split()[:30])}"
    (tmp_path / "in" / "short.txt").write_text(short)
    (tmp_path / "in" / "long.txt").write_text(f"{page('caching', 1)}\n\n{question}? Ask jane.doe@corp-mail.com now.\n")
    (tmp_path / "in" / "plain.txt").write_text(page("locking", 2))
    config = QUIET.model_copy(
        update={
            "evaluation_sets": [EvaluationSet(path=str(tmp_path / "quiz.jsonl"))],
            "contamination_policy": "cut",
            "max_piece_copies": 9,
        }
    )
    build(IngestConfig(sources=str(tmp_path / "in")), config, tmp_path / "out")
    (fell,) = why(tmp_path / "out", "short.txt", tmp_path)
    assert (fell.rule, fell.words) == ("too_few_words", len(short.split()))
    assert fell.cut == ["contamination (18 words shared with quiz)", "max_piece_copies=9"]
    assert f"after cutting; cut out of {fell.words} words by contamination (18 words shared with quiz)" in str(fell)
    (kept,) = why(tmp_path / "out", "long.txt", tmp_path)
    assert kept.kept
    assert kept.cut[0] == "contamination (18 words shared with quiz)"
    assert kept.masked == {"EMAIL": 1}
    assert "were cut out by contamination (18 words shared with quiz)" in str(kept)
    assert str(kept).endswith("masked: EMAIL 1")
    (plain,) = why(tmp_path / "out", "plain.txt", tmp_path)
    assert str(plain).endswith(": kept")


def test_a_path_with_an_address_in_it_is_known_by_its_own_name(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "jane.doe@corp-mail.com.rst").write_text(page("caching", 1))
    build(IngestConfig(sources=str(tmp_path / "in")), QUIET, tmp_path / "out")
    (found,) = why(tmp_path / "out", str(tmp_path / "in" / "jane.doe@corp-mail.com.rst"), tmp_path)
    assert "<EMAIL>" in found.path

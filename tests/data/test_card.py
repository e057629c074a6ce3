"""The data card of a refined folder: complete, escaped, self-contained, the same bytes every time."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import refined_folder
from refined_folder import PACK_INDEX, TOKENIZER_REPORT, texts, write_json, write_refined

from sluice.data.card.attachments import describe
from sluice.data.card.card import heat, render, write_card
from sluice.data.card.folder import open_folder
from sluice.data.card.licences import Licences
from sluice.data.card.licences import shown as shown_licences
from sluice.data.card.numbers import share, size
from sluice.data.card.passes import rule_passes
from sluice.data.card.view import make_card
from sluice.data.config import RefineConfig

VOID = {"meta", "link", "br", "img"}


class Elements(HTMLParser):
    """Checks that tags close in order; collects names and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    assert not elements.open
    return elements


def shown(page: str) -> str:
    return " ".join(" ".join(parsed(page).text).split())


def test_the_page_is_well_formed_and_asks_for_nothing_outside(page: str):
    elements = parsed(page)
    assert "script" not in elements.names
    assert elements.addresses == ["data:,"]
    assert "url(" not in page and "@import" not in page


def test_the_page_shows_each_part(page: str, refined: Path):
    report = json.loads((refined / "evidence" / "report.json").read_text())
    text = shown(page)
    for title in (
        "From sources to clean documents",
        "Sources and licences",
        "What was dropped",
        "Pass rates",
        "Scores and thresholds",
        "Languages and lengths",
        "Duplicates",
        "Evaluation sets and personal data",
        "Examples of what is dropped",
        "Settings",
    ):
        assert title in text
    assert json.loads((refined / "manifest.json").read_text())["content_sha256"] in text
    for source, tally in report["by_source"].items():
        assert source in text and f"{tally['documents_kept']:,}" in text
    for rule, amount in report["dropped"].items():
        assert f"{rule.replace('_', ' ')} {amount}" in text
    assert "CC-BY-4.0" in text and "not UTF-8 text" in text and "EMAIL" in text and "quiz" in text
    assert "words ≥ 40" in text and "min 40" in text and "refine.min_words" in text


def test_both_sizes_of_shared_ngrams_are_on_the_page(page: str):
    text = shown(page)
    # Set, items, those too short, words of the n-gram, documents, places: of the set that nothing was found of, too.
    for row in ("exam 40 0 13 0 0", "exam 40 0 8 0 0", "quiz 1,200 3 13 4 5", "quiz 1,200 3 8 17 23"):
        assert row in text


def test_the_flow_fits_a_narrow_page_without_scrolling(page: str):
    (figure,) = re.findall(r"<figure>(<svg class=\"sankey\".*?)</figure>", page, re.DOTALL)
    assert '<svg class="cascade"' in figure and "svg.sankey { min-width" not in page
    assert "svg.cascade { display: none;" in page
    assert "(max-width: 1000px) { svg.sankey { display: none; } svg.cascade { display: block; } }" in page


def test_pass_rates_are_each_rules_own(page: str):
    lengths = [(language, len(text.split())) for language, text in texts()]
    copies = [each for place, each in enumerate(lengths) if place % 23 == 4]
    every = lengths + copies
    passing = sum(words >= 40 for _, words in every)
    japanese = [words for language, words in every if language == "ja"]
    rows = re.findall(r"too few words</th><td class=\"bound\">words ≥ 40</td>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r">([^<>]+)</td>", row) for row in rows]
    assert len(cells) == 2
    assert all(row[0] == f"{100 * passing / len(every):.1f} %" for row in cells)
    share = 100 * sum(words >= 40 for words in japanese) / len(japanese)
    assert 0 < share < 100 and f"{share:.1f} %" in cells[1]


def test_a_rule_that_does_not_apply_to_a_language_passes_it(refined: Path):
    folder = open_folder(refined)
    thresholds = {**folder.thresholds, "min_stop_words": 3}
    found = rule_passes(replace(folder, parameters={"refine": thresholds}))
    rule = next(each for each in found if each.rule.reason == "few_stop_words")
    rates = {name: passed.passed / passed.documents for name, passed in rule.by_language.items()}
    assert rates["en"] < 1 == rates["ja"]


def test_strangers_text_is_escaped_everywhere(tmp_path: Path):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    folder = write_refined(tmp_path / "refined", RefineConfig(min_words=99), edit=lambda _, text: f"{hostile} {text}")
    evidence = folder / "evidence"
    report = json.loads((evidence / "report.json").read_text())
    report["by_source"][hostile] = report["by_source"].pop("handbook==2.0")
    report["by_language"][hostile] = report["by_language"].pop("ja")
    report["masked"][hostile] = 3
    report["contaminated"][hostile] = 1
    report["evaluation_sets"][hostile] = 1
    write_json(evidence / "report.json", report)
    ingest = json.loads((evidence / "ingest.json").read_text())
    ingest["rejects"][hostile] = 2
    write_json(evidence / "ingest.json", ingest)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"][hostile] = hostile
    write_json(folder / "manifest.json", manifest)
    write_json(tmp_path / "tokenizer" / "report.json", {hostile: 1, "by_language": {hostile: {hostile: hostile}}})
    page = render(folder, tokenizer=tmp_path / "tokenizer")
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    parsed(page)


def test_the_same_folder_gives_the_same_bytes_wherever_it_is_and_however_it_is_cut(tmp_path: Path, page: str):
    assert render(write_refined(tmp_path / "again", parts=5)) == page
    shutil.move(tmp_path / "again", tmp_path / "moved")
    path = write_card(tmp_path / "moved")
    assert path == tmp_path / "moved" / "card.html"
    assert path.read_text(encoding="utf-8") == page
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []


def test_a_page_can_go_elsewhere(refined: Path, tmp_path: Path):
    assert write_card(refined, tmp_path / "docs" / "card.html").stat().st_size > 20_000
    assert not (refined / "card.html").exists()


def test_files_that_are_not_there_are_left_out(tmp_path: Path):
    folder = write_refined(tmp_path / "refined")
    (folder / "evidence" / "ingest.json").unlink()
    (folder / "manifest.json").unlink()
    for part in (folder / "evidence").glob("scores-*"):
        part.unlink()
    text = shown(render(folder))
    assert "Pass rates" not in text and "Rejects" not in text and "Settings" not in text
    # Licences are then those that the documents carry.
    assert "PSF-2.0" in text
    assert re.search(r"sha256:[0-9a-f]{64}", text)


def test_tokenizer_and_packing_are_on_the_page_where_they_are_given(refined: Path, tmp_path: Path):
    write_json(tmp_path / "tokenizer" / "manifest.json", {"report": TOKENIZER_REPORT})
    write_json(tmp_path / "pack" / "index.json", PACK_INDEX)
    text = shown(render(refined, tokenizer=tmp_path / "tokenizer", packed=tmp_path / "pack"))
    assert "bytes per token 3.551" in text and "round trip 1" in text and "91,234" in text
    assert "train s" not in text
    with pytest.raises(ValueError, match=r"holds none of index.json"):
        render(refined, packed=tmp_path)


def test_a_split_whose_sources_are_unknown_shows_no_number_of_them() -> None:
    counts = {"documents": 3, "sources": {}}
    [table] = describe({"splits": {"train": counts, "valid": {**counts, "sources": {"docs": {"documents": 3}}}}}).tables
    assert table.head == ["documents", "sources"]
    assert table.rows == [["train", "3", ""], ["valid", "3", "1"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evidence/report.json", b"{", r"report\.json is damaged"),
        ("evidence/report.json", b'{"documents_in": "many"}', r"report\.json is damaged \(documents_in"),
        ("evidence/decisions.parquet", b"PAR1", r"decisions\.parquet is damaged"),
        ("evidence/scores-0000.parquet", b"", r"scores-0000\.parquet is damaged"),
        ("manifest.json", b"[}", r"manifest\.json is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str):
    folder = write_refined(tmp_path / "refined")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        write_card(folder)
    assert not (folder / "card.html").exists()


def test_a_folder_that_is_not_refined_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"has no evidence/report\.json: `sluice data build"):
        write_card(tmp_path)


def test_numbers_that_do_not_add_up_are_refused(tmp_path: Path):
    folder = write_refined(tmp_path / "refined")
    report = json.loads((folder / "evidence" / "report.json").read_text())
    write_json(folder / "evidence" / "report.json", report | {"documents_kept": report["documents_kept"] - 1})
    with pytest.raises(ValueError, match="do not add up"):
        write_card(folder)


def test_a_licence_that_is_not_known_is_no_licence(tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch):
    assert "from 3 sources under 3 licences." in shown(page)
    assert "Licences known 3 kept with every document" in shown(page)
    monkeypatch.setitem(refined_folder.SOURCES, "python==3.11", "unspecified")
    some = shown(render(write_refined(tmp_path / "some")))
    assert "from 3 sources under 2 licences; licence unknown for 1 of 3 sources." in some
    assert "Licences known 2 licence unknown for 1 of 3 sources" in some
    assert "python==3.11 unknown" in some and "handbook==2.0 MIT" in some
    for source in refined_folder.SOURCES:
        monkeypatch.setitem(refined_folder.SOURCES, source, "unspecified")
    none = shown(render(write_refined(tmp_path / "none")))
    assert "from 3 sources; licence unknown for 3 of 3 sources." in none
    assert "Licences known 0 licence unknown for 3 of 3 sources" in none


def test_a_source_of_some_documents_without_a_licence_shows_both():
    licences = Licences.of([{"MIT", "unspecified"}, {"MIT"}, {""}, set()])
    assert (licences.known, licences.unknown_sources, licences.sources) == (1, 3, 4)
    assert [shown_licences(each) for each in ({"unspecified", "MIT"}, {"MIT", "BSD"}, set())] == [
        "MIT, unknown",
        "BSD, MIT",
        "unknown",
    ]


def test_what_was_read_and_what_was_extracted_have_a_name_each(tmp_path: Path):
    folder = write_refined(tmp_path / "refined")
    ingest = json.loads((folder / "evidence" / "ingest.json").read_text())
    ingest["bytes"] = 7_654_000
    ingest["sources"]["handbook==2.0"]["bytes"] = 4_321_000
    write_json(folder / "evidence" / "ingest.json", ingest)
    report = json.loads((folder / "evidence" / "report.json").read_text())
    page = render(folder)
    text = shown(page)
    assert "7.7 MB of text read from 3 sources" in text
    assert f"{share(report['bytes_kept'], report['bytes_in'])} of the extracted text" in text
    row = report["by_source"]["handbook==2.0"]
    assert "Documents Text read Extracted text Kept Clean text" in text
    assert f"handbook==2.0 MIT {row['documents_in']} 4.3 MB {size(row['bytes_in'])} {row['documents_kept']}" in text
    assert not re.search(r"(?i)>[^<]*\braw\b", page.partition("Examples of what is dropped")[0])
    (folder / "evidence" / "ingest.json").unlink()
    assert f"{size(report['bytes_in'])} of extracted text from 3 sources" in shown(render(folder))


def test_rules_that_no_document_breaks_are_one_line(page: str, refined: Path):
    passes = rule_passes(open_folder(refined))
    unbroken = [each.rule.reason for each in passes if each.total.passed == each.total.documents]
    broken = [each.rule.reason for each in passes if each.total.passed < each.total.documents]
    assert unbroken and broken
    names = ", ".join(each.replace("_", " ") for each in unbroken)
    noun = "rule" if len(unbroken) == 1 else "rules"
    assert f"{len(unbroken)} {noun} that no document broke: {names}." in shown(page)
    heats = re.findall(r'<table class="heat">(.*?)</table>', page, re.DOTALL)
    assert len(heats) == 2
    for table in heats:
        assert re.findall(r'<th scope="row">(.*?)</th>', table) == [each.replace("_", " ") for each in broken]


def test_where_no_rule_is_broken_there_is_no_table_of_pass_rates(refined: Path):
    folder = open_folder(refined)
    page = make_card(replace(folder, parameters={"refine": {}}), None, None)
    assert page.unbroken == ["empty"] and page.heats == []


def test_a_row_keeps_its_name_where_a_table_scrolls(page: str):
    (style,) = re.findall(r"\.scroll th:first-child \{ ([^}]*position: sticky[^}]*) \}", page)
    assert "left: 0" in style and "background: var(--card)" in style
    scrolled = re.findall(r'<div class="[^"]*scroll[^"]*"><table.*?</table>', page, re.DOTALL)
    assert len(scrolled) >= 4
    for table in scrolled:
        assert all(re.match(r"\s*<th[ >]", row) for row in table.split("<tr>")[1:])


def test_heat_grows_with_what_does_not_pass():
    assert [heat(*each) for each in ((9, 9), (0, 0), (98, 100), (95, 100), (85, 100), (70, 100), (1, 9))] == [
        0,
        0,
        1,
        2,
        3,
        4,
        5,
    ]

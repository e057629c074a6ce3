"""The examples on the data card: the excerpt of a dropped document, and its twin."""

import re
from html import unescape
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from refined_folder import write_refined

from sluice.data.card.card import render
from sluice.data.card.examples import excerpt
from sluice.data.card.numbers import number
from sluice.data.card.shared import shared_parts
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.deduplication.words import words
from sluice.data.refining.tables import DECISION, write_rows


def without_tags(found: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", found)).split())


def panels(page: str, rule: str) -> list[str]:
    """The examples of one rule, without tags."""
    (section,) = re.findall(
        rf'<h3 class="rule">{rule} <.*?<div class="excerpts">(.*?)(?=<h3|</section>)', page, re.DOTALL
    )
    return [without_tags(each) for each in section.split('<div class="panel excerpt">')[1:]]


def test_excerpts_are_short_and_end_between_words():
    text = "A line.\n\n\n" + "word " * 200
    short = excerpt(text)
    assert short.startswith("A line.\nword word") and short.endswith("word …") and len(short) <= 262
    assert excerpt("As it is.") == "As it is."
    assert len(excerpt("x" * 10_000_000)) <= 262


def test_a_contaminated_example_shows_the_words_that_it_shares(page: str, refined: Path):
    found = panels(page, "contaminated")
    marks = [without_tags(each) for each in re.findall(r'<mark title="quiz">(.*?)</mark>', page, re.DOTALL)]
    assert len(found) == len(marks) > 0
    rows = pq.read_table(refined / "evidence" / "scores-0000.parquet").to_pylist()
    rows += pq.read_table(refined / "evidence" / "scores-0001.parquet").to_pylist()
    said = {" ".join(words(row["text"])[20:34]) for row in rows if row["contamination"] != "[]"}
    assert {" ".join(words(each)) for each in marks} <= said
    assert all(mark in panel and panel.index(mark) > 0 for mark, panel in zip(marks, found, strict=True))


TEXT = " ".join(f"word{place}" for place in range(400))


def test_shared_words_stand_in_their_context():
    parts = shared_parts(
        TEXT, [SharedSpan(100, 113, "quiz", 13), SharedSpan(105, 120, "exam", 13), SharedSpan(300, 313, "quiz", 13)]
    )
    assert [part.set for part in parts] == ["", "quiz", "exam", "", ""]
    before, first, second, after, more = (part.text for part in parts)
    assert first == " ".join(f"word{place}" for place in range(100, 113))
    assert second == " " + " ".join(f"word{place}" for place in range(113, 120)), "said by two sets, shown once"
    assert before.startswith("… word9") and before.endswith("word99 ") and len(before) < 80
    assert after.startswith(" word120") and after.endswith(" …") and len(after) < 80
    assert more == "\n1 more run"


@given(st.lists(st.integers(1, 398), min_size=2, max_size=4, unique=True))
def test_what_is_marked_is_what_is_shared(bounds: list[int]):
    places = sorted(bounds)[: len(bounds) // 2 * 2]
    spans = [SharedSpan(start, end, "quiz", 8) for start, end in zip(places[::2], places[1::2], strict=True)]
    marked = [part.text for part in shared_parts(TEXT, spans) if part.set]
    for text, span in zip(marked, spans, strict=True):
        whole = " ".join(f"word{place}" for place in range(span.first_word, span.last_word))
        assert text == whole or (text.endswith(" …") and len(text) <= 262 and whole.startswith(f"{text[:-2]} "))


def test_an_example_names_its_twin(page: str, refined: Path):
    rows = pq.read_table(refined / "evidence" / "decisions.parquet").to_pylist()
    exact, near = panels(page, "exact duplicate"), panels(page, "near duplicate")
    assert len(exact) == len(near) == 3
    first = sorted((row["id"], row["source"], row["path"]) for row in rows if row["rule"] == "exact_duplicate")[:3]
    for panel, (name, source, path) in zip(exact, first, strict=True):
        assert path.startswith("copies/") and f"{source} · {path} {name[:12]}" in panel
        assert panel.endswith(f"equal to {source} · {path.replace('copies', 'topics')}")
    kept = {row["id"]: row for row in rows if row["kept"]}
    dropped = {row["id"][:12]: row for row in rows if row["rule"] == "near_duplicate"}
    for panel in near:
        row = next(row for name, row in dropped.items() if name in panel)
        twin = kept[row["twin"]]
        assert panel.endswith(
            f"Jaccard {number(row['jaccard'])} with {twin['source']} · {twin['path']} {row['twin'][:12]}"
        )


def test_a_twin_of_an_earlier_run_is_not_looked_for_here(tmp_path: Path):
    folder = write_refined(tmp_path / "refined")
    path = folder / "evidence" / "decisions.parquet"
    rows = pq.read_table(path).to_pylist()
    changed = [row | {"rule": "earlier_duplicate"} if row["rule"] == "near_duplicate" else row for row in rows]
    write_rows(changed, DECISION, path)
    report = (folder / "evidence" / "report.json").read_text()
    (folder / "evidence" / "report.json").write_text(report.replace("near_duplicate", "earlier_duplicate"))
    found = panels(render(folder), "earlier duplicate")
    assert found and all(
        re.search(r"Jaccard 0\.\d+ with a document of an earlier run [0-9a-f]{12}$", each) for each in found
    )

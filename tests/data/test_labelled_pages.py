"""Words of the main content that extraction keeps, and words that it adds, on labelled pages of our own making.

Pages that end in -3 are held out: the extractor was developed without them.
"""

from collections import Counter

import pytest

from benchmarks.data.pages import LabelledPage, Overlap, by_kind, labelled_pages, ours, overlap, peers, total

PAGES = labelled_pages()
PARTS = {
    "developed on": [page for page in PAGES if not page.held_out],
    "held out": [page for page in PAGES if page.held_out],
}


def test_there_are_three_pages_of_each_of_many_kinds():
    assert len(PAGES) >= 60
    assert set(Counter(page.kind for page in PAGES).values()) == {3}


@pytest.mark.parametrize("part", PARTS)
def test_recall_and_precision(part: str):
    counts = total(by_kind(PARTS[part], ours))
    print(f"{part}: recall {counts.recall:.3f}, precision {counts.precision:.3f} of {counts.wanted} words")
    assert counts.recall >= 0.97
    assert counts.precision >= 0.90


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_no_page_loses_a_fifth_of_its_main_content(page: LabelledPage):
    counts = overlap(page.text, ours(page.html))
    assert counts.recall >= 0.8
    assert counts.precision >= 0.6


def test_words_count_as_often_as_they_occur():
    assert overlap("a b b 小屋", "b b b 屋 c") == Overlap(wanted=5, found=5, right=3)


@pytest.mark.matrix
@pytest.mark.parametrize("part", PARTS)
def test_ours_is_better_than_each_peer(part: str):
    pytest.importorskip("resiliparse")
    mine = total(by_kind(PARTS[part], ours))
    for name, peer in peers().items():
        counts = total(by_kind(PARTS[part], peer))
        assert mine.recall > counts.recall, name
        assert mine.f1 > counts.f1, name

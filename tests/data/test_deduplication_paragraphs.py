"""A repeated paragraph stays in the documents of the smallest ids, and removing it leaves no holes."""

import random
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from deduplication_fixtures import write_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.config import RefineConfig
from sluice.data.deduplication.paragraphs import paragraph_hashes, remove, surplus_paragraphs
from sluice.data.deduplication.ragged_arrays import repeated_values
from sluice.data.deduplication.sketch_store import folders
from sluice.data.deduplication.spans import cut, merged
from sluice.data.document import content_id

NOTICE = "This file is free software and comes without any warranty at all, whatever the use."
CONFIG = RefineConfig(max_piece_copies=2, min_piece_words=8)


def document(name: str) -> str:
    return f"# About {name}\n\n{NOTICE}\n\nThe text of {name} alone is what this paragraph holds, and it stays here."


def surplus(
    texts: list[str], folder: Path, config: RefineConfig = CONFIG, per_part: int = 3, **options: np.ndarray
) -> dict[str, np.ndarray]:
    parts = write_parts(texts, folder, config, per_part)
    eligible = options.get("eligible", np.ones(len(texts), bool))
    return surplus_paragraphs(parts, [content_id(text) for text in texts], eligible, config.max_piece_copies or 1)


def test_paragraphs_are_lines_of_enough_words_but_not_code():
    text = f"# A heading\n\n{NOTICE}\n\n- {NOTICE}\n\n    {NOTICE}\n\nshort line"
    assert len(paragraph_hashes(text, 8)) == 1
    assert len(paragraph_hashes(text, 2)) == 3
    assert len(paragraph_hashes("    " + NOTICE, 8)) == 0
    assert np.array_equal(paragraph_hashes(NOTICE.upper().replace(" ", ",  "), 8), paragraph_hashes(NOTICE, 8))


def test_the_smallest_ids_keep_a_repeated_paragraph(tmp_path: Path):
    texts = [document(str(number)) for number in range(7)]
    found = surplus(texts, tmp_path)
    assert sorted(found) == sorted(content_id(text) for text in texts)[2:]
    for text in texts:
        if content_id(text) in found:
            clean, count = remove(text, found[content_id(text)], CONFIG.min_piece_words)
            assert count == 1
            assert clean == text.replace(NOTICE + "\n\n", "")


def test_a_document_that_is_not_eligible_counts_as_no_copy(tmp_path: Path):
    texts = sorted((document(str(number)) for number in range(3)), key=content_id)
    assert surplus(texts, tmp_path, eligible=np.array([False, True, True])) == {}


def test_off_means_no_paragraphs_and_removing_nothing_changes_nothing(tmp_path: Path):
    texts = [document(str(number)) for number in range(3)]
    assert surplus(texts, tmp_path, RefineConfig()) == {}
    odd = "\n\n\nodd  \n\n\n\ntext \n"
    assert remove(odd, np.empty(0, np.uint64), 8) == (odd, 0)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=8, unique_by=tuple),
    st.randoms(),
    st.integers(1, 3),
)
def test_every_paragraph_stays_in_exactly_the_allowed_copies(
    recipe: list[list[int]], generator: random.Random, copies: int
):
    config = RefineConfig(max_piece_copies=copies, min_piece_words=8)
    texts = ["\n\n".join(f"piece number {n} has as many as eight words" for n in numbers) for numbers in recipe]
    shuffled = list(texts)
    generator.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        found = surplus(texts, Path(one), config)
        again = surplus(shuffled, Path(other), config, per_part=1)
    assert {key: each.tolist() for key, each in found.items()} == {key: each.tolist() for key, each in again.items()}
    clean = [remove(text, found.get(content_id(text), np.empty(0, np.uint64)), 8)[0] for text in texts]
    for number in range(6):
        line = f"piece number {number} has as many as eight words"
        holding = sum(line in text for text in texts)
        assert sum(line in text for text in clean) == min(holding, copies)


def test_ranges_of_values_find_what_one_pass_finds(tmp_path: Path):
    parts = write_parts([document(str(number)) for number in range(9)], tmp_path, CONFIG)
    ranks = np.arange(9)[::-1].copy()
    whole = list(repeated_values(folders(parts), "shingles", ranks))
    ranges = list(repeated_values(folders(parts), "shingles", ranks, values_at_once=40))
    assert len(whole) == 1 and len(ranges) > 3
    for number in (0, 1):
        assert np.array_equal(whole[0][number], np.concatenate([each[number] for each in ranges]))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))))
def test_merged_spans_cover_the_same_characters(spans: list[tuple[int, int]]):
    found = merged(spans)
    assert {c for start, end in found for c in range(start, end)} == {c for s, e in spans for c in range(s, e)}
    assert all(first[1] < second[0] for first, second in pairwise(found))


def test_a_cut_leaves_neither_blank_lines_nor_spaces_behind():
    assert cut("one\n\ntwo two\n\nthree", [(5, 12)]) == "one\n\nthree"
    assert cut("a b c\nd", [(2, 5)]) == "a\nd"
    assert cut("all", [(0, 3)]) == ""
    assert cut("\n\none  \n\n\n\ntwo \r\n\r\nxx\r\nthree  ", [(19, 21)]) == "\n\none  \n\n\n\ntwo\r\n\r\nthree  "

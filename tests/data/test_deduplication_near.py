"""MinHash finds planted pairs, Jaccard verifies them, and the outcome knows of no order, parts or workers."""

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from deduplication_fixtures import CONFIG, edited, find, passage, write_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data.planted import LEVELS, documents, planted, true_jaccard
from sluice.data.config import RefineConfig
from sluice.data.deduplication.near import candidate_pairs, greedy_ranks, verified_pairs
from sluice.data.document import content_id

RECALL = {0.9: 1.0, 0.8: 0.98, 0.7: 0.73}


def test_planted_near_duplicates_are_found_and_strangers_are_not(tmp_path: Path):
    originals = [passage(seed) for seed in range(60)]
    copies = [edited(words, 3, seed) for seed, words in enumerate(originals)]
    removed = find([" ".join(words) for words in originals] + copies, tmp_path)
    assert len(removed) >= 58  # J is about 0.9, where 14 x 8 finds practically all.
    assert all(duplicate.jaccard >= 0.85 for duplicate in removed)


@pytest.mark.parametrize("level", LEVELS)
def test_recall_on_real_documentation(level: tuple[float, float], tmp_path: Path):
    pairs = planted(documents(300, pattern="[a-s]*.py"), 7, *level)
    assert len(pairs) >= 200
    texts = [text for pair in pairs for text in (pair.original, pair.edited)]
    ids = [content_id(text) for text in texts]
    ranks = greedy_ranks(ids, [len(text) for text in texts], np.ones(len(ids), bool))
    found = {frozenset(pair) for pair in candidate_pairs(write_parts(texts, tmp_path, per_part=200), ranks).tolist()}
    recalled = sum(frozenset((2 * number, 2 * number + 1)) in found for number in range(len(pairs)))
    assert recalled / len(pairs) >= RECALL[level[0]]


def test_nothing_is_merged_that_is_not_alike(tmp_path: Path):
    originals = documents(250, pattern="[a-s]*.py")
    texts = list(dict.fromkeys([*originals, *(pair.edited for pair in planted(originals, 3, 0.55, 0.85))]))
    assert len(texts) >= 400
    by_id = {content_id(text): text for text in texts}
    removed = find(texts, tmp_path, per_part=200)
    assert removed
    for duplicate in removed:
        assert true_jaccard(by_id[duplicate.id], by_id[duplicate.duplicate_of]) == pytest.approx(
            duplicate.jaccard, abs=1e-4
        )
        assert duplicate.jaccard >= CONFIG.min_jaccard


def test_a_candidate_pair_below_the_bound_is_kept(tmp_path: Path):
    words = passage(1)
    texts = [" ".join(words), edited(words, 3, 2)]
    assert len(find(texts, tmp_path)) == 1
    assert find(texts, tmp_path, RefineConfig(min_jaccard=0.99)) == []


def test_the_longest_is_kept_and_every_removed_document_has_a_kept_twin(tmp_path: Path):
    words = passage(2)
    texts = [" ".join(words[: 300 - cut]) for cut in range(0, 12, 3)]
    removed = find(texts, tmp_path)
    assert {duplicate.duplicate_of for duplicate in removed} == {content_id(texts[0])}
    assert {duplicate.id for duplicate in removed} == {content_id(text) for text in texts[1:]}


def test_a_document_that_is_not_eligible_is_neither_removed_nor_a_twin(tmp_path: Path):
    words = passage(2)
    texts = [" ".join(words[: 300 - cut]) for cut in range(0, 12, 3)]
    removed = find(texts, tmp_path, eligible=np.array([False, True, True, False]))
    assert [(each.id, each.duplicate_of) for each in removed] == [(content_id(texts[2]), content_id(texts[1]))]


def test_a_chain_of_neighbours_is_not_merged_into_one(tmp_path: Path):
    # Windows that slide over one text: neighbours are alike, the ends of the chain share nothing.
    words = passage(3, 900)
    texts = [" ".join(words[start : start + 300]) + f" {start}" for start in range(0, 600, 25)]
    removed = find(texts, tmp_path)
    gone = {duplicate.id for duplicate in removed}
    assert len(texts) - len(gone) > 5
    for duplicate in removed:
        assert duplicate.jaccard >= CONFIG.min_jaccard
        assert duplicate.duplicate_of not in gone


def test_candidates_share_a_band_and_documents_without_a_rank_are_left_out(tmp_path: Path):
    texts = [" ".join(passage(1)), " ".join(passage(2)), " ".join(passage(1))]
    parts = write_parts(texts, tmp_path, per_part=2)
    assert candidate_pairs(parts, np.array([1, 2, 0])).tolist() == [[2, 0]]
    assert candidate_pairs(parts, np.array([1, 2, -1])).tolist() == []
    assert candidate_pairs([], np.empty(0, np.int64)).tolist() == []


def test_a_template_in_many_documents_costs_a_linear_number_of_pairs_and_loses_nothing(tmp_path: Path):
    words = passage(4, 200)
    texts = [" ".join(words) + f" unique{number}" for number in range(400)]
    texts += [edited(passage(seed), 2, 1) for seed in range(20)]
    ids = [content_id(text) for text in texts]
    ranks = greedy_ranks(ids, [len(text) for text in texts], np.ones(len(ids), bool))
    assert len(candidate_pairs(write_parts(texts, tmp_path), ranks)) <= 60 * 400  # of 79,800
    removed = find(texts, tmp_path)
    assert len(removed) == 399
    assert len({duplicate.duplicate_of for duplicate in removed}) == 1


def test_small_bands_give_every_pair(tmp_path: Path):
    texts = [" ".join(passage(5)) + f" {number}" for number in range(34)]
    ids = [content_id(text) for text in texts]
    ranks = greedy_ranks(ids, [len(text) for text in texts], np.ones(len(ids), bool))
    assert len(candidate_pairs(write_parts(texts, tmp_path), ranks)) == 34 * 33 // 2


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=14, unique=True),
    st.randoms(),
    st.integers(1, 6),
)
def test_the_outcome_is_a_function_of_the_set_of_documents(
    recipe: list[tuple[int, int]], generator: random.Random, per_part: int
):
    texts = [edited(passage(seed, 120), edits, edits) for seed, edits in recipe]
    shuffled = list(texts)
    generator.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        assert find(texts, Path(one)) == find(shuffled, Path(other), per_part=per_part)


def test_texts_of_the_same_words_are_near_duplicates_and_empty_ones_are_alike(tmp_path: Path):
    assert len(find(["one two three", "One, two: three!"], tmp_path)) == 1
    assert len(find(["...", "!!"], tmp_path)) == 1


def test_a_damaged_part_is_named(tmp_path: Path):
    words = passage(6)
    texts = [" ".join(words), edited(words, 1, 1)]
    ids = [content_id(text) for text in texts]
    parts = write_parts(texts, tmp_path)
    path = parts[0].path / "shingles.npy"
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(ValueError, match=r"part-0000.*ends early"):
        verified_pairs(parts, candidate_pairs(parts, greedy_ranks(ids, [1, 2], np.ones(2, bool))), 0.5)

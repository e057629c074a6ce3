"""MinHash finds planted pairs, Jaccard verifies them, and the outcome knows of no order."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import RefineConfig
from data.deduplication import (
    Duplicate,
    candidate_pairs,
    exact_duplicates,
    jaccard,
    near_duplicates,
    shingles,
    signature,
)
from data.document import content_id

CONFIG = RefineConfig()


def passage(seed: int, words: int = 300) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(50_000)}" for _ in range(words)]


def edited(words: list[str], edits: int, seed: int) -> str:
    generator = random.Random(seed)
    changed = list(words)
    for place in generator.sample(range(len(words)), edits):
        changed[place] = f"edit{generator.randrange(10**6)}"
    return " ".join(changed)


def find(texts: list[str], config: RefineConfig = CONFIG) -> list[Duplicate]:
    hashes = [shingles(text, config.minhash_ngram) for text in texts]
    signatures = np.array([signature(each, config) for each in hashes])
    ids = [content_id(text) for text in texts]
    return near_duplicates(ids, [len(text) for text in texts], signatures, hashes, config.min_jaccard)


def test_shingles_are_distinct_ngrams_and_their_order_counts():
    assert len(shingles("a b c d e f", 5)) == 2
    assert len(shingles("a b c d e a b c d e", 5)) == 5
    assert not np.intersect1d(shingles("a b c d e", 5), shingles("e d c b a", 5)).size
    assert np.array_equal(shingles("A, b. C d e!", 5), shingles("a b c d e", 5))
    assert len(shingles("two words", 5)) == 1
    assert len(shingles("", 5)) == 0


def test_jaccard_is_exact():
    first, second = np.array([1, 2, 3, 4], np.uint64), np.array([3, 4, 5], np.uint64)
    assert jaccard(first, second) == 2 / 5
    assert jaccard(first, first) == 1.0
    assert jaccard(first, first[:0]) == 0.0


def test_the_share_of_equal_hashes_estimates_the_jaccard_similarity():
    words = passage(0, 4000)
    first, second = shingles(" ".join(words), 5), shingles(edited(words, 200, 1), 5)
    config = RefineConfig(minhash_buckets=64, minhash_hashes_per_bucket=16)
    agreement = float((signature(first, config) == signature(second, config)).mean())
    assert abs(agreement - jaccard(first, second)) < 0.05  # 1024 hashes: standard error below 0.016


def test_planted_near_duplicates_are_found_and_strangers_are_not():
    originals = [passage(seed) for seed in range(60)]
    copies = [edited(words, 3, seed) for seed, words in enumerate(originals)]
    texts = [" ".join(words) for words in originals] + copies
    removed = find(texts)
    assert len(removed) >= 58  # J is about 0.9, where 14 x 8 finds practically all.
    assert all(duplicate.jaccard >= 0.85 for duplicate in removed)


def test_a_candidate_pair_below_the_bound_is_kept():
    words = passage(1)
    texts = [" ".join(words), edited(words, 3, 2)]
    assert len(find(texts)) == 1
    assert find(texts, RefineConfig(min_jaccard=0.99)) == []


def test_the_longest_is_kept_and_every_removed_document_has_a_kept_twin():
    words = passage(2)
    texts = [" ".join(words[: 300 - cut]) for cut in range(0, 12, 3)]
    removed = find(texts)
    assert {duplicate.duplicate_of for duplicate in removed} == {content_id(texts[0])}
    assert {duplicate.id for duplicate in removed} == {content_id(text) for text in texts[1:]}


def test_a_chain_of_neighbours_is_not_merged_into_one():
    # Windows that slide over one text: neighbours are alike, the ends of the chain share nothing.
    words = passage(3, 900)
    texts = [" ".join(words[start : start + 300]) + f" {start}" for start in range(0, 600, 25)]
    removed = {duplicate.id for duplicate in find(texts)}
    kept = [text for text in texts if content_id(text) not in removed]
    assert len(kept) > 5
    for duplicate in find(texts):
        assert duplicate.jaccard >= CONFIG.min_jaccard
        assert duplicate.duplicate_of not in removed


def test_candidate_pairs_are_those_that_share_a_bucket():
    signatures = np.arange(3 * 2 * 2, dtype=np.uint32).reshape(3, 2, 2)
    assert candidate_pairs(signatures) == set()
    signatures[2, 1] = signatures[0, 1]
    assert candidate_pairs(signatures) == {(0, 2)}
    assert candidate_pairs(signatures[:0]) == set()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=14, unique=True), st.randoms())
def test_the_outcome_is_a_function_of_the_set_of_documents(planted: list[tuple[int, int]], generator: random.Random):
    texts = [edited(passage(seed, 120), edits, edits) for seed, edits in planted]
    shuffled = list(texts)
    generator.shuffle(shuffled)
    assert find(texts) == find(shuffled)


def test_of_exact_duplicates_the_smallest_provenance_is_kept():
    keys = [("b", ("z",)), ("a", ("2",)), ("a", ("1",)), ("b", ("y",)), ("c", ("x",))]
    assert sorted(exact_duplicates(keys)) == [0, 1]

"""Repeated runs of words against a reference without hashes, and winnowing's guarantee."""

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from deduplication_fixtures import passage, write_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.config import RefineConfig
from sluice.data.deduplication.spans import cut
from sluice.data.deduplication.substrings import (
    RepeatCache,
    Substrings,
    character_spans,
    repeated_substrings,
    write_windows,
)
from sluice.data.deduplication.suffixes import Runs
from sluice.data.deduplication.winnowing import anchors, covered_words, sliding_minimum
from sluice.data.deduplication.words import word_hashes, word_spans, words
from sluice.data.document import content_id

LEAST = 16
CONFIG = RefineConfig(min_substring_words=LEAST)


def repeated(
    texts: list[str],
    folder: Path,
    *,
    per_part: int = 3,
    eligible: np.ndarray | None = None,
    block_words: int = 10**6,
    cache: RepeatCache | None = None,
) -> Substrings:
    def cover(numbers: np.ndarray, scratch: Path) -> list[Path]:
        assert numbers.tolist() == sorted(numbers.tolist())
        folders = [scratch / f"part-{half}" for half in range(2)]
        for path, some in zip(folders, np.array_split(numbers, 2), strict=True):
            write_windows(path, (texts[number] for number in some), LEAST, scratch)
        return folders

    chosen = np.ones(len(texts), bool) if eligible is None else eligible
    ids = [content_id(text) for text in texts]
    parts = write_parts(texts, folder, CONFIG, per_part)
    if cache is None:
        scratch = folder / f"cache-{len(list(folder.iterdir()))}"
        scratch.mkdir()
        cache = RepeatCache(scratch, len(texts))
    return repeated_substrings(parts, ids, cover, chosen, LEAST, cache, block_words=block_words)


def reference(texts: list[str]) -> dict[str, list[int]]:
    """Id -> the words to cut: those of every run that stood before, but for what the first occurrence needs itself."""
    first: dict[tuple[str, ...], tuple[str, int]] = {}
    cuts: dict[str, set[int]] = {}
    for identity, text in sorted((content_id(text), text) for text in texts):
        found = words(text)
        for start in range(len(found) - LEAST + 1):
            place = first.setdefault(tuple(found[start : start + LEAST]), (identity, start))
            if place != (identity, start):
                kept_until = place[1] + LEAST if place[0] == identity else 0
                cuts.setdefault(identity, set()).update(range(max(start, kept_until), start + LEAST))
    return {identity: sorted(places) for identity, places in cuts.items()}


def cut_words(text: str, runs: Runs) -> list[int]:
    spans = character_spans(text, runs)
    return [n for n, (a, b) in enumerate(word_spans(text)) if any(s <= a and b <= e for s, e in spans)]


@st.composite
def collections(draw: st.DrawFn) -> list[str]:
    """Documents put together from a few runs of words, so that these repeat across and within documents."""
    generator = random.Random(draw(st.integers(0, 10**6)))
    pool = [[f"p{number}w{generator.randrange(8)}" for _ in range(generator.randint(4, 40))] for number in range(5)]
    pool.append(["ha"] * 30)
    texts = []
    for number in range(draw(st.integers(1, 6))):
        runs = [generator.choice(pool) for _ in range(generator.randint(1, 5))]
        own = [[f"own{number}x{generator.randrange(10**6)}"] for _ in runs]
        texts.append(" ".join(word for pair in zip(own, runs, strict=True) for run in pair for word in run))
    return texts


@settings(max_examples=60, deadline=None)
@given(collections(), st.integers(1, 4))
def test_what_is_cut_is_what_the_reference_cuts(texts: list[str], per_part: int):
    with tempfile.TemporaryDirectory() as folder:
        found = repeated(texts, Path(folder), per_part=per_part)
    by_id = {content_id(text): text for text in texts}
    assert {key: cut_words(by_id[key], runs) for key, runs in found.runs.items()} == reference(texts)
    assert found.split_groups == 0


@settings(max_examples=15, deadline=None)
@given(
    collections(),
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=2, max_size=5),
    st.sampled_from([90, 10_000]),
)
def test_what_earlier_rounds_found_changes_nothing(texts: list[str], rounds: list[list[bool]], block_words: int):
    texts = list(dict.fromkeys(texts))
    by_id = {content_id(text): text for text in texts}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
        cache = RepeatCache(Path(scratch), len(texts))
        for chosen in rounds:
            eligible = np.array(chosen[: len(texts)])
            alone = repeated(texts, Path(folder), eligible=eligible, block_words=block_words)
            found = repeated(texts, Path(folder), eligible=eligible, block_words=block_words, cache=cache)
            if not alone.split_groups and not found.split_groups:
                assert found == alone
            # Where a group that is too large is parted follows from what was read of it, but nothing new is cut.
            whole = reference([text for text, kept in zip(texts, eligible, strict=True) if kept])
            for key, runs in found.runs.items():
                assert set(cut_words(by_id[key], runs)) <= set(whole[key])


@settings(max_examples=20, deadline=None)
@given(collections(), st.randoms())
def test_the_order_of_documents_does_not_matter(texts: list[str], generator: random.Random):
    shuffled = list(texts)
    generator.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        assert repeated(texts, Path(one)) == repeated(shuffled, Path(other), per_part=1)


@given(st.integers(0, 10**6), st.integers(16, 40), st.integers(0, 80), st.integers(0, 80))
def test_a_shared_run_has_a_shared_anchor_and_is_covered(seed: int, least: int, before: int, after: int):
    shared = passage(seed, least)
    first = word_hashes(" ".join(passage(seed + 1, before) + shared))
    second = word_hashes(" ".join([*passage(seed + 2, after), *shared, *passage(seed + 3, before)]))
    common = np.intersect1d(anchors(first, least), anchors(second, least))
    assert len(common)
    assert covered_words(first, least, common)[-least:].all()
    assert covered_words(second, least, common)[after : after + least].all()


def test_anchors_are_few():
    hashes = word_hashes(" ".join(passage(1, 20_000)))
    assert len(anchors(hashes, 50)) < 20_000 * 2.2 / 27


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50), st.data())
def test_the_sliding_minimum_is_the_minimum_of_each_window(values: list[int], data: st.DataObject):
    window = data.draw(st.integers(1, len(values)))
    found = sliding_minimum(np.array(values, np.uint64), window)
    assert found.tolist() == [min(values[start : start + window]) for start in range(len(values) - window + 1)]


def test_a_run_that_a_document_repeats_is_cut_too(tmp_path: Path):
    run = passage(1, 20)
    text = " ".join([*run, "between", *run])
    found = repeated([text], tmp_path)
    assert cut(text, character_spans(text, found.runs[content_id(text)])) == " ".join([*run, "between"])


def test_documents_that_are_not_eligible_count_for_nothing(tmp_path: Path):
    texts = sorted((" ".join([*passage(1, 30), f"own{number}"]) for number in range(3)), key=content_id)
    found = repeated(texts, tmp_path, eligible=np.array([False, True, True]))
    assert list(found.runs) == [content_id(texts[2])]


def test_a_group_that_is_too_large_is_split_and_counted(tmp_path: Path):
    texts = sorted((" ".join([*passage(1, 40), f"own{number}"]) for number in range(8)), key=content_id)
    whole = repeated(texts, tmp_path)
    assert (len(whole.runs), whole.split_groups) == (7, 0)
    halves = repeated(texts, tmp_path, block_words=170)
    assert halves.split_groups == 1
    assert sorted(halves.runs) == [content_id(texts[number]) for number in (1, 2, 3, 5, 6, 7)]


def test_groups_share_a_block_and_the_result_is_the_same(tmp_path: Path):
    texts = [" ".join([*passage(number // 2, 40), f"own{number}"]) for number in range(12)]
    assert repeated(texts, tmp_path) == repeated(texts, tmp_path, block_words=90)


def test_nothing_repeated_is_nothing_cut(tmp_path: Path):
    assert repeated([" ".join(passage(seed)) for seed in range(4)], tmp_path) == Substrings()
    assert repeated([], tmp_path) == Substrings()


@pytest.mark.parametrize(
    ("text", "runs", "expected"),
    [
        ("One two. Three four.", [(0, 2)], "Three four."),
        ("One two. Three four.", [(2, 4)], "One two."),
        ("- One two\n- Three", [(0, 2)], "-\n- Three"),
        ("One (two) three", [(1, 2)], "One (three"),
    ],
)
def test_a_cut_takes_the_punctuation_that_follows(text: str, runs: list[tuple[int, int]], expected: str):
    assert cut(text, character_spans(text, runs)) == expected

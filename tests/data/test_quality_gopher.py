"""Gopher's scores equal stock datatrove's on plain prose, and look past code where the text is documentation."""

import numpy as np
import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.quality import gopher
from sluice.data.quality.ngrams import repeated
from sluice.data.quality.prose import Prose

PROSE = (
    "# Making queries\n\nOnce you have created your models, the library gives you an interface that lets you create, "
    "retrieve, update and delete objects. This document explains how to use it, and what it costs.\n\n"
    "    for entry in Entry.objects.all():\n        print(entry.headline)\n        print(entry.headline)\n\n"
    "- The first argument is `#id` or `...`, and the second is a callable that returns the value to be stored.\n"
    "- Returns: the number of rows that have been changed by the statement."
)

# No word begins another, so n-grams of the reference, whose words it joins without a space, are the same n-grams.
words_lists = st.lists(st.sampled_from(["a", "bc", "bde", "cfgh"]), max_size=80)
line_texts = st.lists(st.sampled_from(["one line", "another", "a third line of text"]), min_size=1, max_size=12)


def scores(text: str) -> dict[str, float]:
    return gopher.scores(Prose.of(text))


@settings(deadline=None)
@given(words_lists, st.integers(5, 10))
def test_duplicate_ngrams_are_the_reference_s(words: list[str], n: int):
    expected = find_all_duplicate(words, n) / max(len("".join(words)), 1)
    assert scores(" ".join(words))[f"duplicate_{n}gram_fraction"] == expected


@settings(deadline=None)
@given(words_lists, st.integers(2, 4))
def test_top_ngrams_are_the_reference_s_where_something_repeats(words: list[str], n: int):
    ngrams = ["".join(words[place : place + n]) for place in range(len(words) - n + 1)]
    is_repeated = len(set(ngrams)) < len(ngrams)
    expected = find_top_duplicate(ngrams) / len("".join(words)) if is_repeated else 0.0
    assert scores(" ".join(words))[f"top_{n}gram_fraction"] == expected


@settings(deadline=None)
@given(line_texts)
def test_duplicate_lines_and_paragraphs_are_the_reference_s(lines: list[str]):
    expected = find_duplicates(lines)[1] / len("".join(lines))
    assert scores("\n".join(lines))["duplicate_line_fraction"] == expected
    assert scores("\n\n".join(lines))["duplicate_paragraph_fraction"] == expected


@settings(deadline=None)
@given(words_lists)
def test_repeated_ngrams_are_those_that_a_count_finds(words: list[str]):
    prose = Prose.of(" ".join(words))
    for found in repeated(prose.word_numbers, 6):
        n = found.length
        ngrams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
        assert found.places.tolist() == [place for place, ngram in enumerate(ngrams) if ngrams.count(ngram) > 1]
        pairs = {(number, ngrams[place]) for place, number in zip(found.places, found.numbers, strict=True)}
        assert len(pairs) == len({ngram for _, ngram in pairs}) == len({number for number, _ in pairs})


def test_quality_is_the_reference_s_on_plain_words():
    # datatrove's own expressions (GopherQualityFilter.filter), its words being whitespace words.
    words = ("the cat sat with 12 of 7 dogs and had 40 naps " * 5).split()
    found = scores(" ".join(words))
    assert found["words"] == len(words)
    assert found["mean_word_length"] == np.mean([len(word) for word in words])
    assert found["alphabetic_word_fraction"] == sum(any(c.isalpha() for c in word) for word in words) / len(words)
    assert found["stop_words"] == len({"the", "with", "of", "and"})
    lines = ["- a bullet", "• another", "a line …", "and a line...", "a plain line"]
    found = scores("\n".join(lines))
    assert found["bullet_line_fraction"] == 2 / 5
    assert found["ellipsis_line_fraction"] == 2 / 5


def test_symbols_are_hash_signs_or_ellipses_a_word():
    assert scores("one # two # three ... four")["symbol_word_ratio"] == 2 / 7
    assert scores("one … two ... three")["symbol_word_ratio"] == 2 / 5


def test_code_and_literals_are_not_measured_as_prose():
    code = "\n".join(f"    }} ) ; # {n} ... {{" for n in range(200))
    without, with_code = scores(PROSE), scores(f"{PROSE}\n\n{code}")
    assert with_code.pop("characters") > without.pop("characters")
    assert with_code == pytest.approx(without)
    assert without["symbol_word_ratio"] == 0
    assert without["bullet_line_fraction"] == 2 / 4


def test_control_characters_count_in_code_too():
    assert scores("    code\x00\x01")["control_character_fraction"] == 2 / 10
    assert scores("a\tb\nc")["control_character_fraction"] == 0


@pytest.mark.parametrize("text", ["", " \n\n "])
def test_a_document_without_prose_scores_nothing(text: str):
    found = scores(text)
    assert found.pop("characters") == len(text)
    assert set(found.values()) == {0}


@settings(deadline=None)
@given(st.text())
def test_any_text_has_finite_scores(text: str):
    assert np.isfinite(list(scores(text).values())).all()

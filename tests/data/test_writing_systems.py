"""Words in every script: nothing of a text is lost or split within a letter, and scripts with spaces are as `\\w+` has
them.
"""

import re
import unicodedata
from pathlib import Path

import pytest
from deduplication_fixtures import find as find_near
from hypothesis import given
from hypothesis import strategies as st
from script_fixtures import ARTICLES, retouched

from sluice.data.config import RefineConfig
from sluice.data.deduplication.words import word_hashes, word_spans, words
from sluice.data.quality.prose import Prose
from sluice.data.quality.rules import breaches, score
from sluice.data.writing_systems import LANGUAGES_WITHOUT_SPACES, PLAIN, letters_a_word, word_pattern

BLOCKS = "漢字々〇ぁんァー・ｶﾞ กขค่ำ๏๙ ກຂ ကခ် កខ្គ ㄅ㐀\U00020000 हिन्दी বাংলা தமிழ் עִבְ عَرَ İß aé9_-\n\u0301\u3099\ufe0f"
mixed = st.text(st.one_of(st.sampled_from(BLOCKS), st.characters(exclude_categories=["Cs"])), max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("这是Python 3写的。", ["这", "是", "python", "3", "写", "的"]),
        ("コード・が", ["コ", "ー", "ド", "が"]),
        ("ที่นี่ x2", ["ที่", "นี่", "x2"]),
        ("ការ", ["កា", "រ"]),
        ("한국어 문서", ["한국어", "문서"]),
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("1\ufe0f\u20e3 \u0301", ["1"]),
        ("İstanbul", ["i̇stanbul"]),
    ],
)
def test_words(text: str, expected: list[str]):
    assert words(text) == expected
    assert [text[start:end].lower() for start, end in word_spans(text)] == expected


@given(mixed)
def test_words_hold_every_letter_once_and_in_order(text: str):
    lowered = text.lower()
    assert "".join(PLAIN.findall("".join(words(text)))) == "".join(PLAIN.findall(lowered))
    assert len(words(text)) == len(word_spans(text)) == len(word_hashes(text))
    assert all(not unicodedata.combining(word[0]) and PLAIN.match(word) for word in words(text))


@given(mixed)
def test_composed_and_decomposed_text_have_the_same_words(text: str):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert [unicodedata.normalize("NFC", word) for word in words(decomposed)] == [
        unicodedata.normalize("NFC", word) for word in words(composed)
    ]


@given(st.text(st.characters(max_codepoint=0x2FF) | st.sampled_from("αωЖя“”…—한국😀\ufe0fẞﬁ①ａ"), max_size=60))
def test_text_with_spaces_and_without_marks_is_as_before(text: str):
    text = text.replace("İ", "")
    assert word_pattern(text.lower()) is PLAIN
    assert words(text) == re.findall(r"\w+", text.lower())
    assert Prose.of(text).tokens == [
        token for line in text.split("\n") if line[:4] != "    " for token in _stripped(line)
    ]


def _stripped(line: str) -> list[str]:
    return re.sub(r"^(?:#{1,6}|-) +", "", line).split()


@given(mixed)
def test_tokens_hold_all_but_whitespace(text: str):
    prose = Prose.of(text)
    assert "".join(prose.tokens) == "".join(prose.text.split())
    assert all(token and not any(map(str.isspace, token)) for token in prose.tokens)


@pytest.mark.parametrize("language", sorted(ARTICLES))
def test_an_article_passes_the_rules_as_they_come(language: str):
    text = ARTICLES[language]
    scored = score(text)
    found = breaches({name: [value] for name, value in scored.scores.items()}, [scored.language], RefineConfig())
    assert scored.language == language
    assert found.first == [None]
    assert (language in LANGUAGES_WITHOUT_SPACES) is (letters_a_word(text) > 1)
    assert 100 <= scored.scores["words"] < len(text)


def test_a_few_characters_of_chinese_are_too_few_and_repeated_ones_are_found():
    def reason(text: str) -> str | None:
        scored = score(text)
        columns = {name: [value] for name, value in scored.scores.items()}
        first = breaches(columns, [scored.language], RefineConfig()).first[0]
        return first and first[0]

    assert reason("茶是世界上最受欢迎的饮料之一。") == "too_few_words"
    assert reason("立即购买" * 40) in {"repeated_2gram", "repeated_3gram", "repeated_4gram"}
    assert reason("我 " * 60) == "repeated_2gram"


def test_an_english_page_is_judged_by_its_english_words():
    english = "The library gives you an interface that lets you create, retrieve, update and delete the objects."
    names = "茶是世界上最受欢迎的饮料之一"
    plain, with_names = score(english), score(f"{english} {names}")
    assert with_names.scores["mean_word_length"] == plain.scores["mean_word_length"]
    assert with_names.scores["words"] == plain.scores["words"] + len(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("plain words", 1),
        ("हिन्दी में", 1),
        ("中文 and a name of it", 1),
        ("中文 abc", 2),
        ("ภาษาไทย", 4),
        ("한국어 문서", 1),
    ],
)
def test_letters_a_word(text: str, expected: int):
    assert letters_a_word(text) == expected


@pytest.mark.parametrize("language", sorted(ARTICLES))
def test_a_near_copy_of_an_article_is_dropped_and_its_halves_are_kept(language: str, tmp_path: Path):
    text = ARTICLES[language]
    copy = retouched(text, 3, 1)
    (removed,) = find_near([text, copy], tmp_path / "near")
    assert removed.jaccard > 0.8
    assert find_near([text[: len(text) // 2], text[len(text) // 2 :]], tmp_path / "halves") == []

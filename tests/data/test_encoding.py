"""Damage is repaired, and nothing else is changed."""

import unicodedata

import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.extraction.encoding import _SUSPECT, repair
from sluice.data.extraction.extract import extract


@pytest.mark.parametrize(
    ("damaged", "sound"),
    [
        ("schÃ¶n und grÃ¼n", "schön und grün"),
        ("Itâ€™s a â€œtestâ€\x9d â€“ yes", "It’s a “test” – yes"),
        ("The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.", "The Mona Lisa doesn’t have eyebrows."),
        ("l\x92humanit\xe9", "l’humanité"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚, Ð¼Ð¸Ñ€", "Привет, мир"),
        ("\x1b[31mred\x1b[0m words", "red words"),
        ("sound line, schön\nbroken line, schÃ¶n\n  kept  \n", "sound line, schön\nbroken line, schön\n  kept  \n"),
        ("cafe\u0301", "café"),
        ("pair \ud83d\ude00 of halves", "pair 😀 of halves"),
    ],
)
def test_damage_is_mended(damaged: str, sound: str):
    assert repair(damaged) == sound


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII with &amp; an entity and 'quotes'",
        "“Curly” quotes – dashes … and ﬁne ligatures stay",
        "全角ＡＢＣと日本語、한국어, العربية, ελληνικά, русский",
        "Größe: 5 µm ± 0,3 %, 20 €, façade, Ångström, naïve",
        "line one\r\nline two\u2028same line\n",
        "was lost: \ufffd",
    ],
)
def test_sound_text_is_unchanged(text: str):
    assert repair(text) == text


@given(st.text())
def test_any_text_is_mended_into_nfc_and_stays_mended(text: str):
    once = repair(text)
    assert once == unicodedata.normalize("NFC", once)
    assert repair(once) == once


@given(st.text("abc äöüßéèñçøå ąćęłńóśźż ґєії ελληνικά", min_size=1).filter(lambda text: repair(text) == text))
def test_utf8_read_as_latin1_comes_back(text: str):
    text = f"naïve Größe {unicodedata.normalize('NFC', text)}"
    assert repair(text.encode().decode("latin-1")) == text


_TELLING = "".join(MOJIBAKE_CATEGORIES.values()).replace("-", "") + "ÂÃÎÐŒœ×à√≈‚ÄØÙВГРС аАz1.$"


@settings(max_examples=500)
@given(st.text(st.sampled_from(_TELLING), min_size=1, max_size=4))
def test_what_ftfy_finds_bad_is_looked_at(text: str):
    assert _SUSPECT.search(text) or not is_bad(text)


def test_extraction_mends_before_it_reads():
    assert extract("Ein schÃ¶ner\nTag.", "txt") == "Ein schöner\nTag."
    assert extract("<p>Itâ€™s</p>", "html") == "It’s"

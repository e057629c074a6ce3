"""C4's and FineWeb's scores, and the language, on text made for each."""

import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import TERMINAL_PUNCTUATION
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.quality import c4, fineweb, gopher
from sluice.data.quality.language import UNDETERMINED, identify
from sluice.data.quality.prose import Prose

LANGUAGES = {
    "en": "The library gives you an interface that lets you create, retrieve, update and delete objects.",
    "de": "Die Bibliothek bietet eine Schnittstelle, mit der man Objekte anlegen, lesen und wieder löschen kann.",
    "fr": "La bibliothèque vous donne une interface qui permet de créer, de lire et de supprimer des objets.",
    "es": "La biblioteca ofrece una interfaz que permite crear, leer, modificar y borrar los objetos de la base.",
    "ja": "このライブラリは、オブジェクトを作成し、読み取り、更新し、削除するためのインターフェースを提供します。",
    "ru": "Библиотека предоставляет интерфейс, который позволяет создавать, читать и удалять объекты базы данных.",
}
lines_of_text = st.lists(st.sampled_from(["A line that ends.", "short", "", "A line without end", "Why?"]), max_size=9)


def test_c4_counts_what_it_drops():
    text = (
        "Lorem ipsum dolor. Is it Latin? (It is!)\n\n"
        "Please enable JavaScript in your browser\n"
        "We and others use cookies. Read our Privacy Policy\n"
        "A set is written {1, 2} and a literal `{x}`, version 1.2 ... it is."
    )
    assert c4.scores(Prose.of(text)) == {
        "sentences": 6,
        "curly_brackets": 1,
        "placeholder_texts": 1,
        "javascript_lines": 1,
        "policy_lines": 1,
    }


def test_c4_looks_past_code():
    assert set(c4.scores(Prose.of("Call it\n\n    function() { return 'lorem ipsum javascript.' }")).values()) == {0}


@settings(deadline=None)
@given(lines_of_text)
def test_fineweb_is_the_reference_s(parts: list[str]):
    # datatrove's own expressions (FineWebQualityFilter.filter), its words being whitespace words.
    text = "\n".join(parts)
    lines = [line for line in text.split("\n") if line.strip() != ""]
    found = fineweb.scores(Prose.of(text))
    if not lines:
        assert found["punctuated_line_fraction"] == found["short_line_fraction"] == 0
        return
    stops = tuple(TERMINAL_PUNCTUATION)
    assert found["punctuated_line_fraction"] == sum(1 for line in lines if line.endswith(stops)) / len(lines)
    assert found["short_line_fraction"] == sum(1 for line in lines if len(line) <= 30) / len(lines)
    assert found["newline_word_ratio"] == text.count("\n") / len(text.split())
    duplicated = gopher.scores(Prose.of(text))["duplicate_line_fraction"]
    assert duplicated == find_duplicates(lines)[1] / len(text.replace("\n", ""))


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_language_is_found_and_sure(code: str):
    found = identify(Prose.of(LANGUAGES[code] * 3))
    assert found.code == code
    assert 0.5 < found.probability <= 1


def test_the_language_is_that_of_the_prose_not_of_the_code():
    german = LANGUAGES["de"]
    code = "    # this comment is written in english, and so is the rest of the code\n" * 50
    assert identify(Prose.of(f"{code}{german}")) == identify(Prose.of(german))


def test_a_document_without_prose_has_no_language():
    assert identify(Prose.of("\n\n")) == (UNDETERMINED, 0.0)
    assert identify(Prose.of("")) == (UNDETERMINED, 0.0)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_has_a_language_and_a_probability(text: str):
    found = identify(Prose.of(text))
    assert 0 <= found.probability <= 1
    assert found == identify(Prose.of(text))

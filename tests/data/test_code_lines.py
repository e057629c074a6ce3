"""Code is told from text by its lines: the labelled texts of the unwrapping, and examples."""

import pytest
from script_fixtures import ARTICLES
from unwrapping_texts import KEPT, LANGUAGES, MAIL

from sluice.data.config import CODE, IDENTIFIED, UNDETERMINED
from sluice.data.extraction.code_lines import code_share, is_code
from sluice.data.quality.language import LEAST_PROBABILITY, identify
from sluice.data.quality.prose import Prose

CODE_TEXTS = {
    "python",
    "python with a long docstring",
    "javascript",
    "c",
    "shell",
    "sql",
    "rust",
    "html",
    "ini",
    "json",
}


@pytest.mark.parametrize("name", KEPT)
def test_labelled_texts_are_code_or_not(name: str):
    assert is_code(KEPT[name]) == (name in CODE_TEXTS)


@pytest.mark.parametrize("text", [*LANGUAGES.values(), *ARTICLES.values(), MAIL[0], "", "# one\n# two", "(a)\n"])
def test_prose_is_no_code(text: str):
    assert not is_code(text)


def test_code_inside_of_a_text_does_not_make_it_code():
    program = KEPT["python"]
    indented = "".join(f"    {line}\n" for line in program.splitlines())
    for text in (f"# Store\n\nUse it like this:\n\n{indented}", f"# Store\n\nUse it:\n\n```python\n{program}\n```\n"):
        prose = Prose.of(text)
        assert not prose.is_code
        assert "Store" in prose.text
    assert "return self.root" not in Prose.of(f"Use it like this:\n\n{indented}").text
    assert "json" in Prose.of(program).words
    assert Prose.of(indented).is_code, "code without a text is code"


def test_a_text_that_is_indented_as_a_whole_is_its_prose():
    assert Prose.of("    the water\n    of the lock").words == ["the", "water", "of", "the", "lock"]


@pytest.mark.parametrize(("text", "language"), [("Hello", UNDETERMINED), ("asdkjh qwkejh zxmcnb qpwoei", UNDETERMINED)])
def test_what_is_too_short_or_strange_is_undetermined(text: str, language: str):
    assert identify(Prose.of(text)).code == language


def test_code_has_no_other_language_and_line_ends_do_not_matter():
    assert identify(Prose.of(KEPT["python"].replace("\n", "\r\n"))) == (CODE, 1.0)
    assert identify(Prose.of("def f(x):\n    return x\n\nclass A:\n    def g(self):\n        pass\n")).code == CODE


def test_every_language_of_the_model_can_be_listed():
    from sluice.data.quality.language import _identifier

    assert set(_identifier().nb_classes) - {"zxx"} == IDENTIFIED
    assert 0 < LEAST_PROBABILITY < 1


def test_scores_do_not_depend_on_line_ends_and_unicode_form():
    from unicodedata import normalize

    from sluice.data.quality.rules import score

    text = f"# Café\n\n{MAIL[1]}\n\n- Zoë\n- one\n\n    x = 1\n"
    expected = score(text).scores
    for other in (text.replace("\n", "\r\n"), normalize("NFD", text)):
        found = score(other).scores
        assert {name: value for name, value in found.items() if name != "characters"} == {
            name: value for name, value in expected.items() if name != "characters"
        }


def test_comments_that_nothing_closes_take_no_longer_than_their_text():
    assert code_share("go on with src/* and the words that follow\n" * 5_000) == 0.0
    prose = "the words of a long comment\n" * 100
    assert code_share(f"/*\n{prose}*/\nx = 1\ny = 2\n") > 0.5
    assert code_share(f"/*\n{prose * 2}*/\nx = 1\ny = 2\n") < 0.1

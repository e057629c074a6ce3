"""Words of text in any script: which characters a word is made of, and where scripts without spaces are parted.

A combining mark (Unicode Mn and Mc, such as the vowel signs of Hindi) belongs to the letter before it, which `\\w` does
not know. Scripts that put no spaces between words are parted into single letters, each with its marks, as SacreBLEU's
`zh` tokenizer (Post, arXiv 1804.08771) does with Chinese: no dictionary is needed, and no language has to be known. One
word of a language is then several words here; LETTERS_A_WORD says how many.
"""

import re
import unicodedata

# Unicode blocks. Of what is no letter in them, such as `・`, `\w` takes nothing.
_IDEOGRAPHIC = (  # Han, Hiragana, Katakana, Bopomofo
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_SYLLABIC = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
_SPACELESS = _IDEOGRAPHIC + _SYLLABIC

LETTERS_A_WORD = {"ideographic": 2, "syllabic": 4}
"""How many letters a word of running text has, about: Han and kana; Thai, Lao, Khmer and Myanmar."""

LANGUAGES_WITHOUT_SPACES = frozenset({"ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})
"""ISO 639 codes, as language identification gives them."""


def _combining_marks() -> str:
    """Those of the Basic Multilingual Plane, as a character class: more would make it a slow one, and beyond are those
    of old scripts alone but for a few. Variation selectors choose a picture, and are no part of a word.
    """
    marks = (chr(place) for place in range(0x300, 0xFE00) if unicodedata.category(chr(place)) in {"Mn", "Mc"})
    return "".join(marks) + "\ufe20-\ufe2f"


_MARKS = _combining_marks()
_ASCII = bytes(range(128))
_BEYOND = re.compile(f"[{_SPACELESS}{_MARKS}]")
_TOKEN = re.compile(rf"[{_SPACELESS}][^\w\s]*|[^\s{_SPACELESS}]+")
_IDEOGRAPHIC_LETTER = re.compile(rf"(?=\w)[{_IDEOGRAPHIC}]")
_SYLLABIC_LETTER = re.compile(rf"(?=\w)[{_SYLLABIC}]")
_LETTER = re.compile(rf"(?=\w)[{_SPACELESS}]")

PLAIN = re.compile(r"\w+")
"""Finds the words of text without marks and without scripts that have no spaces."""
_ANY = re.compile(rf"(?:[^\W{_SPACELESS}]+[{_MARKS}]*)+|\w[{_MARKS}]*")


def word_pattern(text: str) -> re.Pattern[str]:
    """What finds the words of this text: PLAIN where that is enough, which is twice as quick."""
    if text.isascii():
        return PLAIN
    # What is left without ASCII is short. To search the whole text would take four times as long.
    rest = text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
    return _ANY if _BEYOND.search(rest) else PLAIN


def tokens(text: str) -> list[str]:
    """Whitespace words, parted again before every letter of a script without spaces; punctuation stays with what it
    follows.
    """
    return _TOKEN.findall(text)


def spaced(words: list[str]) -> list[str]:
    """Those of the words that are no single letters of a script without spaces."""
    return [word for word in words if not _LETTER.match(word)]


def letters_a_word(text: str) -> int:
    """How many of the words that are found in this text are one word of its language: 1 where words have spaces, else
    as most of them have it.
    """
    pattern = word_pattern(text)
    if pattern is PLAIN:
        return 1
    ideographic, syllabic = len(_IDEOGRAPHIC_LETTER.findall(text)), len(_SYLLABIC_LETTER.findall(text))
    with_spaces = len(pattern.findall(text)) - ideographic - syllabic
    counts = {1: with_spaces, LETTERS_A_WORD["ideographic"]: ideographic, LETTERS_A_WORD["syllabic"]: syllabic}
    return max(counts, key=lambda letters: counts[letters])

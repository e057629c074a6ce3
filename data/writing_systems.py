"""Split text of any script into words.

A combining mark (Unicode Mn and Mc, such as the vowel signs of Hindi) belongs to the letter before it, which `\\w` does
not know. Scripts without spaces are split into single letters, each with its marks, as SacreBLEU's `zh` tokenizer
(Post, arXiv 1804.08771) does for Chinese; this needs neither a dictionary nor the language. A word of such a language
is then several words here: LETTERS_A_WORD of them on average.
"""

import re
import unicodedata

# Unicode blocks. `\w` does not match what is no letter in them, such as `・`.
_IDEOGRAPHIC = (  # Han, Hiragana, Katakana, Bopomofo
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_SYLLABIC = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
_SPACELESS = _IDEOGRAPHIC + _SYLLABIC

LETTERS_A_WORD = {"ideographic": 2, "syllabic": 4}
"""Average letters of a word in running text: Han and kana; Thai, Lao, Khmer and Myanmar."""

LANGUAGES_WITHOUT_SPACES = frozenset({"ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})
"""ISO 639 codes, as language identification returns them."""


_MARKS = (
    "".join(chr(place) for place in range(0x300, 0xFE00) if unicodedata.category(chr(place)) in {"Mn", "Mc"})
    + "\ufe20-\ufe2f"
)
"""Combining marks of the Basic Multilingual Plane, as a character class.

More marks would make matching slow, and nearly all others belong to historic scripts. Variation selectors choose a
glyph and are no part of a word.
"""
_ASCII = bytes(range(128))
_BEYOND = re.compile(f"[{_SPACELESS}{_MARKS}]")
_TOKEN = re.compile(rf"[{_SPACELESS}][^\w\s]*|[^\s{_SPACELESS}]+")
_IDEOGRAPHIC_LETTER = re.compile(rf"(?=\w)[{_IDEOGRAPHIC}]")
_SYLLABIC_LETTER = re.compile(rf"(?=\w)[{_SYLLABIC}]")
_LETTER = re.compile(rf"(?=\w)[{_SPACELESS}]")

PLAIN = re.compile(r"\w+")
"""Matches the words of text without combining marks and without letters of a script without spaces."""
_ANY = re.compile(rf"(?:[^\W{_SPACELESS}]+[{_MARKS}]*)+|\w[{_MARKS}]*")


def word_pattern(text: str) -> re.Pattern[str]:
    """Return the pattern that matches the words of this text: PLAIN, which is twice as fast, where it suffices."""
    if text.isascii():
        return PLAIN
    # Searching the text without its ASCII characters takes a quarter of the time.
    rest = text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
    return _ANY if _BEYOND.search(rest) else PLAIN


def tokens(text: str) -> list[str]:
    """Split at whitespace, and before every letter of a script without spaces; punctuation stays with the word before
    it.
    """
    return _TOKEN.findall(text)


def spaced(words: list[str]) -> list[str]:
    """Return the words that are not single letters of a script without spaces."""
    return [word for word in words if not _LETTER.match(word)]


def letters_a_word(text: str) -> int:
    """Return how many matched words of this text make one word of its language: 1 for scripts with spaces, otherwise
    the number for most of the text.
    """
    pattern = word_pattern(text)
    if pattern is PLAIN:
        return 1
    ideographic, syllabic = len(_IDEOGRAPHIC_LETTER.findall(text)), len(_SYLLABIC_LETTER.findall(text))
    with_spaces = len(pattern.findall(text)) - ideographic - syllabic
    counts = {1: with_spaces, LETTERS_A_WORD["ideographic"]: ideographic, LETTERS_A_WORD["syllabic"]: syllabic}
    return max(counts, key=lambda letters: counts[letters])

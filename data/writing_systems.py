"""Split text of any script into words, and join its lines.

A combining mark (Unicode Mn and Mc, such as the vowel signs of Hindi) belongs to the letter before it, which `\\w` does
not know. Scripts without spaces are split into single letters, each with its marks, as SacreBLEU's `zh` tokenizer
(Post, arXiv 1804.08771) does for Chinese; this needs neither a dictionary nor the language. A word of such a language
is then several words here: LETTERS_A_WORD of them on average.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# Unicode blocks. `\w` does not match what is no letter in them, such as `・`.
_IDEOGRAPHIC = (  # Han, Hiragana, Katakana, Bopomofo
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_SYLLABIC = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
_SPACELESS = _IDEOGRAPHIC + _SYLLABIC
# Yi, Tibetan, Tai Le, New Tai Lue, Tai Tham, Tai Viet
_OTHERS_WITHOUT_SPACES = "\ua000-\ua4cf\u0f00-\u0fff\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"

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
_IN_RUNNING_TEXT = re.compile(rf"[{_SPACELESS}{_OTHERS_WITHOUT_SPACES}]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc]")
_SELECTORS = "".join(map(chr, range(0xFE00, 0xFE10))) + "".join(map(chr, range(0xE0100, 0xE01F0)))
_ZERO_WIDTH_SPACE = "\u200b"

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


def one_line(text: str) -> str:
    """Put the words of a text on one line: white space becomes a space, a line break what `join_lines` makes of it."""
    if "\n" not in text or text.isascii():
        return " ".join(text.split())
    return join_lines(" ".join(line.split()) for line in text.split("\n"))


def join_lines(lines: Iterable[str]) -> str:
    """Join stripped lines by spaces, but without one between letters of scripts that have none, or beside their
    punctuation; empty lines are ignored.

    These are the rules of browsers (CSS Text, segment breaks), extended to Thai and its like.
    """
    joined: list[str] = []
    for line in filter(None, lines):
        if joined and not _joins_without_space(joined[-1], line):
            joined.append(" ")
        joined.append(line)
    return "".join(joined)


def _joins_without_space(before: str, after: str) -> bool:
    if before[-1].isascii() and after[0].isascii():
        return False
    last, first = _join_class(before.rstrip(_SELECTORS)[-1:]), _join_class(after[0])
    match last, first:
        case ("break", _) | (_, "break"):
            return True
        case ("spaced letter", "wide mark") | ("wide mark", "spaced letter"):
            return False
        case ("wide mark", _) | (_, "wide mark"):
            return True
        case ("letter", "letter" | "mark") | ("mark", "letter"):
            return True
    return False


@lru_cache(maxsize=4096)
def _join_class(character: str) -> str:
    """Classify a character at the end of a line: `letter` is one of a script without spaces, `wide mark` is its
    punctuation, `mark` is punctuation of all scripts such as curly quotes, `spaced letter` is Korean.
    """
    if character == _ZERO_WIDTH_SPACE:
        return "break"
    if not character or character.isascii():
        return "other"
    if _HANGUL.match(character):
        return "spaced letter"
    category, width = unicodedata.category(character), unicodedata.east_asian_width(character)
    if width in "WFH" and category[0] == "P":
        return "wide mark"
    if _IN_RUNNING_TEXT.match(character):
        return "letter"
    return "mark" if width == "A" and category[0] == "P" else "other"


def width(text: str) -> int:
    """Columns of a text in a font of fixed width, in which Chinese, Japanese and Korean letters take two."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
        if unicodedata.category(character) not in {"Mn", "Me", "Cf"}
    )


_SYLLABIC_WORD = re.compile(rf"[{_SYLLABIC}{_MARKS}]{{1,12}}")


def first_word(line: str) -> str:
    """Return what a line break cannot divide at the beginning of a stripped line: a word, in Chinese and Japanese a
    letter with the punctuation after it, in Thai and its like up to twelve letters, for want of a dictionary.
    """
    if word := _SYLLABIC_WORD.match(line):
        return word[0]
    token = None if line.isascii() else _TOKEN.match(line)
    return token[0] if token else line.split(" ", 1)[0]

"""Words of an answer, for scorers that compare words in any language."""

import unicodedata

from sluice.data.writing_systems import word_pattern

_ARTICLES = frozenset({"a", "an", "the"})


def plain(text: str) -> str:
    """Normalize to Unicode NFC, with wide and narrow forms as ordinary ones, and single spaces."""
    folded = "".join(
        unicodedata.normalize("NFKC", each)
        if unicodedata.decomposition(each).startswith(("<wide>", "<narrow>"))
        else each
        for each in text
    )
    return " ".join(unicodedata.normalize("NFC", folded).split())


def words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation; each letter of a script without spaces is a word."""
    folded = plain(text).casefold()
    return word_pattern(folded).findall(folded)


def content_words(text: str) -> list[str]:
    """Return the words without the English articles, as SQuAD compares them, unless there are only articles."""
    found = words(text)
    return [word for word in found if word not in _ARTICLES] or found

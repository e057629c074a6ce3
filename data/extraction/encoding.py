"""Repair the encoding of damaged text; all other text is only normalized to Unicode NFC."""

import re
import unicodedata

# A lone surrogate, a control character of Latin-1 where Windows-1252 has a letter, the replacement character, and
# terminal colours: undamaged text has none of them.
_BROKEN = re.compile("[\x80-\x9f\ud800-\udfff\ufffd]|\x1b\\[")
# Every pattern of ftfy's damage measure contains two neighbouring non-ASCII characters, or one of these four. The
# measure itself is slow, and most lines of a Western language contain neither.
_SUSPECT = re.compile(f"[^\x00-\x7f]{{2}}|[ÂÃŒœ]|{_BROKEN.pattern}")
_MOST_MARKS = 30
"""Combining marks on one letter: the Stream-Safe Text Format of Unicode Standard Annex #15; no language needs more."""
# Possible combining marks: none is a letter, and none is below U+0300.
_MARK = re.compile(r"[^\x00-\u02ff\w\s]")
_PILE = re.compile(f"{_MARK.pattern}{{{_MOST_MARKS + 1},}}")


def composed(text: str) -> str:
    """Normalize to NFC, without the marks beyond the thirtieth on one letter, which take quadratic time to sort."""
    if text.isascii():
        return text
    # A pile of marks has one at some multiple of its minimum length.
    if _MARK.search(text[:: _MOST_MARKS + 1]):
        text = _PILE.sub(_without_piles, text)
    return unicodedata.normalize("NFC", text)


def _without_piles(match: re.Match[str]) -> str:
    kept: list[str] = []
    marks = 0
    for character in match[0]:
        # Decomposed, since some that count as letters are made of marks alone.
        marks = marks + 1 if unicodedata.combining(unicodedata.normalize("NFD", character)[0]) else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def repair(text: str) -> str:
    """Undo a wrong decoding, and normalize to NFC.

    ftfy undoes UTF-8 read as another encoding, line by line. It is called only where its own measure finds damage, so
    other text is unchanged, and fast. Quotes, ligatures, widths, entities and line ends are kept, and so are
    replacement characters (U+FFFD).
    """
    if text.isascii():
        return _repair_line(text) if "\x1b[" in text else text
    from ftfy.badness import is_bad

    text = composed(text)
    # Each line is decoded on its own: damage in one does not affect the others.
    lines = text.split("\n")
    suspects = [
        number for number, line in enumerate(lines) if (not line.isascii() or "\x1b" in line) and _SUSPECT.search(line)
    ]
    suspected = "\n".join(lines[number] for number in suspects)
    if _BROKEN.search(suspected) is None and not is_bad(suspected):
        return text
    for number in suspects:
        lines[number] = _repair_line(lines[number])
    return composed("\n".join(lines))


def _repair_line(line: str) -> str:
    from ftfy import TextFixerConfig, fix_text

    config = TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
    return fix_text(line, config)

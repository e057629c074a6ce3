"""Unwrap plain text: join the lines of hard-wrapped paragraphs, and leave every other line as it is.

A *block* is a run of lines with one indent that may be one paragraph. A *break* is a line end inside a block; it is
*full* if the first word of the next line would not have fitted into the margin, which is the width that nine of ten
lines keep. A text is unwrapped only if it is shown to be hard-wrapped prose (`_margin_of_prose`); docs/data.md states
the test in words, and tests/data/test_unwrapping.py measures it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sluice.data.extraction.code_lines import code_share
from sluice.data.writing_systems import first_word, join_lines, tokens, width

LEAST_BREAKS = 3
LEAST_MARGIN, MOST_MARGIN = 40, 120
"""Columns. Verse and lists are narrower; a wider line was not wrapped by hand."""
LEAST_OWN_MARGIN_LINES, LEAST_OWN_MARGIN = 4, 0.8
"""Lines of a block that has a margin of its own, and that margin as a share of the text's."""
FULL_BREAKS, MOST_NOT_FULL_SHARE = 5, 0.2
"""So many breaks are full, and of the others at most this share is not."""
LEAST_FULL_SHARE = 0.8
"""Share of full breaks of a block that is joined at them."""
NEAR_EQUAL = 0.8
"""Width of a line as a share of the longest one, from which on they are equally long."""
LEAST_BLOCK_WIDTH = 0.6
"""A block of lines that are shorter than this share of the margin, such as an address, is no evidence."""
MOST_EQUAL_STARTS = 1 / 3
"""Share of lines that begin with the same word."""
MOST_SENTENCE_SHARE = 0.4
"""Share of breaks after the end of a sentence or clause, of a text."""
LEAST_SMALL_SHARE = 0.4
"""Share of lines after a break that begin with a small letter, in scripts with capitals."""
MOST_CLAUSE_WORDS = 80
"""Words to a mark between clauses or sentences, on average, in scripts with capitals: lists of names have no marks."""
LEAST_WORDS = 4
"""Words of a line, on average."""
MOST_SYMBOL_SHARE = 0.1
"""Share of digits and symbols among the characters of the blocks other than white space."""
MOST_CODE_SHARE = 0.2
"""`code_share` of the whole text."""
_CODE_INDENT = 4
_MOST_FIRST_INDENT = 8
"""Indent of the first line of a paragraph whose other lines have none."""

_LIST = re.compile(
    r"(?:[-*+•‣⁃◦·–—−]|\[[ xX]?\]|[\[(]?(?:\d{1,4}|[A-Za-z]|[ivxlIVXL]{2,5}|#)[.)\]])\s+"
    r"|[（(]?[一二三四五六七八九十]{1,3}[、.）)]|（\d+）|\d+[、．]|[①-⓿]"
)
_KEY = re.compile(r"(?:[A-Z<@\"'\[(][^\s:]*(?: [^\s:]+){0,2}|[^\s:]+)\s?[:>](?:\s|\Z)|[^\W\d_]{1,8}：")
"""Beginning of a line such as `user: hello`, `Mary Ann: hello`, `<nick> hello`, `key: value`."""
_ALONE = re.compile(
    r"#{1,6}\s|[>|%$]|//|/\*|\*/|</?\w|\.\. |[\d/.-]{6,}\s|\[?\d{1,2}:\d\d|\[\d|[A-Z][a-z]{2} +\d+ \d\d:\d\d"
    r"|https?://\S+\Z|[0-9a-f]{7,40}\s|[\W\d_]*\Z"
)
"""Beginning of headings, quotes, comments, tags, log entries, addresses, and lines without a letter."""
_COLUMNS = re.compile(r"\t| {3}|\|")
_CLAUSE_MARK = re.compile(r"[.!?…:;,–—。！？；：，、،؟।॥][\"'”’»」』）)]*(?:\s|\Z)")
_CLAUSE_END = re.compile(r"[.!?…:;,。！？；：，、،؟।॥][\"'”’»」』）)]*\Z")
_SENTENCE_END = re.compile(r"[.!?…:。！？：؟।॥][\"'”’»」』）)]*\Z")
_SYMBOL = re.compile(r"[\d\[\]{}<>=+*/\\|_#$%&@^~`\"]")
_MARGIN_KEPT = 10
"""One line of so many may be wider than the margin."""


class Unwrapped(NamedTuple):
    """A text, and the number of its lines that were joined to the line before."""

    text: str
    joined_lines: int


@dataclass(frozen=True)
class _Block:
    start: int
    """Number of the first line."""
    lines: Sequence[str]
    is_plain: bool
    """Neither a list item nor a line that begins with a key or a speaker."""

    def full(self, margin: float) -> list[bool]:
        """Return whether each break is full, by the margin of the text, or of a longer block by its own."""
        if len(self.lines) >= LEAST_OWN_MARGIN_LINES:
            margin = min(margin, max(*map(width, self.lines), LEAST_OWN_MARGIN * margin))
        return [width(line) + 1 + width(first_word(after.lstrip())) > margin for line, after in pairwise(self.lines)]

    def is_joined(self, margin: float) -> bool:
        """Return whether most breaks are full, and a longer block is neither verse nor a list without markers.

        Each line of verse begins with a capital letter or ends a clause. Lines of a list begin with the same word, or
        the last one is as long as the others and ends no sentence.
        """
        full = self.full(margin)
        starts = Counter(first_word(line.lstrip()) for line in self.lines)
        widths = [*map(width, self.lines)]
        is_verse_or_list = len(full) >= LEAST_BREAKS and (
            all(line.lstrip()[:1].isupper() for line in self.lines[1:])
            or all(_CLAUSE_END.search(line.rstrip()) for line in self.lines[:-1])
            or max(starts.values()) > max(MOST_EQUAL_STARTS * len(self.lines), 2)
            or (min(widths) >= NEAR_EQUAL * max(widths) and not _SENTENCE_END.search(self.lines[-1].rstrip()))
        )
        return sum(full) >= LEAST_FULL_SHARE * len(full) and not is_verse_or_list


def unwrap(text: str, *, force: bool = False) -> Unwrapped:
    """Join the lines of hard-wrapped paragraphs if the text is shown to be hard-wrapped prose; with `force` those of
    every paragraph.

    Unwrapping again changes nothing. List items, headings, quotes, tables, code and lines that begin with a key or a
    speaker are never joined to the line before them.
    """
    joined_lines = 0
    while True:
        lines: list[str | None] = [*(before := text.split("\n"))]
        blocks = _blocks(before, any_indent=force)
        margin = None if force else _margin_of_prose(text, blocks)
        found = 0
        for block in blocks:
            if force:
                found += _join(block, [True] * (len(block.lines) - 1), lines)
            elif margin is not None and block.is_joined(margin):
                found += _join(block, block.full(margin), lines)
        if not found:
            return Unwrapped(text, joined_lines)
        joined_lines += found
        text = "\n".join(line for line in lines if line is not None)


def _join(block: _Block, full: Sequence[bool], lines: list[str | None]) -> int:
    """Join the lines of a block at its full breaks; in `lines`, those that were joined to another become None. Return
    their number.
    """
    first, together = block.start, [block.lines[0].rstrip()]
    for number, (line, is_full) in enumerate(zip(block.lines[1:], full, strict=True), start=block.start + 1):
        if is_full:
            together.append(line.strip())
            lines[number] = None
        if not is_full or number == block.start + len(full):
            lines[first] = join_lines(together)
            first, together = number, [line.rstrip()]
    return sum(full)


def _blocks(lines: Sequence[str], *, any_indent: bool) -> list[_Block]:
    """Return the blocks of at least two lines, in order."""
    blocks: list[_Block] = []
    start = 0
    while start < len(lines):
        end = start + 1
        text = lines[start].strip()
        if text and not _stands_alone(text):
            indent = _indent(lines[start])
            marker = _LIST.match(text)
            after = _indent(lines[end]) if end < len(lines) else 0
            is_paragraph = (
                after == indent < _CODE_INDENT
                or after == 0 < indent <= _MOST_FIRST_INDENT
                or (marker is not None and after == indent + marker.end())
                or (any_indent and indent < _CODE_INDENT)
            )
            while is_paragraph and end < len(lines) and _continues(lines[end].strip()):
                if not any_indent and _indent(lines[end]) != after:
                    break
                end += 1
            if end > start + 1:
                blocks.append(_Block(start, lines[start:end], not marker and not _KEY.match(text)))
        start = end
    return blocks


def _continues(text: str) -> bool:
    return bool(text) and not (_LIST.match(text) or _KEY.match(text) or _stands_alone(text))


def _stands_alone(text: str) -> bool:
    return bool(_ALONE.match(text) or _COLUMNS.search(text))


def _indent(line: str) -> int:
    """Columns of the spaces at the beginning; paragraphs of Chinese and Japanese begin with ideographic ones."""
    return width(line[: len(line) - len(line.lstrip(" \u3000"))])


def _margin_of_prose(text: str, blocks: Sequence[_Block]) -> float | None:
    """Return the margin of a text that is shown to be hard-wrapped prose; None of any other text."""
    plain = [block for block in blocks if block.is_plain]
    breaks = [pair for block in plain for pair in pairwise(block.lines)]
    if len(breaks) < LEAST_BREAKS:
        return None
    widths = sorted(width(line) for line, _ in breaks)
    margin = widths[-1 - len(widths) // _MARGIN_KEPT]
    if not LEAST_MARGIN <= margin <= MOST_MARGIN:
        return None
    long = [block.full(margin) for block in plain if max(map(width, block.lines)) >= LEAST_BLOCK_WIDTH * margin]
    starts = Counter(first_word(after.lstrip()) for _, after in breaks)
    clause_ends = sum(bool(_CLAUSE_END.search(line.rstrip())) for line, _ in breaks)
    with_case = [first for _, after in breaks if (first := after.lstrip()[0]).lower() != first.upper()]
    words = len(tokens(" ".join(line for line, _ in breaks)))
    marks = sum(len(_CLAUSE_MARK.findall(line)) for block in plain for line in block.lines)
    content = "".join("".join(block.lines) for block in blocks if block.is_joined(margin)).replace(" ", "")
    is_prose = (
        sum(each.count(False) for each in long) <= MOST_NOT_FULL_SHARE * max(sum(map(len, long)) - FULL_BREAKS, 0)
        and max(starts.values()) <= max(MOST_EQUAL_STARTS * len(breaks), 2)
        and clause_ends <= max(MOST_SENTENCE_SHARE * len(breaks), 2)
        and sum(letter.islower() for letter in with_case) >= LEAST_SMALL_SHARE * len(with_case)
        and len(_SYMBOL.findall(content)) <= MOST_SYMBOL_SHARE * len(content)
        and words >= LEAST_WORDS * len(breaks)
        and (not with_case or words <= MOST_CLAUSE_WORDS * marks)
        and 2 * len(content) > len("".join(text.split()))
        and code_share(text) <= MOST_CODE_SHARE
    )
    return margin if is_prose else None

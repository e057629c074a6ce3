"""Convert reStructuredText to blocks, line by line.

docutils knows Sphinx's roles and directives only within a Sphinx project, and needs seconds for a megabyte. This reader
keeps what the rendered page shows as prose and skips what it cannot know.
"""

import re
from collections.abc import Generator, Iterator
from itertools import takewhile

from sluice.data.extraction.blocks import LINE_END, Block, Code, Heading, ListItem, Paragraph, paragraph
from sluice.data.extraction.directives import Treatment, argument_is_version, label_of, treatment_of
from sluice.data.extraction.inline import plain_words
from sluice.data.extraction.tables import grid_table, is_grid_border, is_simple_border, simple_table

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*\Z")
_DIRECTIVE = re.compile(
    r"\.\. +(?:\|(?P<substitution>[^|]+)\| +)?(?P<name>[A-Za-z][\w:.+-]*?) ?::(?:\s+(?P<argument>.*))?\Z"
)
_TARGET = re.compile(r"\.\. _`?([^`:]+)`?:\Z")
_FOOTNOTE = re.compile(r"\.\. +\[(?P<label>[^\]]+)\] *(?P<text>.*)\Z")
_BULLET = re.compile(r"[-*+•‣⁃](?: +|\Z)")
_ENUMERATOR = re.compile(r"(?:\(?(?:\d{1,3}|[A-Za-z]|[ivxl]{2,5}|#)[.)])(?: +|\Z)")
_FIELD = re.compile(r":(?P<name>(?![:\s])[^:`]+(?<!\s)):(?:\s+(?P<value>.*)|\Z)")
_OPTION = re.compile(r":[\w-]+:(?:\s|\Z)")
_DOCTEST = re.compile(r">>> ")
# Markers by which SQLAlchemy's documentation folds the SQL of a console session.
_CODE_MARKERS = re.compile(r"\{(?:execsql|printsql|opensql|stop|sql)\}")
_PARAMETER_FIELDS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "var", "ivar", "cvar"})
_RESULT_FIELDS = {"return": "Returns", "returns": "Returns", "raises": "Raises", "raise": "Raises", "yields": "Yields"}
_SILENT_FIELDS = frozenset({"type", "rtype", "vartype", "orphan", "tocdepth", "nosearch", "meta", "canonical"})
_MAX_DEPTH = 12
_LONGEST_INSERTED = 200
"""Characters of a text that may replace a short mark many times: the title of a label, a substitution."""


def rst_blocks(text: str) -> list[Block]:
    """Return the blocks of one reStructuredText document in reading order."""
    lines = [line.rstrip() for line in text.expandtabs(8).splitlines()]
    return list(_Reader(lines).blocks(lines, nesting=0))


class _Reader:
    """State of the document: the order of title styles, the substitutions and the labels."""

    def __init__(self, lines: list[str]) -> None:
        self.styles: list[tuple[str, bool]] = []
        self.level = 0
        self.substitutions: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        waiting: list[str] = []
        # Labels (`.. _label:`) before titles.
        for i, line in enumerate(lines):
            target = _TARGET.match(line)
            if target:
                waiting.append(target[1].lower())
            elif line and waiting:
                if (title := _title(lines, i)) and len(title[0]) <= _LONGEST_INSERTED:
                    self.labels.update(dict.fromkeys(waiting, plain_words(title[0], {})))
                waiting = []
        for line in lines:
            match = _DIRECTIVE.match(line.lstrip())
            if match and match["substitution"] and match["name"] == "replace":
                replacement = match["argument"] or ""
                if len(replacement) <= _LONGEST_INSERTED:
                    self.substitutions[match["substitution"]] = plain_words(replacement, {})

    def words(self, text: str) -> str:
        return plain_words(text, self.substitutions, self.labels)

    def blocks(self, lines: list[str], nesting: int) -> Iterator[Block]:
        """Yield the blocks of `lines`, which are dedented to their container's margin."""
        i = 0
        while i < len(lines):
            line = lines[i]
            if not line or nesting > _MAX_DEPTH:
                i += 1
            elif line.startswith(" "):
                quoted, i = _indented(lines, i)
                yield from self.blocks(_dedent(quoted), nesting + 1)
            elif title := _title(lines, i):
                text, style, taken = title
                if style not in self.styles:
                    self.styles.append(style)
                self.level = self.styles.index(style) + 1
                yield Heading(self.level, self.words(text))
                i += taken
            elif _ADORNMENT.match(line) and len(line) >= 4 and not line.startswith("::"):
                i += 1
            else:
                i = yield from self._body_block(lines, i, nesting)

    def _body_block(self, lines: list[str], i: int, nesting: int) -> Generator[Block, None, int]:
        """Yield the blocks that start unindented at line i; return the line after them."""
        line = lines[i]
        if line == ".." or line.startswith((".. ", "__ ")):
            return (yield from self._explicit(lines, i, nesting))
        if is_grid_border(line) or is_simple_border(line):
            rows, end = (grid_table if line.startswith("+") else simple_table)(lines, i)
            yield from (ListItem(self.words(row)) for row in rows)
            return end
        if _DOCTEST.match(line):
            end = next((k for k in range(i, len(lines)) if not lines[k]), len(lines))
            yield _code(lines[i:end])
            return end
        marker = _BULLET.match(line) or _ENUMERATOR.match(line)
        following = lines[i + 1] if i + 1 < len(lines) else ""
        # After an item the next line is blank, indented or another item.
        may_follow = not following or bool(_BULLET.match(following) or _ENUMERATOR.match(following))
        if marker and (following.startswith(" ") or (line[marker.end() :].strip() and may_follow)):
            content, end = _indented(lines, i + 1)
            # Continuation lines align with the text; docutils accepts smaller indents with a warning.
            body = [line[marker.end() :], *_dedent(content)]
            yield from _as_item("", list(self.blocks(body, nesting + 1)))
            return end
        if field := _FIELD.match(line):
            return (yield from self._field(lines, i, field, nesting))
        if line.startswith("| "):
            end = next((k for k in range(i, len(lines)) if not lines[k].startswith("|")), len(lines))
            yield paragraph(LINE_END.join(self.words(row.lstrip("| ")) for row in lines[i:end]))
            return max(end, i + 1)
        if following.startswith(" ") and not line.endswith("::"):
            content, end = _indented(lines, i + 1)
            term = self.words(line)
            yield from _as_item(term.rstrip(":") + ":", list(self.blocks(_dedent(content), nesting + 1)))
            return end
        return (yield from self._paragraph(lines, i))

    def _paragraph(self, lines: list[str], i: int) -> Generator[Block, None, int]:
        end = i
        while end < len(lines) and lines[end] and not (end > i and lines[end].startswith(".. ")):
            end += 1
            if lines[end - 1].endswith("::"):
                break
        text = "\n".join(line.strip() for line in lines[i:end])
        literal = text.endswith("::")
        if literal:
            text = text[:-2].rstrip() if text.endswith((" ::", "\n::")) else text[:-1]
        if text.strip(": \n"):
            yield Paragraph(self.words(text))
        if not literal:
            return end
        content, after = _indented(lines, end)
        if content:
            yield _code(_dedent(content))
            return after
        return end

    def _field(self, lines: list[str], i: int, field: re.Match[str], nesting: int) -> Generator[Block, None, int]:
        content, end = _indented(lines, i + 1)
        kind, _, argument = field["name"].partition(" ")
        body = [field["value"] or "", *_dedent(content)]
        blocks = list(self.blocks(body, nesting + 1))
        if kind in _PARAMETER_FIELDS and argument:
            yield from _as_item(f"`{argument.split()[-1]}`:", blocks)
        elif self.styles and kind not in _SILENT_FIELDS and kind not in _RESULT_FIELDS:
            # Before the first title a field describes the file, not its subject.
            yield from _as_item(f"{field['name']}:", blocks)
        elif kind in _RESULT_FIELDS:
            yield from _as_item(f"{_RESULT_FIELDS[kind]}{' ' + argument if argument else ''}:", blocks)
        return end

    def _explicit(self, lines: list[str], i: int, nesting: int) -> Generator[Block, None, int]:
        """Yield the blocks of a directive, footnote, target or comment; return the line after it."""
        content, end = _indented(lines, i + 1)
        directive = _DIRECTIVE.match(lines[i])
        if directive and not directive["substitution"]:
            yield from self._directive(directive["name"].lower(), directive["argument"] or "", content, nesting)
        elif footnote := _FOOTNOTE.match(lines[i]):
            text = "\n".join([footnote["text"], *(line.strip() for line in content)]).strip()
            if text and "://" not in text[:12]:
                yield Paragraph(self.words(text))
        return end

    def _directive(self, name: str, argument: str, content: list[str], nesting: int) -> Iterator[Block]:
        treatment = treatment_of(name)
        if treatment is Treatment.DROP:
            return
        argument, content = _split_options(argument, _dedent(content), several=treatment is Treatment.TITLED)
        if treatment is Treatment.CODE:
            if name == "math" and argument:
                content = [argument, *content]
            if any(content):
                yield _code(content)
        elif treatment is Treatment.LIST_TABLE:
            yield from self._list_table(content, nesting)
        elif treatment is Treatment.TITLED:
            # A signature (of several lines for overloads) is the heading of its description.
            outer = self.level
            if argument:
                self.level = min(outer + 1, 6)
                yield Heading(self.level, self.words(argument))
            yield from self.blocks(content, nesting + 1)
            self.level = outer
        elif treatment is Treatment.LABELLED:
            versioned = argument_is_version(name)
            version, _, rest = argument.partition(" ") if versioned else ("", "", argument)
            body = list(self.blocks([*([rest] if rest else []), *content], nesting + 1))
            label = f"{label_of(name, version)}:"
            # Before the first paragraph; without blocks, it is dropped.
            if body and isinstance(body[0], Paragraph):
                body[0] = Paragraph(f"{label} {body[0].text}")
            elif body:
                yield Paragraph(label)
            yield from body
        else:
            body = list(self.blocks(content, nesting + 1))
            if body and argument and treatment is Treatment.TABBED:
                yield Paragraph(self.words(argument))
            yield from body

    def _list_table(self, content: list[str], nesting: int) -> Iterator[Block]:
        row: list[list[str]] = []
        for line in content:
            marker = re.match(r"(\* +)?- ?(.*)", line.strip())
            if line.startswith("*") and row:
                yield self._row(row)
                row = []
            if marker and (line.startswith("*") or re.match(r" {1,4}- ?", line)):
                row.append([marker[2]])
            elif row and line.strip():
                row[-1].append(line.strip())
        if row:
            yield self._row(row)

    def _row(self, cells: list[list[str]]) -> ListItem:
        return ListItem(self.words(" | ".join(filter(None, ("\n".join(lines).strip() for lines in cells)))))


def _title(lines: list[str], i: int) -> tuple[str, tuple[str, bool], int] | None:
    """Return (text, (adornment, has overline), number of lines) if a section title starts at line i."""
    line = lines[i]
    following = lines[i + 1] if i + 1 < len(lines) else ""
    if _ADORNMENT.match(line) and len(line) >= 3 and i + 2 < len(lines):
        under = lines[i + 2]
        if following.strip() and under[:3] == line[:3] and _ADORNMENT.match(under):
            return following.strip(), (line[0], True), 3
    if (
        len(following) >= 3
        and _ADORNMENT.match(following)
        and not _ADORNMENT.match(line)
        and len(following) >= min(len(line), 60) * 0.6
        and not line.startswith((".. ", "| "))
        and following not in ("::", "...")
    ):
        return line, (following[0], False), 2
    return None


def _indented(lines: list[str], i: int) -> tuple[list[str], int]:
    """Return the indented lines from i on, including blank lines between them, and the line after them."""
    end = last = i
    while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
        end += 1
        if lines[end - 1]:
            last = end
    return lines[i:last], (last if last > i else i)


def _dedent(lines: list[str]) -> list[str]:
    margin = min((len(line) - len(line.lstrip(" ")) for line in lines if line), default=0)
    return [line[margin:] for line in lines]


def _split_options(argument: str, content: list[str], *, several: bool) -> tuple[str, list[str]]:
    """Remove the option lines from the content; lines before the first blank one continue a signature."""
    start = 0
    while start < len(content) and content[start] and _OPTION.match(content[start]):
        start += 1
    signature = [argument]
    if several and not start and argument:
        while start + 1 < len(content) and content[start] and signature[-1].rstrip().endswith(("\\", ",")):
            signature[-1] = signature[-1].rstrip().rstrip("\\")
            signature.append(content[start].strip())
            start += 1
    return " ".join(signature).strip(), content[start:]


def _as_item(lead: str, blocks: list[Block]) -> Iterator[Block]:
    """Yield the blocks as one list item: its first paragraphs on the item's line, the other blocks after it."""
    text = [lead] if lead else []
    text.extend(block.text for block in takewhile(lambda block: isinstance(block, Paragraph), blocks))
    rest = blocks[len(text) - bool(lead) :]
    if lead and len(text) == 1:
        yield Paragraph(lead)  # A lead before a list or code introduces it and is no item.
    elif text:
        yield ListItem(" ".join(text))
    yield from rest


def _code(lines: list[str]) -> Code:
    return Code("\n".join(_CODE_MARKERS.sub("", line) for line in lines).strip("\n"))

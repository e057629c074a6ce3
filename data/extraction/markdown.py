"""Convert Markdown (CommonMark, tables, MyST's fenced directives) to blocks with markdown-it."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from sluice.data.extraction.blocks import LINE_END, Block, Code, Heading, ListItem, Paragraph, paragraph
from sluice.data.extraction.directives import Treatment, label_of, treatment_of
from sluice.data.extraction.html import html_blocks
from sluice.data.extraction.inline import role_text
from sluice.data.extraction.title import with_title

_PARSER = MarkdownIt("commonmark").enable("table")
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)\n(.*?\n)??\1\n", re.DOTALL)
_TITLE = re.compile(r"""^title\s*[:=][ \t]*(["']?)(.+?)\1[ \t]*$""", re.MULTILINE)
"""Title line of front matter in YAML or TOML."""
_FENCED_DIRECTIVE = re.compile(r"\{(?P<name>[\w:+-]+)\}\s*(?P<argument>.*)")
_OPTION_LINES = re.compile(r"\A(?::[\w-]+:[^\n]*\n?)+|\A---\n.*?\n---\n", re.DOTALL)
_MYST_TARGET = re.compile(r"^\([\w./: -]+\)=$", re.MULTILINE)
_MAX_DEPTH = 12
"""Nesting of directives, whose content is parsed again at each level."""
_MYST_ROLE = re.compile(r"\{([\w:.+-]+)\}\Z")


def markdown_blocks(text: str, nesting: int = 0) -> list[Block]:
    """Return the blocks of one Markdown document, or of a directive's content, in reading order.

    A document without a heading of the first level begins with the title of its front matter.
    """
    front = _FRONT_MATTER.match(text)
    title = _TITLE.search(front[2] or "") if front else None
    body = _MYST_TARGET.sub("", text[front.end() :] if front else text)
    blocks = list(_blocks(_PARSER.parse(body), nesting))
    return with_title(blocks, title[2]) if title else blocks


def _blocks(tokens: list[Token], nesting: int) -> Iterator[Block]:
    heading, item_open, in_cell, cells = 0, False, False, list[str]()
    for token in tokens:
        match token.type:
            case "heading_open":
                heading = int(token.tag[1:])
            case "heading_close":
                heading = 0
            case "list_item_open":
                item_open = True
            case "list_item_close":
                item_open = False
            case "tr_open":
                cells = []
            case "td_open" | "th_open" | "td_close" | "th_close":
                in_cell = token.nesting == 1
            case "tr_close":
                yield ListItem(" | ".join(filter(None, cells)))
            case "fence" | "code_block":
                yield from _fence(token.info.strip(), token.content, nesting)
            case "html_block":
                yield from html_blocks(token.content)
            case "inline":
                text = _inline(token)
                if in_cell:
                    cells.append(text)
                elif heading:
                    yield Heading(heading, text)
                elif item_open:
                    yield ListItem(text)
                    item_open = False
                else:
                    yield paragraph(text)


def _fence(info: str, content: str, nesting: int) -> Iterator[Block]:
    directive = _FENCED_DIRECTIVE.match(info)
    if directive is None or nesting > _MAX_DEPTH:
        yield Code(content.strip("\n"))
        return
    name, argument = directive["name"].lower(), directive["argument"].strip()
    treatment = treatment_of(name)
    content = _OPTION_LINES.sub("", content, count=1)
    if treatment is Treatment.CODE:
        yield Code(content.strip("\n"))
    elif treatment is not Treatment.DROP:
        inner = markdown_blocks(content, nesting + 1)
        label = f"{label_of(name, argument)}:" if treatment is Treatment.LABELLED else argument
        if inner and isinstance(inner[0], Paragraph) and treatment is Treatment.LABELLED:
            inner[0] = Paragraph(f"{label} {inner[0].text}")
        elif label:
            yield Paragraph(label)
        yield from inner


def _inline(token: Token) -> str:
    """Return the words of one inline token: links and emphasis lose their marks, code keeps its backticks."""
    words: list[str] = []
    for child in token.children or []:
        match child.type:
            case "text":
                words.append(child.content)
            case "code_inline":
                # MyST writes a role as its name in braces right before a literal.
                role = _MYST_ROLE.search(words[-1]) if words else None
                if role:
                    words[-1] = words[-1][: role.start()]
                words.append(role_text(role[1], child.content) if role else f"`{child.content}`")
            case "softbreak":
                words.append("\n")
            case "hardbreak":
                words.append(LINE_END)
            case "html_inline" if child.content.lower().startswith("<br"):
                words.append(LINE_END)
    return "".join(words)

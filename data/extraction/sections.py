"""Split a document in the document text contract into sections, each a heading and its text."""

import re
from dataclasses import dataclass

_HEADING = re.compile(r"(#{1,6}) +(\S.*)\Z")


@dataclass(frozen=True)
class Section:
    """A heading and the text under it, up to the next heading of any level."""

    heading: str
    """Without its marks; empty for text before the first heading."""
    body: str
    level: int = 0
    """Number of `#`; 0 for text before the first heading."""


def sections(text: str) -> list[Section]:
    """Return the sections in reading order; a heading directly followed by another has an empty body."""
    found: list[Section] = []
    heading, level, body = "", 0, list[str]()

    def end() -> None:
        content = "\n".join(body).strip("\n")
        if heading or content:
            found.append(Section(heading, content, level))
        body.clear()

    for line in text.split("\n"):
        # Code is indented, so a `#` in the first column is always a heading.
        match = _HEADING.match(line)
        if match:
            end()
            heading, level = match[2], len(match[1])
        else:
            body.append(line)
    end()
    return found

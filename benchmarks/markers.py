"""Generated tables in hand-written pages: the text between `<!-- table:NAME -->` and `<!-- /table -->`."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_TABLE = re.compile(r"<!-- table:(?P<name>[\w-]+) -->\n(?P<text>.*?)<!-- /table -->", re.DOTALL)


def replace_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Write each of `tables` between its markers in `page`. ValueError for a table without markers there."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = with_table(text, name, table, page)
    page.write_text(text, encoding="utf-8")


def with_table(text: str, name: str, table: str, page: Path | str = "the page") -> str:
    """`text` with `table` between the markers of `name`."""
    found = [match for match in _TABLE.finditer(text) if match["name"] == name]
    if len(found) != 1:
        raise ValueError(
            f"{page} has {len(found)} tables {name}: put <!-- table:{name} --> and <!-- /table --> on lines of their "
            "own where the table belongs, once"
        )
    start, end = found[0].span("text")
    return f"{text[:start]}{table.strip()}\n{text[end:]}"


def read_table(page: Path, name: str) -> str:
    """The text between the markers of `name`, or an empty one."""
    tables = {match["name"]: match["text"] for match in _TABLE.finditer(page.read_text(encoding="utf-8"))}
    return tables.get(name, "")


def table_names(text: str) -> list[str]:
    return [match["name"] for match in _TABLE.finditer(text)]


def markdown(head: str, rows: Iterable[Iterable[str]]) -> str:
    """Markdown table; `head` has titles between bars, and ">" before those of columns that are aligned to the right."""
    titles = [title.strip() for title in head.split("|")]
    ruler = ["---:" if title.startswith(">") else "---" for title in titles]
    lines = [[title.removeprefix(">") for title in titles], ruler, *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

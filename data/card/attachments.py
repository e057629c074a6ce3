"""What the tokenizer and the packed shards say of themselves, as tables: all they report, without knowing its keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice.data.card.folder import read_json
from sluice.data.card.numbers import count, label, number

_UNSAID = frozenset({"timings", "shards", "offsets", "files"})
_SMALL = 12
"""Rows of a table on the page; the rest is one row that says how many."""


@dataclass(frozen=True)
class Table:
    """`rows` begin with their name; the cells are text."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Attachment:
    """Figures first, then a table a nested part."""

    figures: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def read_attachment(folder: Path, names: tuple[str, ...]) -> Attachment:
    """The report of another step's folder: the first of `names` there is, or the report inside its manifest.

    ValueError if there is none.
    """
    for name in names:
        found = read_json(folder / name)
        if isinstance(found, dict):
            return describe(found)
    manifest = read_json(folder / "manifest.json")
    if isinstance(manifest, dict) and isinstance(manifest.get("report"), dict):
        return describe(manifest["report"])
    raise ValueError(f"{folder} holds none of {', '.join(names)} or manifest.json: run the step that writes it")


def describe(report: Mapping[str, Any]) -> Attachment:
    """Numbers and words become figures, mappings and lists of mappings become tables; timings are left out."""
    attachment = Attachment()
    for key, value in report.items():
        if key in _UNSAID or value is None:
            continue
        if isinstance(value, Mapping) and value:
            attachment.tables.append(_table(key, {str(name): each for name, each in value.items()}))
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            attachment.tables.append(_table(key, {str(place): each for place, each in enumerate(value, start=1)}))
        elif isinstance(value, bool | int | float | str):
            # A hash tells versions apart by its beginning, and would not fit.
            attachment.figures.append((label(key), str(value)[:12] if key.endswith("sha256") else cell(value)))
    return attachment


def cell(value: Any) -> str:
    """One value as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping | list):
        return count(len(value))
    return str(value)


def _table(title: str, parts: Mapping[str, Any]) -> Table:
    nested = {name: part if isinstance(part, Mapping) else {"value": part} for name, part in parts.items()}
    head = list(dict.fromkeys(key for part in nested.values() for key in part if key not in _UNSAID))
    rows = [[name, *(cell(part.get(key)) for key in head)] for name, part in nested.items()]
    if len(rows) > _SMALL:
        rows = [*rows[: _SMALL - 1], [f"{len(rows) - _SMALL + 1} more", *("" for _ in head)]]
    return Table(label(title), [label(key) for key in head], rows)

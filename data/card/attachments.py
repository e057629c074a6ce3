"""The reports of the tokenizer and pack steps as tables, whatever their keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice.data.card.folder import read_json
from sluice.data.card.numbers import count, label, number

_HIDDEN = frozenset({"timings", "shards", "offsets", "files"})
_SMALL = 12
"""Rows of a table on the page; the others become one row with their number."""


@dataclass(frozen=True)
class Table:
    """A table of text cells; each row begins with its name."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Attachment:
    """Figures, and a table for each nested part."""

    figures: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def read_attachment(folder: Path, names: tuple[str, ...]) -> Attachment:
    """Read the report of another step's folder: the first of `names` that exists, or the one in its manifest.

    Raises ValueError if there is none.
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
    """Turn numbers and strings into figures, mappings and lists of mappings into tables; skip timings."""
    attachment = Attachment()
    for key, value in report.items():
        if key in _HIDDEN or value is None:
            continue
        if isinstance(value, Mapping) and value:
            attachment.tables.append(_table(key, {str(name): each for name, each in value.items()}))
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            attachment.tables.append(_table(key, {str(place): each for place, each in enumerate(value, start=1)}))
        elif isinstance(value, bool | int | float | str):
            # A whole hash would not fit; its prefix tells versions apart.
            attachment.figures.append((label(key), str(value)[:12] if key.endswith("sha256") else cell(value)))
    return attachment


def cell(value: Any) -> str:
    """Format one value as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping | list):
        # Empty where nobody knows: the training split names no sources.
        return count(len(value)) if value else ""
    return str(value)


def _table(title: str, parts: Mapping[str, Any]) -> Table:
    nested = {name: part if isinstance(part, Mapping) else {"value": part} for name, part in parts.items()}
    head = list(dict.fromkeys(key for part in nested.values() for key in part if key not in _HIDDEN))
    rows = [[name, *(cell(part.get(key)) for key in head)] for name, part in nested.items()]
    if len(rows) > _SMALL:
        rows = [*rows[: _SMALL - 1], [f"{len(rows) - _SMALL + 1} more", *("" for _ in head)]]
    return Table(label(title), [label(key) for key in head], rows)

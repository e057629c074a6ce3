"""Read sheets that came back: every line is right, or the file is refused with each line's reason."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sluice.core.failure import RefusedLines
from sluice.model.evaluation.review.record import Better, Rating
from sluice.model.evaluation.review.sheet import FILLED, FORMATS, BlindedItem

RATINGS = {"pass": True, "fail": False}
BETTER = ("first", "second", "tie")

_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_NEEDED = ("id", *FILLED)
_SHOWN_PROBLEMS = 10


class _LineError(Exception):
    """Mistake in a line."""


def read_ratings(path: Path, items: Sequence[BlindedItem]) -> list[Rating]:
    """Read a filled sheet of `items`; lines that nobody filled in are left out.

    ValueError for a sheet of another evaluation, and naming file, line and reason for unknown ids, a rater's second
    rating of an item, and other values than allowed.
    """
    known = {each.id: each for each in items}
    found: dict[tuple[str, str], Rating] = {}
    lines: dict[tuple[str, str], int] = {}
    problems = []
    rows = list(_rows(path))
    if len(rows) > 1 and not any(str(row["id"]).strip() in known for _, row in rows):
        raise ValueError(
            f"{path}: none of its ids is of this evaluation: import it into the one that it was exported of"
        )
    for number, row in rows:
        try:
            rating = _rating(row, known)
            if rating is None:
                continue
            key = (str(row["id"]).strip(), rating.rater)
            if key in found:
                raise _LineError(f"{rating.rater} rated {key[0]} on line {lines[key]} already: remove one")
            found[key], lines[key] = rating, number
        except _LineError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        raise RefusedLines("\n".join(problems[:_SHOWN_PROBLEMS] + ([f"and {more} more lines"] if more > 0 else [])))
    return list(found.values())


def _rating(row: Mapping[str, Any], known: Mapping[str, BlindedItem]) -> Rating | None:
    cells = {name: _cell(row, name) for name in _NEEDED}
    if not any(cells[name] for name in FILLED if name != "rater"):
        return None
    if (blinded := known.get(cells["id"])) is None:
        raise _LineError(f"id {cells['id'] or 'without a value'} is none of this evaluation's: do not change ids")
    if not _RATER.fullmatch(cells["rater"]):
        raise _LineError("rater is a short id of letters and digits, such as r1, and neither a name nor an address")
    two = len(blinded.order) == 2
    passed = {}
    for place, name in enumerate(blinded.order, start=1):
        value = cells[f"rating_{place}"].lower()
        if value not in RATINGS:
            raise _LineError(f"rating_{place} is {value or 'empty'}: write {' or '.join(RATINGS)}")
        passed[name] = RATINGS[value]
    better = cells["better"].lower()
    if two and better not in BETTER:
        raise _LineError(f"better is {better or 'empty'}: write {', '.join(BETTER)}")
    if not two and (better or cells["rating_2"]):
        raise _LineError("there is one answer: leave rating_2 and better empty")
    winners: dict[str, Better] = {"tie": "tie", **dict(zip(BETTER[:2], blinded.order, strict=False))}
    item = blinded.item
    return Rating(item.suite, item.item, cells["rater"], passed, winners[better] if two else None)


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _LineError(f"{name} is {json.dumps(value)}: write text")
    return value.strip()


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows with the number of their first line."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a review is {' or '.join(FORMATS)}, by the file's suffix")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"review {path} cannot be read: {error.strerror or error}; correct the path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it as UTF-8, which spreadsheets offer for CSV") from None
    yield from _json_rows(path, text) if path.suffix == ".jsonl" else _csv_rows(path, text)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: no JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: no JSON object")
        if missing := [name for name in _NEEDED if name not in row]:
            raise ValueError(f"{path}:{number}: no field {missing[0]}: keep all fields of the export")
        yield number, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # a spreadsheet saves with that of its language
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        if missing := [name for name in _NEEDED if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}:1: no column {missing[0]}: keep all columns of the export")
        before = reader.line_num
        for row in reader:
            if None in row:
                raise ValueError(f"{path}:{before + 1}: more cells than columns: quote cells with {separator!r}")
            yield before + 1, row
            before = reader.line_num
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: no CSV ({error})") from None

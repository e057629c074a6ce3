"""JSON lines and CSV: one document a row, its text in one field."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from sluice.data.document import Document
from sluice.data.sources.compression import lines, open_stream
from sluice.data.sources.origin import Limits, Origin, Read, Reject, too_large


def read_json_lines(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read one JSON object a line. Other lines, and those without a string in the text field, are rejects."""
    blank = True
    with open_stream(path, limits, packing) as stream:
        for number, line in lines(stream, limits.document_bytes):
            if line is None:
                yield origin.reject(shown, too_large(limits.document_bytes), number)
            elif line.strip():
                yield _of_line(line, number, shown, origin, limits)
            else:
                continue
            blank = False
    if blank:
        yield origin.reject(shown, "empty")


def _of_line(line: bytes, number: int, shown: str, origin: Origin, limits: Limits) -> Document | Reject:
    try:
        # Only the first line may begin with a byte order mark.
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return origin.reject(shown, "not UTF-8 text", number)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return origin.reject(shown, "line is not a JSON object", number)
    text = row.get(origin.text_field)
    if not isinstance(text, str):
        return origin.reject(shown, no_string(origin.text_field), number)
    # A lone surrogate, which JSON can escape, cannot be encoded in UTF-8.
    if not _encodes(text):
        return origin.reject(shown, "not UTF-8 text", number)
    # A clean document of an earlier build keeps the origin it was first read from.
    metadata, first = row.get("metadata"), None
    if "id" in row and isinstance(metadata, dict):
        names = ("source", "path", "licence", "title")
        known = {name: value for name in names if isinstance(value := metadata.get(name), str) and _encodes(value)}
        first = known if len(known) == len(names) else None
    return origin.of_row(text, shown, number, limits, first)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_csv(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read one document a row; the first row is the header. Numbers count lines, as a field may span several."""
    broken: list[Reject] = []
    before = csv.field_size_limit(limits.document_bytes)  # the module has only this process-wide limit
    try:
        with open_stream(path, limits, packing) as stream:
            texts = _texts(lines(stream, limits.document_bytes), shown, origin, limits, broken)
            rows = csv.reader(texts, delimiter="\t" if ".tsv" in shown.lower() else ",")
            names = next(rows, None)
            if names is None or origin.text_field not in names:
                yield from broken
                yield origin.reject(shown, no_column(origin.text_field))
                return
            place = names.index(origin.text_field)
            while True:
                number = rows.line_num + 1
                try:
                    row = next(rows, None)
                except csv.Error:
                    # An unclosed quote joined the lines up to the limit.
                    yield origin.reject(shown, "row is not CSV", number)
                    continue
                yield from broken
                broken.clear()
                if row is None:
                    return
                if len(row) == len(names):
                    yield origin.of_row(row[place], shown, number, limits)
                elif row:
                    yield origin.reject(shown, "row has another number of fields than the header", number)
    finally:
        csv.field_size_limit(before)


def _texts(
    numbered: Iterator[tuple[int, bytes | None]], shown: str, origin: Origin, limits: Limits, broken: list[Reject]
) -> Iterator[str]:
    for number, line in numbered:
        if line is None:
            broken.append(origin.reject(shown, too_large(limits.document_bytes), number))
            yield "\n"
            continue
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            broken.append(origin.reject(shown, "not UTF-8 text", number))
            yield "\n"


def no_column(field: str, schema: list[str] | None = None) -> str:
    """Describe a missing text column; `schema` is None for CSV, whose first row may be private data."""
    if schema is None:
        return f"no text column `{field}`: set data.text_field"
    shown = ", ".join(schema[:12]) + (", .." if len(schema) > 12 else "")
    return f"no text column `{field}`; columns: {shown or 'none'}; set data.text_field"


def no_string(field: str) -> str:
    return f"no string under `{field}`: set data.text_field"

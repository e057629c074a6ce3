"""JSON lines and CSV: one document a row, its text in one field, other fields as metadata."""

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from inspect import GEN_CLOSED, getgeneratorstate
from pathlib import Path
from typing import NamedTuple

from sluice.data.document import Document
from sluice.data.sources.charset import Recoded
from sluice.data.sources.compression import lines, open_stream
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import Origin, Read, Reject


class RowFile(NamedTuple):
    """An open file of rows: its bytes as UTF-8, and what is known about its encoding."""

    stream: io.BufferedReader
    recoded: Recoded


@contextmanager
def open_table(path: Path, packing: str | None, origin: Origin, limits: Limits) -> Iterator[RowFile]:
    """Open a file of rows in any encoding."""
    with open_stream(path, limits, packing) as stream:
        recoded = Recoded(stream, origin.encoding)
        yield RowFile(io.BufferedReader(recoded, 1 << 18), recoded)


def read_json_lines(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read one JSON object a line. Other lines, and those without a text, are rejects."""
    blank = True
    with open_table(path, packing, origin, limits) as table:
        for number, line in lines(table.stream, limits.document_bytes):
            if line is None:
                yield origin.reject(shown, too_large(limits.document_bytes), number)
            elif line.strip():
                yield _of_line(line, number, shown, origin, limits, table.recoded)
            else:
                continue
            blank = False
    if blank:
        yield origin.reject(shown, "empty")


def _of_line(  # noqa: PLR0917
    line: bytes, number: int, shown: str, origin: Origin, limits: Limits, recoded: Recoded
) -> Document | Reject:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return origin.reject(shown, recoded.doubt, number)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return origin.reject(shown, "line is not a JSON object", number)
    return origin.of_fields(row, shown, number, limits, recoded.encoding)


def read_csv(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read one document a row; the first row is the header. Numbers count lines, as a field may span several."""
    broken: list[Reject] = []
    before = csv.field_size_limit(limits.document_bytes)  # the module has only this process-wide limit
    try:
        with open_table(path, packing, origin, limits) as table:
            texts = _texts(lines(table.stream, limits.document_bytes), shown, origin, limits, broken, table.recoded)
            rows = csv.reader(texts, delimiter=_delimiter(table.stream.peek(), shown, origin))
            names = next(rows, [])
            if names.count(origin.text_field) != 1:
                yield from broken
                missing = origin.text_field not in names
                yield origin.reject(shown, (no_column if missing else several_columns)(origin.text_field))
                return
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
                if getgeneratorstate(texts) == GEN_CLOSED:
                    # The reader looks for the end of a row only within quotes.
                    yield origin.reject(shown, "quote is not closed", number)
                    return
                if len(row) == len(names):
                    # An empty cell is no value.
                    cells = {name: cell for name, cell in zip(names, row, strict=True) if cell}
                    cells.setdefault(origin.text_field, "")
                    yield origin.of_fields(cells, shown, number, limits, table.recoded.encoding)
                elif row:
                    yield origin.reject(shown, "row has another number of fields than the header", number)
    finally:
        csv.field_size_limit(before)


def _delimiter(beginning: bytes, shown: str, origin: Origin) -> str:
    """Return the first of the usual delimiter, `,`, `;` and tab that separates the text column from others."""
    is_tsv = origin.format == "tsv" or (origin.format is None and ".tsv" in shown.lower())
    usual = "\t" if is_tsv else ","
    header = beginning.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
    for delimiter in (usual, ",", ";", "\t"):
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            continue
        if origin.text_field in names:
            return delimiter
    return usual


def _texts(  # noqa: PLR0917
    numbered: Iterator[tuple[int, bytes | None]],
    shown: str,
    origin: Origin,
    limits: Limits,
    broken: list[Reject],
    recoded: Recoded,
) -> Generator[str, None, None]:
    for number, line in numbered:
        if line is None:
            broken.append(origin.reject(shown, too_large(limits.document_bytes), number))
            yield "\n"
            continue
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            broken.append(origin.reject(shown, recoded.doubt, number))
            yield "\n"


def several_columns(field: str) -> str:
    return f"several columns are named `{field}`: rename all but one"


def no_column(field: str, schema: list[str] | None = None) -> str:
    """Describe a missing text column; `schema` is None for CSV, whose first row may be private data."""
    if schema is None:
        return f"no text column `{field}`: set data.text_field"
    shown = ", ".join(schema[:12]) + (", .." if len(schema) > 12 else "")
    return f"no text column `{field}`; columns: {shown or 'none'}; set data.text_field"

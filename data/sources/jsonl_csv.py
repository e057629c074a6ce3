"""JSON lines and CSV: one document a row, its text in one field, other fields as metadata."""

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from inspect import GEN_CLOSED, getgeneratorstate
from pathlib import Path
from typing import NamedTuple

from sluice.data.document import Document
from sluice.data.sources.charset import Recoded
from sluice.data.sources.compression import lines, open_stream
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import Origin, Read, Reject
from sluice.data.sources.ranges import FileRange, line_ranges, open_range

_BUFFER_BYTES = 1 << 18


class RowFile(NamedTuple):
    """An open file of rows, or a range of one: its bytes as UTF-8, and what is known about its encoding."""

    stream: io.BufferedReader
    recoded: Recoded
    first: int = 1
    """Number of the first line of the stream."""


@contextmanager
def open_table(
    path: Path, packing: str | None, origin: Origin, limits: Limits, part: FileRange | None = None
) -> Iterator[RowFile]:
    """Open a file of rows in any encoding, or a range of one, which is UTF-8."""
    if part is not None:
        with open_range(path, part, _BUFFER_BYTES) as lines_of_part:
            yield RowFile(lines_of_part, Recoded(lines_of_part, None), part.first - part.head.count(b"\n"))
        return
    with open_stream(path, limits, packing) as stream:
        recoded = Recoded(stream, origin.encoding)
        yield RowFile(io.BufferedReader(recoded, _BUFFER_BYTES), recoded)


def read_json_lines(  # noqa: PLR0917
    path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits, part: FileRange | None = None
) -> Read:
    """Read one JSON object a line. Other lines, and those without a text, are rejects."""
    blank = True
    with open_table(path, packing, origin, limits, part) as table:
        for number, line in lines(table.stream, limits.document_bytes, table.first):
            if line is None:
                yield origin.reject(shown, too_large(limits.document_bytes), number)
            elif line.strip():
                yield _of_line(line, number, shown, origin, limits, table.recoded)
            else:
                continue
            blank = False
    if blank and part is None:
        yield origin.reject(shown, "empty")


def ranges_of_json_lines(path: Path, _shown: str, origin: Origin, limits: Limits, size_bytes: int) -> list[FileRange]:
    """Cut a file into ranges of whole lines; none if it is read as a whole, being in another encoding or blank."""
    cuts: list[tuple[int, int]] = []
    position, number, blank = 0, 1, True
    with open_table(path, None, origin, limits) as table:
        while block := table.stream.read(size_bytes):
            end = block.rfind(b"\n") + 1
            number += block.count(b"\n")
            if end:
                cuts.append((position + end, number))
            position += len(block)
            blank = blank and block.isspace()
            if not table.recoded.is_utf_8:
                return []
        mark = table.recoded.mark
    if blank:
        return []
    return line_ranges([(mark + offset, line) for offset, line in cuts], mark, mark + position, 1)


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


def read_csv(  # noqa: PLR0917
    path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits, part: FileRange | None = None
) -> Read:
    """Read one document a row; the first row is the header. Numbers count lines, as a field may span several."""
    broken: list[Reject] = []
    with _field_limit(limits.document_bytes), open_table(path, packing, origin, limits, part) as table:
        numbered = lines(table.stream, limits.document_bytes, table.first)
        texts = _texts(numbered, shown, origin, limits, broken, table.recoded)
        rows = csv.reader(texts, delimiter=_delimiter(table.stream.peek(), shown, origin))
        names = _header(rows)
        if names.count(origin.text_field) != 1:
            yield from broken
            missing = origin.text_field not in names
            yield origin.reject(shown, (no_column if missing else several_columns)(origin.text_field))
            return
        while True:
            number = rows.line_num + table.first
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


def ranges_of_csv(path: Path, shown: str, origin: Origin, limits: Limits, size_bytes: int) -> list[FileRange]:
    """Cut a file into ranges of whole rows; none if it is read as a whole, being in another encoding or of no use.

    A quoted field may span lines, and a quote within a field may be a character as any other, so the rows are found by
    reading them.
    """
    with open_table(path, None, origin, limits) as table:
        while table.recoded.is_utf_8 and not table.recoded.decided and table.stream.read(_BUFFER_BYTES):
            pass
        if not table.recoded.is_utf_8:
            return []
    cuts: list[tuple[int, int]] = []
    broken: list[Reject] = []
    with (
        _field_limit(limits.document_bytes),
        io.BufferedReader(path.open("rb", buffering=0), _BUFFER_BYTES) as file,
    ):
        file.seek(table.recoded.mark)
        texts = _texts(lines(file, limits.document_bytes), shown, origin, limits, broken, table.recoded)
        rows = csv.reader(texts, delimiter=_delimiter(file.peek(), shown, origin))
        names, start, first = _header(rows), file.tell(), rows.line_num + 1
        if names.count(origin.text_field) != 1 or broken or start > _BUFFER_BYTES:
            return []
        while True:
            with suppress(csv.Error):
                if next(rows, None) is None:
                    break
            broken.clear()
            if file.tell() - (cuts[-1][0] if cuts else start) >= size_bytes:
                cuts.append((file.tell(), rows.line_num + 1))
        end = file.tell()
        file.seek(table.recoded.mark)
        head = file.read(start - table.recoded.mark)
    return line_ranges(cuts, start, end, first, head)


def _header(rows: Iterator[list[str]]) -> list[str]:
    """Return the names of the columns; none if the first row is not CSV."""
    try:
        return next(rows, [])
    except csv.Error:
        return []


@contextmanager
def _field_limit(size: int) -> Iterator[None]:
    """Limit the fields of CSV files: the module has only this process-wide limit."""
    before = csv.field_size_limit(size)
    try:
        yield
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

"""JSON files: arrays of rows, or objects after one another; read value by value."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sluice.data.sources.compression import Damaged
from sluice.data.sources.jsonl_csv import open_table, ranges_of_json_lines, read_json_lines
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import Origin, Read
from sluice.data.sources.ranges import FileRange

_BLOCK_BYTES = 1 << 18
_BETWEEN = " \t\r\n"


def read_json(  # noqa: PLR0917
    path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits, part: FileRange | None = None
) -> Read:
    """Read one document a value: an object as a row, a string as a text; numbered from 1.

    A file whose first line is an object of its own is read as JSON lines. What follows a fault is not read.
    """
    if part is not None or _is_lines(path, packing, origin, limits):
        yield from read_json_lines(path, packing, shown, origin, limits, part)
        return
    number = 0
    with open_table(path, packing, origin, limits) as table:
        try:
            for number, value in enumerate(_values(table.stream, limits), start=1):
                row = {origin.text_field: value} if isinstance(value, str) else value
                if isinstance(row, dict):
                    yield origin.of_fields(row, shown, number, limits, table.recoded.encoding)
                else:
                    yield origin.reject(shown, "value is not a JSON object", number)
        except Damaged as damage:
            raise Damaged(str(damage), damage.line or number + 1) from damage
    if not number:
        yield origin.reject(shown, "empty")


def ranges_of_json(path: Path, shown: str, origin: Origin, limits: Limits, size_bytes: int) -> list[FileRange]:
    """Cut a file of JSON lines into ranges; none if it is anything else."""
    is_lines = _is_lines(path, None, origin, limits)
    return ranges_of_json_lines(path, shown, origin, limits, size_bytes) if is_lines else []


def _is_lines(path: Path, packing: str | None, origin: Origin, limits: Limits) -> bool:
    with open_table(path, packing, origin, limits) as table:
        line, end, _ = table.stream.peek().lstrip().partition(b"\n")
    try:
        return bool(end) and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _values(stream: io.BufferedReader, limits: Limits) -> Iterator[Any]:
    """Yield the values one after the other, and of an array its members. Raises Damaged at what is no JSON."""
    decoder = json.JSONDecoder()
    text, at, ended, in_array = io.TextIOWrapper(stream, "utf-8"), 0, False, False
    held = ""
    wanted = _BLOCK_BYTES
    while True:
        while at < len(held) and held[at] in _BETWEEN:
            at += 1
        mark = held[at : at + 1]
        if mark == ("]" if in_array else "["):
            in_array, at = not in_array, at + 1
            continue
        if in_array and mark == ",":
            at += 1
            continue
        value, end = None, -1
        if at < len(held):
            try:
                value, end = decoder.raw_decode(held, at)
            except RecursionError:
                raise Damaged("nested too deeply") from None
            except ValueError:
                end = -1
        # A number may go on in the next block.
        if end >= 0 and (ended or end < len(held)):
            yield value
            at, wanted = end, _BLOCK_BYTES
            continue
        if ended:
            if at < len(held) or in_array:
                raise Damaged("not JSON")
            return
        if len(held) - at > 2 * limits.document_bytes + _BLOCK_BYTES:
            raise Damaged(f"a value {too_large(2 * limits.document_bytes)}, or not JSON")
        try:
            block = text.read(wanted)
        except UnicodeDecodeError:
            raise Damaged("not UTF-8 text") from None
        # Each failed attempt reads as much again, so a long value is not decoded over and over.
        wanted = max(wanted, len(held) - at)
        held, at, ended = held[at:] + block, 0, not block

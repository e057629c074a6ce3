"""Convert tables of reStructuredText to lines of text: one row a line, cells separated by ` | `."""

import re
from bisect import bisect_left
from itertools import groupby

_SIMPLE_BORDER = re.compile(r"=+(?: +=+)+\s*\Z")
_SPAN_BORDER = re.compile(r"-+(?: +-+)*\s*\Z")
_GRID_BORDER = re.compile(r"\+[-=+]+\+?\s*\Z")
_Cells = list[list[str]]
"""Lines of text in each cell of a row."""


def is_simple_border(line: str) -> bool:
    return bool(_SIMPLE_BORDER.match(line))


def is_grid_border(line: str) -> bool:
    return bool(_GRID_BORDER.match(line))


def simple_table(lines: list[str], start: int) -> tuple[list[str], int]:
    """Return the rows of the simple table that starts at lines[start], and the line after it.

    Lines of a cell are separated by line breaks.
    """
    columns = [match.start() for match in re.finditer(r"=+", lines[start])]
    end, borders = start + 1, 1
    # Two borders without a header row between them, three with one; a border before a blank line is the last.
    while end < len(lines) and not (is_simple_border(lines[end - 1]) and borders >= 2 and not lines[end].strip()):
        borders += is_simple_border(lines[end])
        end += 1
    rows: list[_Cells] = []
    for line in lines[start + 1 : end]:
        if is_simple_border(line) or (_SPAN_BORDER.match(line) and len(columns) > 1) or not line.strip():
            continue
        # Only the columns that the line reaches, or a wide border would cost its width in every line.
        reached = max(bisect_left(columns, len(line)), 1)
        stops = [*columns[1:reached], len(line) if reached == len(columns) else columns[reached]]
        cells = [line[left:right].strip() for left, right in zip(columns[:reached], stops, strict=True)]
        if cells[0] or not rows:
            rows.append([])
        _continue(rows[-1], cells)
    return [_row(row) for row in rows], end


def grid_table(lines: list[str], start: int) -> tuple[list[str], int]:
    """Return the rows of the grid table that starts at lines[start], and the line after it, as `simple_table`."""
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith(("+", "|"))), len(lines))
    rows = []
    for is_border, group in groupby(lines[start:end], key=is_grid_border):
        if is_border:
            continue
        row: _Cells = []
        for line in group:
            _continue(row, [piece.strip() for piece in line.strip().strip("|").split("|")])
        rows.append(_row(row))
    return rows, end


def _continue(row: _Cells, cells: list[str]) -> None:
    """Append the cells of one line to those of the lines before it."""
    row.extend([] for _ in range(len(cells) - len(row)))
    for lines, text in zip(row, cells, strict=False):
        if text:
            lines.append(text)


def _row(cells: _Cells) -> str:
    return " | ".join("\n".join(lines) for lines in cells if lines)

"""Tables of reStructuredText as lines of text: one row a line, cells parted by ` | `."""

import re
from itertools import groupby

_SIMPLE_BORDER = re.compile(r"=+(?: +=+)+\s*\Z")
_SPAN_BORDER = re.compile(r"-+(?: +-+)*\s*\Z")
_GRID_BORDER = re.compile(r"\+[-=+]+\+?\s*\Z")


def is_simple_border(line: str) -> bool:
    return bool(_SIMPLE_BORDER.match(line))


def is_grid_border(line: str) -> bool:
    return bool(_GRID_BORDER.match(line))


def simple_table(lines: list[str]) -> tuple[list[str], int]:
    """Rows of the simple table that starts at lines[0], and how many lines it took."""
    columns = [match.start() for match in re.finditer(r"=+", lines[0])]
    end, borders = 1, 1
    # Two borders without a header row between them, three with one; a border before a blank line is the last.
    while end < len(lines) and not (is_simple_border(lines[end - 1]) and borders >= 2 and not lines[end].strip()):
        borders += is_simple_border(lines[end])
        end += 1
    rows: list[list[str]] = []
    for line in lines[1:end]:
        if is_simple_border(line) or (_SPAN_BORDER.match(line) and len(columns) > 1) or not line.strip():
            continue
        stops = [*columns[1:], max(len(line), columns[-1])]
        cells = [line[start:stop].strip() for start, stop in zip(columns, stops, strict=True)]
        if rows and not cells[0]:
            rows[-1] = [f"{above} {below}".strip() for above, below in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return [_row(cells) for cells in rows], end


def grid_table(lines: list[str]) -> tuple[list[str], int]:
    """Rows of the grid table that starts at lines[0], and how many lines it took."""
    end = next((i for i, line in enumerate(lines) if not line.startswith(("+", "|"))), len(lines))
    rows = []
    for is_border, group in groupby(lines[:end], key=is_grid_border):
        if is_border:
            continue
        cells: list[str] = []
        for line in group:
            pieces = [piece.strip() for piece in line.strip().strip("|").split("|")]
            cells += [""] * (len(pieces) - len(cells))
            cells[: len(pieces)] = [f"{a} {b}".strip() for a, b in zip(cells, pieces, strict=False)]
        rows.append(_row(cells))
    return rows, end


def _row(cells: list[str]) -> str:
    return " | ".join(cell for cell in cells if cell)

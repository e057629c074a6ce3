"""Arrow columns from Python values, and numbers out of them, without pyarrow's own converters.

These import pandas to see whether they were given a frame, which costs every process of a run a second of CPU.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_NUMBERS = {pa.int64(): np.int64, pa.float32(): np.float32, pa.float64(): np.float64}


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; a key that a row lacks is null, and one that the schema lacks is left out."""
    columns = [column_of([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def column_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Strings, booleans or numbers, None for null, as one array of `kind`."""
    valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
    nulls = len(values) - int(np.count_nonzero(valid))
    buffers = [_bits(valid) if nulls else None]
    if pa.types.is_string(kind):
        encoded = [b"" if value is None else value.encode() for value in values]
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=offsets[1:])
        assert offsets[-1] < 2**31, f"{offsets[-1]} bytes are too many for one column of strings"
        buffers += [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    elif pa.types.is_boolean(kind):
        buffers.append(_bits(np.fromiter((bool(value) for value in values), np.bool_, len(values))))
    else:
        known = (0 if value is None else value for value in values)
        buffers.append(pa.py_buffer(np.fromiter(known, _NUMBERS[kind], len(values))))
    return pa.Array.from_buffers(kind, len(values), buffers, nulls)


def numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, [rows]; a missing one is NaN. ValueError for a missing integer."""
    if column.null_count:
        if not pa.types.is_floating(column.type):
            raise ValueError(f"{column.null_count} of {len(column)} numbers are missing: build the folder again")
        column = column.fill_null(math.nan)
    kind = _NUMBERS[column.type]
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    values = [
        np.frombuffer(chunk.buffers()[1], kind)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, kind), *values])


def _bits(flags: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))

"""Parquet: one document a row, its text in one column; only that column is read, a batch at a time."""

from pathlib import Path
from typing import Any

from data.sources.compression import Damaged
from data.sources.records import Limits, Origin, Read, too_large
from data.sources.rows import no_column

_ROWS_AT_ONCE = 256
_FREE_BYTES = 1_000_000


def read_parquet(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Rows are numbered from 1. A file without a column of strings by the text field's name is a reject."""
    import pyarrow
    from pyarrow import parquet

    if packing:
        raise Damaged("Parquet inside another compression: unpack it")
    try:
        # Without these the whole column chunk of a row group is read ahead.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            fault = _fault(file, origin.text_field, limits)
            if fault:
                yield origin.reject(shown, fault)
                return
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[origin.text_field], use_threads=False):
                for value in batch.column(0):
                    number += 1
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError:
                        yield origin.reject(shown, "not UTF-8 text", number)
                        continue
                    yield origin.of_row(text or "", shown, number, limits)
            if not number:
                yield origin.reject(shown, "empty")
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Damaged("damaged Parquet") from error


def _fault(file: Any, field: str, limits: Limits) -> str | None:
    """Why the file is not read at all."""
    import pyarrow

    schema = file.schema_arrow
    if field not in schema.names:
        return no_column(field, schema.names)
    kind = schema.field(field).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        return f"column `{field}` is {kind}, not a string"
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [
        group.column(place)
        for group in groups
        for place in range(group.num_columns)
        if group.column(place).path_in_schema == field
    ]
    packed, unpacked = (
        sum(getattr(chunk, f"total_{kind}_size") for chunk in chunks) for kind in ("compressed", "uncompressed")
    )
    if unpacked > limits.file_bytes:
        return f"{too_large(limits.file_bytes)} as a whole"
    if unpacked > max(_FREE_BYTES, limits.expansion * packed):
        return f"expands more than {limits.expansion:g} times"
    return None

"""Parquet: one document a row, its text in one column; only that column is read, one batch at a time.

A value may occur in thousands of rows and be stored once, in a dictionary or as a prefix of the next. So the rows of a
batch are limited such that the longest possible value, in every row, still takes little memory.
"""

from itertools import chain
from pathlib import Path
from typing import Any

from sluice.data.sources.compression import Damaged
from sluice.data.sources.jsonl_csv import no_column
from sluice.data.sources.origin import Limits, Origin, Read, too_large
from sluice.data.sources.parquet_pages import page_sizes

_MOST_ROWS = 256
_BATCH_BYTES = 1 << 26
_MOST_PAGE_BYTES = 1 << 30
"""Arrow decompresses whole pages. Common writers limit a page to 1 MB, but may first put 1,024 values into it."""
_FREE_BYTES = 1_000_000


def read_parquet(path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits) -> Read:
    """Read one document a row, numbered from 1. A file without the text field as column of strings is a reject."""
    import pyarrow
    from pyarrow import parquet

    if packing:
        raise Damaged("Parquet inside another compression: unpack it")
    try:
        # With the defaults, the whole column chunk of a row group would be read ahead.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            fault = _fault(file, origin.text_field, limits)
            longest = 0 if fault else _largest_page(path, _chunks(file, origin.text_field))
            if longest > _MOST_PAGE_BYTES:
                fault = f"a page {too_large(_MOST_PAGE_BYTES)}"
            if fault:
                yield origin.reject(shown, fault)
                return
            number = 0
            # A column stored as dictionary stays one, and every batch has the whole dictionary.
            is_dictionary = pyarrow.types.is_dictionary(file.schema_arrow.field(origin.text_field).type)
            rows = _MOST_ROWS if is_dictionary else max(1, min(_MOST_ROWS, _BATCH_BYTES // max(longest, 1)))
            for batch in file.iter_batches(rows, columns=[origin.text_field], use_threads=False):
                may_be_long = batch.nbytes > limits.document_bytes
                for value in batch.column(0):
                    number += 1
                    if may_be_long and _size(value) > limits.document_bytes:
                        yield origin.reject(shown, too_large(limits.document_bytes), number)
                        continue
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
    """Return why the file is rejected as a whole; None if it is not."""
    import pyarrow

    schema = file.schema_arrow
    if field not in schema.names:
        return no_column(field, schema.names)
    kind = schema.field(field).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        return f"column `{field}` is {kind}, not a string"
    chunks = _chunks(file, field)
    packed, unpacked = (
        sum(getattr(chunk, f"total_{kind}_size") for chunk in chunks) for kind in ("compressed", "uncompressed")
    )
    if unpacked > limits.file_bytes:
        return f"{too_large(limits.file_bytes)} as a whole"
    if unpacked > max(_FREE_BYTES, limits.expansion * packed):
        return f"expands more than {limits.expansion:g} times"
    return None


def _chunks(file: Any, field: str) -> list[Any]:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    return [
        group.column(place)
        for group in groups
        for place in range(group.num_columns)
        if group.column(place).path_in_schema == field
    ]


def _largest_page(path: Path, chunks: list[Any]) -> int:
    """Return the decompressed bytes of the largest page; without page headers, enough to read rows one by one."""
    with path.open("rb") as file:
        try:
            return max(chain.from_iterable(page_sizes(file, chunk) for chunk in chunks), default=0)
        except ValueError:
            return _BATCH_BYTES


def _size(value: Any) -> int:
    """Return the UTF-8 bytes of a string without converting it to a Python string."""
    value = getattr(value, "value", value)  # the value of a dictionary entry
    content = None if value is None else value.as_buffer()
    return 0 if content is None else content.size

"""Parquet: one document a row, its text in one column; the chosen columns are read, one batch at a time.

A value may occur in thousands of rows and be stored once, in a dictionary or as a prefix of the next. So the rows of a
batch are limited such that the longest possible value, in every row, still takes little memory.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from sluice.data.document import Document
from sluice.data.sources.compression import Damaged
from sluice.data.sources.jsonl_csv import no_column, several_columns
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import LEFT_OUT, Origin, Read, Reject
from sluice.data.sources.parquet_pages import page_sizes
from sluice.data.sources.ranges import FileRange
from sluice.data.sources.row_fields import TURN_FIELDS, FieldChoice, turns_of

_MOST_ROWS = 256
_BATCH_BYTES = 1 << 26
_MOST_PAGE_BYTES = 1 << 30
"""Arrow decompresses whole pages. Common writers limit a page to 1 MB, but may first put 1,024 values into it."""
_FREE_BYTES = 1_000_000
_DAMAGED = "damaged Parquet"


def read_parquet(  # noqa: PLR0917
    path: Path, packing: str | None, shown: str, origin: Origin, limits: Limits, part: FileRange | None = None
) -> Read:
    """Read one document a row, numbered from 1. A file without a column of texts or turns is a reject.

    A row group that is damaged is one reject, and the next one is read.
    """
    import pyarrow
    from pyarrow import parquet, types

    if packing:
        raise Damaged("Parquet inside another compression: unpack it")
    try:
        # With the defaults, the whole column chunk of a row group would be read ahead.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            schema = file.schema_arrow
            twice = {name for name in schema.names if schema.names.count(name) > 1}
            # Columns without a single value, whose type a writer could not infer.
            nothing = {name for name, kind in zip(schema.names, schema.types, strict=True) if types.is_null(kind)}
            turns = [name for name in TURN_FIELDS if name in schema.names and name not in nothing]
            has_text = origin.text_field in schema.names and not (origin.text_field in nothing and turns)
            text = origin.text_field if has_text or not turns else turns[0]
            fault = several_columns(text) if text in twice else _fault(file, path, text, limits)
            if fault is None and not _is_text(schema.field(text).type):
                fault = f"column `{text}` is {schema.field(text).type}, not a string"
            if fault:
                if part is None or part.start == 0:
                    yield origin.reject(shown, fault)
                return
            # A row without a text may have turns.
            known = [chunk.statistics for chunk in _chunks(file, text)]
            has_nulls = not all(each and each.has_null_count and each.null_count == 0 for each in known)
            turns = turns if text not in turns and has_nulls else []
            others = [
                name
                for name in schema.names
                if name not in {text, *twice}
                and (name in turns or _wanted(schema.field(name), origin.fields))
                and not _fault(file, path, name, limits)
            ]
            columns = [text, *others]
            # A column stored as dictionary stays one, and every batch has the whole dictionary.
            is_dictionary = any(pyarrow.types.is_dictionary(schema.field(name).type) for name in columns)
            longest = _largest_page(path, [chunk for name in columns for chunk in _chunks(file, name)])
            rows = _MOST_ROWS if is_dictionary else max(1, min(_MOST_ROWS, _BATCH_BYTES // max(longest, 1)))
            others_in_file = [name for name in dict.fromkeys(schema.names) if name not in {*columns, *nothing}]
            left_out = others_in_file if origin.fields.names is None else []
            following = 1 if part is None else part.first
            for group in range(file.num_row_groups) if part is None else range(part.start, part.end):
                number, following = following, following + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                        for made in _documents(batch, text, others, number, shown, origin, limits):
                            if left_out and isinstance(made, Document):
                                made.metadata[LEFT_OUT] = [*made.metadata.get(LEFT_OUT, []), *left_out]
                            yield made
                        number += batch.num_rows
                except (pyarrow.ArrowException, OSError) as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise
                    yield origin.reject(shown, _DAMAGED, number)
            if not file.metadata.num_rows:
                yield origin.reject(shown, "empty")
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Damaged(_DAMAGED) from error


def _documents(  # noqa: PLR0917
    batch: Any, text: str, others: list[str], number: int, shown: str, origin: Origin, limits: Limits
) -> Iterator[Document | Reject]:
    may_be_long = batch.nbytes > limits.document_bytes
    fields = [batch.column(name) for name in others]
    for place, value in enumerate(batch.column(text)):
        if may_be_long:
            # The UTF-8 bytes, without a conversion to a Python string; of a dictionary's entry, those of its value.
            held = getattr(value, "value", value)
            stored = held.as_buffer() if hasattr(held, "as_buffer") else None
            if stored is not None and stored.size > limits.document_bytes:
                yield origin.reject(shown, too_large(limits.document_bytes), number + place)
                continue
        try:
            content = value.as_py()
        except UnicodeDecodeError:
            yield origin.reject(shown, "not UTF-8 text", number + place)
            continue
        row = {name: _plain(column[place]) for name, column in zip(others, fields, strict=True)}
        if content is not None or turns_of(row) is None:
            row[text] = content or ""
        yield origin.of_fields(row, shown, number + place, limits)


def ranges_of_parquet(path: Path, _shown: str, _origin: Origin, _limits: Limits, size_bytes: int) -> list[FileRange]:
    """Cut a file into ranges of row groups; none if it cannot be opened."""
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = parquet.read_metadata(path)
    except pyarrow.ArrowException:
        return []
    ranges: list[FileRange] = []
    start = size = rows = 0
    first = 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows, size = rows + group.num_rows, size + group.total_byte_size
        if size >= size_bytes or number + 1 == metadata.num_row_groups:
            ranges.append(FileRange(start, number + 1, first, size))
            start, first, rows, size = number + 1, first + rows, 0, 0
    return ranges if first > 1 else []


def _is_text(kind: Any) -> bool:
    """Return whether a column has strings, bytes or lists of turns."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_list(kind) or types.is_large_list(kind):
        return bool(types.is_struct(kind.value_type))
    return any(
        check(kind)
        for check in (
            *(types.is_string, types.is_large_string, types.is_string_view),
            *(types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary),
        )
    )


def _wanted(column: Any, choice: FieldChoice) -> bool:
    from pyarrow import types

    if choice.names is not None:
        return column.name in choice.names or column.name == choice.id_field
    if column.name == "metadata" and types.is_struct(column.type):
        return True  # its own fields count as fields of the row
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    return not (types.is_nested(kind) or types.is_null(kind) or (_is_text(kind) and "binary" in str(kind)))


def _plain(value: Any) -> Any:
    try:
        return value.as_py()
    except (ValueError, ArithmeticError):  # bytes that are no string, a time beyond Python's
        return None


def _fault(file: Any, path: Path, field: str, limits: Limits) -> str | None:
    """Return why a column is not read; None if it is."""
    schema = file.schema_arrow
    if field not in schema.names:
        return no_column(field, schema.names)
    chunks = _chunks(file, field)
    packed, unpacked = (
        sum(getattr(chunk, f"total_{kind}_size") for chunk in chunks) for kind in ("compressed", "uncompressed")
    )
    if unpacked > limits.file_bytes:
        return f"{too_large(limits.file_bytes)} as a whole"
    if unpacked > max(_FREE_BYTES, limits.expansion * packed):
        return f"expands more than {limits.expansion:g} times"
    if _largest_page(path, chunks) > _MOST_PAGE_BYTES:
        return f"a page {too_large(_MOST_PAGE_BYTES)}"
    return None


def _chunks(file: Any, field: str) -> list[Any]:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    return [
        group.column(place)
        for group in groups
        for place in range(group.num_columns)
        if f"{group.column(place).path_in_schema}.".startswith(f"{field}.")
    ]


def _largest_page(path: Path, chunks: list[Any]) -> int:
    """Return the decompressed bytes of the largest page; without page headers, enough to read rows one by one."""
    with path.open("rb") as file:
        try:
            return max(chain.from_iterable(page_sizes(file, chunk) for chunk in chunks), default=0)
        except ValueError:
            return _BATCH_BYTES

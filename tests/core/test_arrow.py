"""Columns as pyarrow's own converters make them, without what these import."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.core.arrow import column_of, numbers, table_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXT),
    (pa.bool_(), st.booleans()),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda each: str(each) if isinstance(each, pa.DataType) else "")
@settings(deadline=None)
@given(data=st.data())
def test_a_column_is_what_pyarrow_makes_of_the_values(kind: pa.DataType, values: Any, data: st.DataObject):
    found = data.draw(st.lists(st.none() | values, max_size=20))
    column = column_of(found, kind)
    column.validate(full=True)
    assert column.equals(pa.array(found, kind))


@settings(deadline=None)
@given(st.lists(st.floats(width=32) | st.none(), max_size=20), st.integers(0, 20))
def test_numbers_come_back_from_slices_and_chunks(values: list[float | None], start: int):
    column = pa.chunked_array([pa.array(values, pa.float32()).slice(start), pa.array(values, pa.float32())])
    expected = np.array([np.nan if value is None else value for value in [*values[start:], *values]], np.float32)
    np.testing.assert_array_equal(numbers(column), expected)


def test_a_missing_integer_is_an_error():
    with pytest.raises(ValueError, match="1 of 2 numbers are missing"):
        numbers(pa.array([1, None], pa.int64()))


def test_rows_become_a_table_of_the_schema():
    schema = pa.schema([("name", pa.string()), ("size", pa.int64())])
    rows = [{"name": "a", "size": 1, "other": 2}, {"size": 3}]
    assert table_of(rows, schema).to_pylist() == [{"name": "a", "size": 1}, {"name": None, "size": 3}]
    assert table_of([], schema).equals(schema.empty_table())


@pytest.mark.process
def test_a_refined_folder_is_written_and_its_card_drawn_without_pandas_or_scipy(tmp_path: Path, root: Path):
    program = f"""
import json, pydoc_data.topics, sys
from pathlib import Path
from sluice.data.build import build
from sluice.data.config import IngestConfig, RefineConfig
text = pydoc_data.topics.topics["compound"]
Path({str(tmp_path / "a.jsonl")!r}).write_text(json.dumps({{"text": text}}) + chr(10))
refine = RefineConfig(workers=1, min_substring_words=64, max_piece_copies=1)
report = build(IngestConfig(sources={str(tmp_path / "a.jsonl")!r}), refine, Path({str(tmp_path / "out")!r}))
assert report.refine.documents_kept == 1
print([name for name in ("pandas", "scipy", "pyarrow.dataset") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

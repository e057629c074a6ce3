"""Fields of rows become metadata, turns become text, and every kind of column and JSON file is read."""

import datetime
import decimal
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from sluice.data.config import IngestConfig
from sluice.data.document import Document, with_fields
from sluice.data.sources.formats import read_file
from sluice.data.sources.ingest import ingest
from sluice.data.sources.limits import Limits
from sluice.data.sources.origin import Origin
from sluice.data.sources.row_fields import FieldChoice, as_turns, render_turns

LIMITS = Limits(10_000, 10**9, 200)
LOCAL = Origin("local")
ROW = {"text": "words", "id": 7, "url": "https://e.org/a", "date": "2024-05-06", "score": 0.5, "ok": True, "none": None}
KEPT = {"id": 7, "url": "https://e.org/a", "date": "2024-05-06", "score": 0.5, "ok": True}


def read(path: Path, content: str | bytes, origin: Origin = LOCAL, limits: Limits = LIMITS) -> list[Any]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_file(path, path.name, origin, limits))


def shown(found: list[Any]) -> list[str]:
    return [each.text if isinstance(each, Document) else f"{each.line}: {each.reason}" for each in found]


def choosing(names: list[str] | None = None, id_field: str | None = None) -> Origin:
    return Origin("local", fields=FieldChoice(None if names is None else tuple(names), id_field))


@pytest.mark.parametrize(
    ("names", "id_field", "expected"),
    [
        (None, None, KEPT),
        ([], None, None),
        (["url", "tags"], None, {"url": "https://e.org/a", "tags": ["a", {"b": 1}]}),
        (["date"], "url", {"date": "2024-05-06", "id": "https://e.org/a"}),
        (None, "url", {**{name: value for name, value in KEPT.items() if name != "url"}, "id": "https://e.org/a"}),
    ],
)
def test_the_plain_fields_of_a_row_or_the_chosen_ones_are_kept(
    tmp_path: Path, names: list[str] | None, id_field: str | None, expected: dict[str, Any] | None
) -> None:
    row = json.dumps({**ROW, "tags": ["a", {"b": 1}], "long": "x" * 2001})
    [document] = read(tmp_path / "a.jsonl", row, choosing(names, id_field))
    assert document.text == "words"
    assert document.metadata.get("fields") == expected
    assert document.metadata.get("left_out", []) == (["tags", "long"] if names is None else [])


def test_an_inner_object_called_metadata_counts_as_fields_as_in_datatrove(tmp_path: Path) -> None:
    row = {"text": "words", "id": "a", "metadata": {"url": "https://e.org", "id": "inner", "deep": {"x": 1}}}
    [document] = read(tmp_path / "a.jsonl", json.dumps(row))
    assert document.metadata["fields"] == {"url": "https://e.org", "id": "a"}
    assert document.metadata["left_out"] == ["deep"]


def test_a_title_of_the_row_is_the_title_of_the_document_and_own_names_are_not_lost(tmp_path: Path) -> None:
    row = {"text": "words", "title": "A title", "source": "theirs", "language": "xx"}
    [document] = read(tmp_path / "a.jsonl", json.dumps(row))
    assert (document.metadata["title"], document.metadata["source"]) == ("A title", "local")
    own = {name: document.metadata[name] for name in ("source", "path", "title")}
    assert with_fields(own, document.metadata["fields"]) == {**own, "row_source": "theirs", "row_language": "xx"}


def test_a_field_that_utf8_cannot_hold_is_left_out_and_counted(tmp_path: Path) -> None:
    row = '{"text": "a", "bad": "\\ud800", "nan": NaN, "big": 123456789012345678901234567890}'
    [document] = read(tmp_path / "a.jsonl", row)
    assert document.metadata["fields"] == {"big": 123456789012345678901234567890}
    assert document.metadata["left_out"] == ["bad", "nan"]


def test_a_column_without_a_name_and_a_name_that_utf8_cannot_hold_are_left_out(tmp_path: Path) -> None:
    [document] = read(tmp_path / "a.csv", ",text,n\n0,words,1\n")
    assert (document.metadata["fields"], document.metadata["left_out"]) == ({"n": "1"}, ["(no name)"])
    [document] = read(tmp_path / "a.jsonl", '{"text": "words", "\\ud800": 1}')
    assert document.metadata["left_out"] == ["\\ud800"]


def test_the_report_counts_fields_by_name(tmp_path: Path) -> None:
    rows = [{"text": "a", "url": "u"}, {"text": "b", "url": "u", "tags": []}, {"text": "c"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "out").mkdir()
    report = ingest(IngestConfig(sources=str(tmp_path / "a.jsonl"), id_field="key"), tmp_path / "out")
    assert report.fields == {"url": 2}
    assert report.fields_left_out == {"key": 3, "tags": 1}


TURNS = [{"role": "user", "content": "How\nmany?"}, {"role": "assistant", "content": "Two."}]
SHAREGPT = [{"from": "human", "value": "How\nmany?"}, {"from": "gpt", "value": "Two."}]
SPOKEN = "user: How\nmany?\n\nassistant: Two."


@pytest.mark.parametrize(
    ("row", "text_field"),
    [
        ({"messages": TURNS, "id": "a"}, "text"),
        ({"conversations": SHAREGPT, "id": "a"}, "text"),
        ({"chat": TURNS, "id": "a"}, "chat"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "How\nmany?"}]}, TURNS[1]], "id": "a"},
            "text",
        ),
        ({"messages": [*TURNS, {"role": "assistant", "content": None, "tool_calls": []}], "id": "a"}, "text"),
    ],
)
def test_turns_are_rendered_and_kept(tmp_path: Path, row: dict[str, Any], text_field: str) -> None:
    [document] = read(tmp_path / "a.jsonl", json.dumps(row), Origin("local", text_field=text_field))
    assert document.text == SPOKEN
    assert document.metadata["fields"]["messages"][:2] == TURNS
    assert document.metadata["fields"]["id"] == "a"


def test_turns_of_no_known_form_are_rejects(tmp_path: Path) -> None:
    rows = [{"messages": ["hello"]}, {"messages": [{"who": "me"}]}, {"messages": []}, {"messages": [{"role": "u"}]}]
    found = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    wrong = "no string under `text`: set data.text_field"
    assert shown(found) == [f"1: {wrong}", f"2: {wrong}", f"3: {wrong}", "4: empty"]
    with_text = json.dumps({"text": "words", "messages": TURNS})
    assert shown(read(tmp_path / "b.jsonl", with_text)) == ["words"]


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text(min_size=1)), min_size=1))
def test_no_turn_with_content_is_lost(turns: list[tuple[str, str]]) -> None:
    parsed = as_turns([{"from": role, "value": content} for role, content in turns])
    assert parsed is not None
    text = render_turns(parsed)
    assert all(f"{role}: {content}" in text for role, content in turns if content.strip())


def test_what_turns_have_beside_their_text_is_counted(tmp_path: Path) -> None:
    picture = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": "x"}]
    turns = [{"role": "user", "content": picture, "name": None}, {"role": "assistant", "tool_calls": [{"id": 1}]}]
    [document] = read(tmp_path / "a.jsonl", json.dumps({"messages": turns}))
    assert document.text == "user: look"
    assert document.metadata["left_out"] == ["messages.content", "messages.tool_calls"]


def test_json_files_are_arrays_single_objects_or_objects_in_a_row(tmp_path: Path) -> None:
    two = [{"text": "one", "id": 1}, {"text": "zwei\n", "id": 2}]
    for content in (json.dumps(two), json.dumps(two, indent=2), "\n".join(map(json.dumps, two))):
        found = read(tmp_path / "a.json", content)
        assert shown(found) == ["one", "zwei\n"]
        assert [each.metadata["fields"]["id"] for each in found] == [1, 2]
        assert found[1].metadata["path"] == "a.json:2"
    arrays = "".join(json.dumps([each]) for each in two)
    assert shown(read(tmp_path / "arrays.json", arrays)) == ["one", "zwei\n"]
    assert shown(read(tmp_path / "more.json", '["one"] and more')) == ["one", "2: not JSON"]
    pretty = "\n".join(json.dumps(each, indent=2) for each in two)
    assert shown(read(tmp_path / "b.json", pretty)) == ["one", "zwei\n"]
    assert shown(read(tmp_path / "c.json", json.dumps({"text": "alone"}, indent=2))) == ["alone"]
    assert shown(read(tmp_path / "d.json", '["one", "two", 3, {"text": "four"}]')) == [
        "one",
        "two",
        "3: value is not a JSON object",
        "four",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"text": "one"}, {"text": ', ["one", "2: not JSON"]),
        ('[{"text": "one"} x {"text": "two"}]', ["one", "2: not JSON"]),
        ("[]", ["None: empty"]),
        (" ", ["None: empty"]),
        ("nonsense", ["1: not JSON"]),
        ("[" * 100_000, ["1: nested too deeply"]),
        ('["' + "x" * 10_001 + '", "ok"]', ["1: larger than 10000 bytes", "ok"]),
        ('["' + "x" * 1_000_000 + '", "ok"]', ["1: a value larger than 20000 bytes, or not JSON"]),
        ('{"name": "config"}', ["1: no string under `text`: set data.text_field"]),
    ],
)
def test_faults_of_json_files_are_rejects(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert shown(read(tmp_path / "a.json", content)) == expected


def test_a_long_array_is_read_across_blocks(tmp_path: Path) -> None:
    texts = [
        random.Random(number).randbytes(random.Random(number).randrange(1, 4000)).hex() + "é" for number in range(300)
    ]
    content = json.dumps([{"text": text} for text in texts], ensure_ascii=False)
    assert shown(read(tmp_path / "a.json", content)) == texts


COLUMNS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
]


def table(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", COLUMNS, ids=str)
def test_every_kind_of_text_column_of_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["one", "zwölf", None, "x" * 10_001], pa.string())
    if kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        texts = pa.array([None if each is None else each.encode() for each in texts.to_pylist()], kind)
    elif kind == pa.string_view():
        texts = pa.array(texts.to_pylist(), kind)
    found = read(tmp_path / "a.parquet", table({"text": texts.cast(kind) if texts.type != kind else texts}))
    assert shown(found) == ["one", "zwölf", "3: empty", "4: larger than 10000 bytes"]


def test_bytes_in_another_encoding_are_decoded_by_the_setting(tmp_path: Path) -> None:
    content = table({"text": pa.array(["Grüße".encode("cp1252"), b"\x00\x01"], pa.binary())})
    assert shown(read(tmp_path / "a.parquet", content, Origin("local", encoding="cp1252"))) == ["Grüße", "2: binary"]


def test_the_columns_of_parquet_beside_the_text_are_fields(tmp_path: Path) -> None:
    noon = datetime.datetime(2024, 5, 6, 12, tzinfo=datetime.UTC)
    content = table(
        {
            "text": ["one", "two"],
            "url": pa.array(["u", None]).dictionary_encode(),
            "n": [1, 2],
            "at": pa.array([noon, None], pa.timestamp("us", "UTC")),
            "price": pa.array([decimal.Decimal("1.50"), None]),
            "tags": [["a"], []],
            "blob": pa.array([b"x", b"y"], pa.binary()),
        }
    )
    first, second = read(tmp_path / "a.parquet", content)
    assert first.metadata["fields"] == {"url": "u", "n": 1, "at": "2024-05-06T12:00:00+00:00", "price": "1.50"}
    assert second.metadata["fields"] == {"n": 2}
    assert first.metadata["left_out"] == ["tags", "blob"]
    first, _ = read(tmp_path / "a.parquet", content, choosing(["tags"], "n"))
    assert first.metadata["fields"] == {"tags": ["a"], "id": "1"}


def test_a_column_of_metadata_counts_as_fields_as_in_datatrove(tmp_path: Path) -> None:
    content = table({"text": ["one"], "id": ["a"], "metadata": [{"url": "u", "tags": ["x"], "n": 1}]})
    [document] = read(tmp_path / "a.parquet", content)
    assert document.metadata["fields"] == {"id": "a", "url": "u", "n": 1}
    assert document.metadata["left_out"] == ["tags"]


def test_parquet_with_turns(tmp_path: Path) -> None:
    content = table({"id": ["a", "b"], "messages": [TURNS, TURNS[:1]]})
    assert shown(read(tmp_path / "a.parquet", content)) == [SPOKEN, "user: How\nmany?"]


def test_a_column_that_is_a_bomb_is_left_out(tmp_path: Path) -> None:
    content = table({"text": ["a", "b"] * 1000, "page": ["y" * 100_000] * 2000})
    found = read(tmp_path / "a.parquet", content)
    assert {each.text for each in found} == {"a", "b"}
    assert all("fields" not in each.metadata and each.metadata["left_out"] == ["page"] for each in found)


@pytest.mark.parametrize("names", [None, [], ["id", "messages"]])
def test_a_row_without_a_text_beside_its_turns_is_read_alike_in_parquet_and_json_lines(
    tmp_path: Path, names: list[str] | None
) -> None:
    rows = [
        {"id": "a", "text": None, "messages": TURNS},
        {"id": "b", "text": "words", "messages": TURNS},
        {"id": "c", "text": "words", "messages": None},
        {"id": "d", "text": "", "messages": TURNS},
    ]
    lines = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)), choosing(names))
    content = table({name: [row[name] for row in rows] for name in ("id", "text", "messages")})
    columns = read(tmp_path / "a.parquet", content, choosing(names))
    assert shown(columns) == shown(lines) == [render_turns(TURNS), "words", "words", "4: empty"]
    for one, other in zip(columns[:3], lines[:3], strict=True):
        assert one.metadata | {"path": ""} == other.metadata | {"path": ""}
    [neither] = read(tmp_path / "b.parquet", table({"text": pa.array([None], pa.string()), "messages": [None]}))
    assert neither.reason == "empty"


def test_a_column_without_a_type_is_no_column(tmp_path: Path) -> None:
    """A writer that saw nulls alone could infer no type."""
    nothing = pa.nulls(2)
    found = read(tmp_path / "a.parquet", table({"id": ["a", "b"], "text": nothing, "messages": [TURNS, TURNS[:1]]}))
    assert shown(found) == [SPOKEN, "user: How\nmany?"]
    assert [each.metadata["fields"]["id"] for each in found] == ["a", "b"]
    assert all("left_out" not in each.metadata for each in found)
    found = read(tmp_path / "b.parquet", table({"text": ["one", "two"], "messages": nothing, "url": nothing}))
    assert shown(found) == ["one", "two"] and all("left_out" not in each.metadata for each in found)
    [alone] = read(tmp_path / "c.parquet", table({"text": nothing, "messages": nothing}))
    assert alone.reason == "column `text` is null, not a string"

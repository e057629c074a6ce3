"""The writer keeps what it is given, masks it, and never takes serving down; the reader reads only what it must."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from sluice.monitoring.traffic.files import read_traffic, scan_traffic, write_traffic
from sluice.monitoring.traffic.record import COLUMNS
from sluice.monitoring.traffic.writer import TrafficWriter


def write_all(folder, records) -> TrafficWriter:
    with TrafficWriter(folder, flush_every_n=16, flush_every_s=60) as writer:
        for record in records:
            writer.write(record)
    return writer


def test_records_come_back_as_written_in_order_of_time(tmp_path, make_traffic):
    records = make_traffic(100)
    writer = write_all(tmp_path, records)
    frame = read_traffic(tmp_path)
    assert (writer.written, writer.lost) == (100, 0)
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["request_id"]) == [record.request_id for record in sorted(records, key=lambda r: r.time)]
    expected = {record.request_id: record for record in records}
    for row in frame.itertuples():
        record = expected[row.request_id]
        assert row.first_token_ms == record.first_token_ms
        assert row.embedding == pytest.approx(record.embedding, abs=1e-6)
        assert (row.status, row.version, row.finish_reason) == (200, "7", record.finish_reason)


def test_files_lie_by_hour_and_version_and_no_temporary_file_stays(tmp_path, make_traffic):
    old = [replace(record, time=1_789_990_000.0) for record in make_traffic(3, prefix="old", version="6")]
    write_all(tmp_path, [*old, *make_traffic(3)])
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert "hour=2026092111/version=6" in folders
    assert all(folder.endswith(("version=6", "version=7")) for folder in folders)
    assert not list(tmp_path.rglob(".*"))


def test_text_is_masked_before_it_reaches_the_disk(tmp_path, make_traffic):
    text = "write to jane.doe@corp-mail.org from 8.8.4.4"
    write_all(tmp_path, make_traffic(1, prompt_text=text, completion_text=text, request_id="jane.doe@corp-mail.org"))
    row = read_traffic(tmp_path).iloc[0]
    assert row["request_id"] == "<EMAIL>"
    assert row["prompt_text"] == row["completion_text"] == "write to <EMAIL> from <IP_ADDRESS>"


def test_many_threads_lose_nothing(tmp_path, make_traffic):
    records = make_traffic(400)
    with TrafficWriter(tmp_path, flush_every_n=7, flush_every_s=60) as writer:
        threads = [
            threading.Thread(target=lambda part=records[start::8]: [writer.write(record) for record in part])
            for start in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(read_traffic(tmp_path)["request_id"]) == sorted(record.request_id for record in records)


def test_flush_puts_on_disk_what_was_written_so_far(tmp_path, make_traffic):
    with TrafficWriter(tmp_path, flush_every_n=1000, flush_every_s=3600) as writer:
        writer.write(make_traffic(1)[0])
        writer.flush()
        assert len(read_traffic(tmp_path)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the machine has no /dev/full")
def test_full_disk_counts_lost_records_and_serving_goes_on(tmp_path, make_traffic, monkeypatch):
    real_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *mode: real_open(Path("/dev/full") if ".parquet." in self.name else self, *mode)
    )
    writer = write_all(tmp_path, make_traffic(40))
    assert (writer.written, writer.lost) == (0, 40)
    assert "No space left" in writer.last_error
    monkeypatch.undo()
    assert write_all(tmp_path, make_traffic(5)).written == 5
    assert len(read_traffic(tmp_path)) == 5


def test_folder_that_cannot_be_made_counts_lost_records(tmp_path, make_traffic):
    (tmp_path / "file").write_text("in the way")
    writer = write_all(tmp_path / "file", make_traffic(3))
    assert (writer.written, writer.lost) == (0, 3)


def test_buffer_has_a_bound_and_a_closed_writer_counts(tmp_path, make_traffic):
    records = make_traffic(12)
    writer = TrafficWriter(tmp_path, flush_every_n=10, flush_every_s=3600, max_buffered=10)
    with writer._disk_lock:  # the disk hangs
        for record in records:
            writer.write(record)
    writer.close()
    assert writer.written + writer.lost == 12
    assert writer.written >= 10
    writer.write(records[0])
    assert writer.lost == 12 - writer.written + 1


def test_only_the_hours_of_the_window_are_opened(tmp_path, make_traffic, now):
    write_all(tmp_path, make_traffic(50))
    other = tmp_path / "hour=2020010100" / "version=7"
    other.mkdir(parents=True)
    (other / "broken.parquet").write_bytes(b"not parquet")
    frame, unreadable = scan_traffic(tmp_path, since=now - 1800, until=now)
    assert unreadable == []
    assert 0 < len(frame) < 50
    assert frame["time"].between(now - 1800, now, inclusive="left").all()


def test_an_unreadable_file_is_named_and_the_rest_is_read(tmp_path, make_traffic):
    write_all(tmp_path, make_traffic(20))
    files = sorted(tmp_path.rglob("*.parquet"))
    broken = files[0].with_name("0.parquet")
    broken.write_bytes(os.urandom(100))
    truncated = files[0].with_name("1.parquet")
    truncated.write_bytes(files[0].read_bytes()[:-50])
    frame, unreadable = scan_traffic(tmp_path)
    assert len(frame) == 20
    assert unreadable == [str(path.relative_to(tmp_path)) for path in (broken, truncated)]


def test_a_file_from_before_a_field_has_its_default(tmp_path, make_traffic):
    write_all(tmp_path, make_traffic(5, wait_ms=7.0))
    for path in tmp_path.rglob("*.parquet"):
        parquet.write_table(parquet.read_table(path, partitioning=None).drop_columns(["wait_ms", "embedding"]), path)
    frame, unreadable = scan_traffic(tmp_path)
    assert (len(frame), unreadable) == (5, [])
    assert frame["wait_ms"].isna().all() and [len(row) for row in frame["embedding"]] == [0] * 5


def test_no_folder_is_no_traffic_and_an_unknown_column_an_error(tmp_path):
    assert read_traffic(tmp_path / "none").empty
    with pytest.raises(ValueError, match=r"unknown traffic columns \['latency'\]"):
        scan_traffic(tmp_path, columns=["latency"])


@pytest.mark.parametrize("fields", [{"version": "../etc"}, {"version": ""}, {"time": float("nan")}])
def test_a_record_that_has_no_place_is_refused(make_traffic, fields):
    with pytest.raises(ValueError, match="must be"):
        make_traffic(1, **fields)


def test_writing_a_frame_again_gives_the_same_bytes(tmp_path, make_traffic):
    write_all(tmp_path / "live", make_traffic(30, error_share=0.2))
    frame = read_traffic(tmp_path / "live")
    for name in ("a", "b"):
        write_traffic(frame, tmp_path / name)
    files = [sorted(path for path in (tmp_path / name).rglob("*.parquet")) for name in ("a", "b")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert read_traffic(tmp_path / "a").drop(columns="embedding").equals(frame.drop(columns="embedding"))

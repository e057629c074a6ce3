"""A monitoring run on traffic from disk: well, drifted, failing, missing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.monitor import assess, monitor, read_window
from sluice.monitoring.reference import save_reference
from sluice.monitoring.traffic.files import read_traffic
from sluice.monitoring.traffic.writer import TrafficWriter

CONFIG = MonitorConfig()


@pytest.fixture
def write(tmp_path):
    def write_all(records):
        with TrafficWriter(tmp_path / "traffic", flush_every_s=60) as writer:
            for record in records:
                writer.write(record)

    return write_all


@pytest.fixture
def look(tmp_path, now):
    def assess_from_disk():
        window = read_window(CONFIG, tmp_path / "traffic", tmp_path / "reference", "7", now=now)
        return assess(CONFIG, window, "7", now=now)

    return assess_from_disk


@pytest.fixture
def run(tmp_path, now, write, make_traffic, look):
    """Version 7: `records` against a healthy reference of 120, itself among the traffic."""

    def assess_records(records):
        write([*make_traffic(120, seed=1, prefix="replay", source="replay"), *records])
        assert save_reference(tmp_path / "traffic", tmp_path / "reference", "7", since=now - 7200) == 120
        return look()

    return assess_records


def outcomes(report):
    return {part.metric: part.outcome for part in (*report.checks, *report.drifts)}


def test_healthy_traffic_is_ok(run, make_traffic):
    report = run(make_traffic(200, seed=2))
    assert report.verdict.outcome == "ok", report.verdict.reason
    assert (report.records, report.reference_records) == (200, 120)
    assert "error rate 0.00% <= 2.00%, n=200" in report.verdict.reason
    assert set(outcomes(report).values()) == {"pass"}
    assert len(report.drifts) == 7


def test_drifted_prompts_alert_and_do_not_roll_back(run, make_traffic):
    report = run(make_traffic(200, seed=2, topic_shift=1.0))
    assert report.verdict.outcome == "alert"
    assert outcomes(report)["embedding"] == outcomes(report)["prompt_tokens"] == "fail"
    assert report.verdict.reason.startswith("embedding: mmd 0.")


def test_errors_roll_back(run, make_traffic):
    report = run(make_traffic(200, seed=2, error_share=0.4))
    assert report.verdict.outcome == "rollback"
    assert "error rate 3" in report.verdict.reason
    assert outcomes(report)["error_rate"] == outcomes(report)["burn_rate_1h"] == "fail"


def test_slow_answers_roll_back(run, make_traffic):
    report = run(make_traffic(200, seed=2, slowness=100))
    assert report.verdict.outcome == "rollback"
    assert "first_token_ms p95" in report.verdict.reason
    assert "> 3000 ms, n=200" in report.verdict.reason


def test_one_answer_without_finite_numbers_rolls_back(run, make_traffic):
    records = make_traffic(200, seed=2)
    report = run([*records[1:], replace(records[0], mean_log_probability=float("nan"))])
    assert report.verdict.outcome == "rollback"
    assert "1 of 200 values of mean_log_probability are NaN or infinite" in report.verdict.reason


def test_no_traffic_at_all_alerts(tmp_path, now):
    out = tmp_path / "out"
    out.mkdir()
    report = monitor(CONFIG, tmp_path / "traffic", tmp_path / "reference", "7", out, now=now)
    assert report.verdict.outcome == "alert"
    assert set(outcomes(report).values()) == {"inconclusive"}
    assert report.evidently.startswith("none")
    assert json.loads((out / "monitoring.json").read_text())["verdict"]["outcome"] == "alert"


def test_only_the_champions_own_requests_in_the_window_count(run, make_traffic, now):
    others = [
        *make_traffic(50, seed=3, version="8", error_share=1.0),
        *make_traffic(50, seed=4, source="smoke", error_share=1.0),
        *make_traffic(50, seed=5, status=400, error="ValueError"),
        *(replace(record, time=now - 25 * 3600) for record in make_traffic(50, seed=6, error_share=1.0)),
    ]
    report = run([*make_traffic(200, seed=2), *others])
    assert report.verdict.outcome == "ok", report.verdict.reason
    assert report.checks[0].n == 200


def test_an_error_after_a_streamed_start_is_a_failure(run, make_traffic):
    report = run(make_traffic(60, seed=2, error="NonFiniteLogits"))
    assert report.checks[0].value == 1.0
    assert report.verdict.outcome == "rollback"


def test_an_embedding_of_another_width_is_a_finding_not_a_crash(run, make_traffic):
    records = make_traffic(100, seed=2)
    report = run([*records[1:], replace(records[0], embedding=[1.0])])
    assert outcomes(report)["embedding"] == "fail"
    assert report.verdict.outcome == "alert"


def test_an_unreadable_file_alerts_and_is_named(run, look, make_traffic, tmp_path):
    run(make_traffic(200, seed=2))
    folder = next((tmp_path / "traffic").rglob("*.parquet")).parent
    (folder / "broken.parquet").write_bytes(b"PAR1")
    report = look()
    assert report.verdict.outcome == "alert"
    assert report.unreadable == [str((folder / "broken.parquet").relative_to(tmp_path / "traffic"))]
    assert "broken.parquet" in report.verdict.reason


def test_the_names_of_the_files_do_not_matter(run, look, make_traffic, tmp_path):
    first = run(make_traffic(60, seed=2))
    for number, file in enumerate(sorted((tmp_path / "traffic").rglob("*.parquet"))):
        file.rename(file.with_name(f"{number}.parquet"))
    assert look() == first


def test_the_reference_holds_numbers_and_no_text(tmp_path, write, make_traffic, now):
    write(make_traffic(10, source="replay", prompt_text="a question", completion_text="an answer"))
    assert save_reference(tmp_path / "traffic", tmp_path / "reference", "7", since=now - 7200) == 10
    frame = read_traffic(tmp_path / "reference")
    assert len(frame) == 10
    assert set(frame["prompt_text"]) == set(frame["completion_text"]) == {""}
    assert np.isfinite(frame["first_token_ms"]).all()


def test_a_later_reference_replaces_that_of_its_version_alone(tmp_path, write, make_traffic, now):
    write(make_traffic(10, source="replay"))
    write(make_traffic(10, source="replay", version="6"))
    write([replace(record, time=now + 7200) for record in make_traffic(10, prefix="later", source="replay")])
    traffic, reference = tmp_path / "traffic", tmp_path / "reference"
    save_reference(traffic, reference, "6", since=now - 7200)
    save_reference(traffic, reference, "7", since=now - 7200, until=now)
    save_reference(traffic, reference, "7", since=now)
    frame = read_traffic(reference)
    assert sorted(frame["version"]) == ["6"] * 10 + ["7"] * 10
    assert all(name.startswith("later") for name in frame.loc[frame["version"] == "7", "request_id"])


def test_permutations_that_could_never_show_drift_are_refused():
    with pytest.raises(ValueError, match=r"permutations 500 can never show drift at drift_alpha 0\.01 over 7 tests"):
        MonitorConfig(permutations=500)

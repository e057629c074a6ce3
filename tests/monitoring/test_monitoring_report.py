"""Evidently's page on real traffic, with every way out of the machine shut."""

import json
import re
import subprocess
import sys
from html import escape

import pytest

from sluice.monitoring.traffic.writer import TrafficWriter

SCRIPT = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **options):
    raise OSError("no way out")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse

from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.monitor import monitor
from sluice.monitoring.reference import save_reference

traffic, now = Path(sys.argv[1]), float(sys.argv[2])
reference, out = traffic.parent / "reference", traffic.parent / "out"
out.mkdir()
save_reference(traffic, reference, "7", since=now - 7200)
report = monitor(MonitorConfig(), traffic, reference, "7", out, now=now)
print(json.dumps(report.model_dump()))
"""


@pytest.fixture
def report_of(tmp_path, root, make_traffic, now):
    def run(records):
        with TrafficWriter(tmp_path / "traffic", flush_every_s=60) as writer:
            for record in [*make_traffic(80, seed=1, prefix="replay", source="replay"), *records]:
                writer.write(record)
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "traffic"), str(now)],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        return json.loads(result.stdout.splitlines()[-1])

    return run


@pytest.mark.process
def test_the_page_holds_every_column_and_needs_no_network(report_of, make_traffic, tmp_path):
    # One column without a value, which Evidently alone would raise on: every answer has one token.
    report = report_of(make_traffic(80, seed=2, completion_tokens=1, per_token_ms=None))
    assert report["evidently"] == "evidently.html"
    page = (tmp_path / "out" / "evidently.html").read_text("utf-8")
    for column in ("prompt_tokens", "completion_tokens", "first_token_ms", "mean_log_probability", "finish_reason"):
        assert column in page
    assert "<script src=" not in page
    # The verdict's own tests, and no others.
    assert "<title>Version 7: " in page
    assert f"<h1>Version 7: {report['verdict']['outcome']}</h1>" in page
    assert escape(report["verdict"]["reason"]) in page
    assert all(escape(test["reason"]) in page for test in [*report["checks"], *report["drifts"]])
    shown = re.findall(
        r"Drift in column '(\w+)'\".*?Data drift (not )?detected\. .*?method: (\w+), .*?score: (.*?)\"", page
    )
    plotted = [drift for drift in report["drifts"] if drift["test"] != "mmd" and drift["value"] is not None]
    assert {name: (bool(no), test, float(score)) for name, no, test, score in shown} == {
        drift["metric"]: (drift["outcome"] == "pass", drift["test"], pytest.approx(drift["value"], abs=1e-3))
        for drift in plotted
    }
    kept = json.loads((tmp_path / "out" / "monitoring.json").read_text("utf-8"))
    assert kept == {key: value for key, value in report.items() if key != "timings"}
    assert report["timings"]["evidently_s"] > 0

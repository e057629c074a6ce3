"""The report of a monitoring run: monitoring.json, and a page of the same tests with Evidently's plots."""

import json
import os
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from sluice.core.check import Check
from sluice.monitoring.alerts import MonitorVerdict
from sluice.monitoring.drift import Drift

EVIDENTLY_FILE = "evidently.html"
JSON_FILE = "monitoring.json"
_PLOTTED = ("ks", "chi2")
"""Tests of one number or one name a record."""


class MonitorReport(BaseModel):
    """The verdict on one window of traffic and everything it rests on."""

    model_config = ConfigDict(frozen=True)

    verdict: MonitorVerdict
    version: str
    since: float
    until: float
    """Epoch seconds; the window is since <= time < until."""
    records: int
    """Records of the version in the window, without smoke tests and those of the reference."""
    classes: dict[str, int]
    """Number of records by class; `answered` and `model_fault` judge the version."""
    reference_records: int
    unreadable: list[str]
    """Traffic files that could not be read."""
    checks: list[Check]
    drifts: list[Drift]
    evidently: str = "none: not written"
    """The page's file name, or why there is none."""
    timings: dict[str, float] = {}
    """Seconds; not part of monitoring.json."""


def write_json(report: MonitorReport, out: Path) -> None:
    """Write monitoring.json: the same traffic at the same time gives the same bytes."""
    content = report.model_dump(exclude={"timings"})
    (out / JSON_FILE).write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8")


def write_page(report: MonitorReport, reference: pd.DataFrame, current: pd.DataFrame, out: Path) -> str:
    """Write the page of a report: its verdict and tests, and Evidently's plots of the columns that were tested.

    Evidently shows the outcomes of the report's own tests and makes none. Returns the page's file name, or why there is
    none.
    """
    tested = [drift for drift in report.drifts if drift.value is not None and drift.test in _PLOTTED]
    if not tested:
        return "none: no drift test of a column could be made"
    # Evidently takes seconds to import, and reports its use unless this is set before.
    os.environ["DO_NOT_TRACK"] = "1"
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift

    def outcome_of(drift: Drift) -> str:
        """Register the outcome of one test under a name that Evidently looks up."""
        test = StatTest(
            name=f"sluice_{drift.metric}",
            display_name=f"{drift.test}, corrected p-value",
            allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
            default_threshold=drift.bound,
        )
        register_stattest(test, default_impl=lambda *_: (drift.value, drift.outcome == "fail"))
        return test.name

    columns = [drift.metric for drift in tested]
    definition = DataDefinition(
        numerical_columns=[drift.metric for drift in tested if drift.test == "ks"],
        categorical_columns=[drift.metric for drift in tested if drift.test == "chi2"],
    )
    snapshot = Report(
        [ValueDrift(column=drift.metric, method=outcome_of(drift), threshold=drift.bound) for drift in tested]
    ).run(
        Dataset.from_pandas(current[columns], definition),
        Dataset.from_pandas(reference[columns], definition),
        timestamp=datetime.fromtimestamp(report.until, UTC),
    )
    page = snapshot.get_html_str(as_iframe=False)
    page = page.replace("<head>", f"<head><title>{_title(report)}</title>", 1)
    page = page.replace("<body>", f"<body>{_summary(report)}", 1)
    (out / EVIDENTLY_FILE).write_text(page, "utf-8")
    return EVIDENTLY_FILE


def _title(report: MonitorReport) -> str:
    return f"Version {escape(report.version)}: {report.verdict.outcome}"


def _summary(report: MonitorReport) -> str:
    """Page with the traffic judged, the verdict, and every check and drift test, as HTML."""
    since, until = (f"{datetime.fromtimestamp(each, UTC):%Y-%m-%d %H:%M:%S}" for each in (report.since, report.until))
    rows = "".join(
        f"<tr><td>{escape(check.metric)}</td><td>{check.outcome}</td><td>{escape(check.reason)}</td></tr>"
        for check in (*report.checks, *report.drifts)
    )
    return (
        f'<main style="font-family: sans-serif; margin: 2rem; max-width: 70rem"><h1>{_title(report)}</h1>'
        f"<p>Traffic from {since} to {until} UTC: {report.records:,} records, compared with "
        f"{report.reference_records:,} of the reference.</p><p>{escape(report.verdict.reason)}</p>"
        f'<table cellpadding="4" style="text-align: left"><tr><th>test</th><th>outcome</th><th>comparison</th></tr>'
        f"{rows}</table></main>"
    )

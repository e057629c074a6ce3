"""One monitoring run: the champion's recent traffic against its objectives and against the reference.

`monitor` reads the window, checks the objectives, tests for drift, decides, and writes the report.
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sluice.core.check import Check
from sluice.core.progress import Progress, no_progress
from sluice.monitoring.alerts import judge
from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.drift import Drift, categorical_drift, correct, embedding_drift, numeric_drift
from sluice.monitoring.report import MonitorReport, write_json, write_page
from sluice.monitoring.slo import burn_rate_slos, error_rate_slo, finite_slo, latency_slo
from sluice.monitoring.traffic.classify import CLASSES, JUDGED, classify
from sluice.monitoring.traffic.files import scan_traffic
from sluice.monitoring.traffic.record import COLUMNS, tested_columns

STEPS = 3


class Window(NamedTuple):
    """Traffic records of one run, [records] each, with their class (`sluice.monitoring.traffic.classify`)."""

    current: pd.DataFrame
    """The champion's in the window, without smoke tests and without the requests of the reference."""
    reference: pd.DataFrame
    unreadable: list[str]
    """Files that could not be read."""


def monitor(
    config: MonitorConfig,
    traffic: Path,
    reference: Path,
    champion: str,
    out: Path,
    *,
    now: float,
    progress: Progress = no_progress,
) -> MonitorReport:
    """Judge the champion's traffic of the last `window_hours` before `now` (epoch seconds) and write the report.

    `traffic` and `reference` are folders of traffic records; `save_reference` writes the reference. Writes
    monitoring.json and evidently.html into `out`.
    """
    started = time.perf_counter()
    progress(0, STEPS, "reading traffic")
    window = read_window(config, traffic, reference, champion, now=now)
    progress(1, STEPS, f"judging {len(window.current)} records of version {champion}")
    report = assess(config, window, champion, now=now)
    judged = time.perf_counter()
    progress(2, STEPS, "writing the Evidently report")
    page = write_page(report, _answered(window.reference), _answered(window.current), out)
    timings = {"judge_s": judged - started, "evidently_s": time.perf_counter() - judged}
    report = report.model_copy(update={"evidently": page, "timings": timings})
    write_json(report, out)
    progress(STEPS, STEPS, f"{report.verdict.outcome}: {report.verdict.reason}")
    return report


def read_window(config: MonitorConfig, traffic: Path, reference: Path, champion: str, *, now: float) -> Window:
    """Read the champion's records with now - window_hours <= time < now, and its reference."""
    scan, frozen = scan_traffic(traffic, now - config.window_hours * 3600, now), scan_traffic(reference)
    baseline = frozen.frame[frozen.frame["version"] == champion]
    ours = (scan.frame["version"] == champion) & (scan.frame["source"] != "smoke")
    current = scan.frame[ours & ~scan.frame["request_id"].isin(baseline["request_id"])]
    unreadable = [*scan.unreadable, *(f"reference/{name}" for name in frozen.unreadable)]
    objective_ms = config.max_first_token_p95_ms
    return Window(with_class(current, objective_ms), with_class(baseline, objective_ms), unreadable)


def assess(config: MonitorConfig, window: Window, champion: str, *, now: float) -> MonitorReport:
    """Decide on a window; nothing is written."""
    checks = check_objectives(window.current, config, now)
    if window.unreadable:
        # There is no such check where every file was read: that alone is no evidence of good traffic.
        count, named = len(window.unreadable), ", ".join(window.unreadable[:3])
        reason = f"{count} traffic files could not be read > 0: {named}"
        checks.append(
            Check(metric="unreadable_files", value=count, bound=0, n=count, outcome="inconclusive", reason=reason)
        )
    drifts = run_drift_tests(_answered(window.reference), _answered(window.current), config)
    return MonitorReport(
        verdict=judge(checks, drifts, config),
        version=champion,
        since=now - config.window_hours * 3600,
        until=now,
        records=len(window.current),
        classes={name: int((window.current["class"] == name).sum()) for name in CLASSES},
        reference_records=len(window.reference),
        unreadable=window.unreadable,
        checks=checks,
        drifts=drifts,
    )


def check_objectives(window: pd.DataFrame, config: MonitorConfig, now: float) -> list[Check]:
    """Check error rate, first-token latency, finite numbers and burn rates of the attempts that judge the version."""
    judged = window[window["class"].isin(JUDGED)]
    failed = judged["class"] == "model_fault"
    # An answer without a token has no first token to time; a request without an answer counts as infinitely slow.
    unanswered = (judged["status"] >= 400) | (judged["error"] != "")
    is_timed = unanswered | (judged["completion_tokens"] >= COLUMNS["first_token_ms"].min_tokens)
    first_token_ms = judged["first_token_ms"].where(~unanswered, np.inf)[is_timed]
    scores = _with_value(_answered(judged), "mean_log_probability")
    least, confidence, budget = config.min_records, config.confidence, config.max_error_rate
    checks = [
        error_rate_slo(int(failed.sum()), len(judged), budget, min_requests=least, confidence=confidence),
        latency_slo(first_token_ms, config.max_first_token_p95_ms, min_requests=least, confidence=confidence),
        finite_slo(scores, min_requests=least, name="mean_log_probability"),
    ]
    if budget > 0:
        checks += burn_rate_slos(
            judged["time"], failed, now=now, budget=budget, min_requests=least, confidence=confidence
        )
    return checks


def run_drift_tests(reference: pd.DataFrame, current: pd.DataFrame, config: MonitorConfig) -> list[Drift]:
    """Test every column that declares a drift test, and decide all of them together."""
    least, permutations, seed = config.min_records, config.permutations, config.seed
    tests = [
        embedding_drift(
            name,
            _embeddings(reference[name]),
            _embeddings(current[name]),
            permutations=permutations,
            min_rows=least,
            seed=seed,
            max_rows=config.max_embeddings,
        )
        for name in tested_columns("embedding")
    ]
    tests += [
        numeric_drift(name, _with_value(reference, name), _with_value(current, name), min_rows=least)
        for name in tested_columns("numeric")
    ]
    tests += [
        categorical_drift(
            name, list(reference[name]), list(current[name]), permutations=permutations, min_rows=least, seed=seed
        )
        for name in tested_columns("categorical")
    ]
    return correct(tests, config.drift_alpha)


def with_class(frame: pd.DataFrame, objective_ms: float) -> pd.DataFrame:
    """The records with a column `class`."""
    classes = [
        classify(status, error, first_token_ms=first, wait_ms=wait, queue_ms=queue, objective_ms=objective_ms)
        for status, error, first, wait, queue in zip(
            *(frame[name] for name in ("status", "error", "first_token_ms", "wait_ms", "queue_ms")), strict=True
        )
    ]
    return frame.assign(**{"class": pd.Series(classes, index=frame.index, dtype=object)})


def _answered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["class"] == "answered"]


def _with_value(frame: pd.DataFrame, name: str) -> pd.Series:
    """The column in the rows where it must have a value."""
    return frame.loc[frame["completion_tokens"] >= COLUMNS[name].min_tokens, name]


def _embeddings(column: pd.Series) -> NDArray[np.float64]:
    """[records, width]; a record whose embedding has another width than most is a row of NaN."""
    widths = column.map(len)
    width = int(widths.mode().iloc[0]) if len(widths) else 0
    if width == 0:
        return np.empty((0, 0))
    return np.array([row if len(row) == width else np.full(width, np.nan) for row in column], dtype=np.float64)

"""One monitoring run: the champion's recent traffic against its objectives and against the reference."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sluice.core.check import Check
from sluice.core.progress import Progress, no_progress
from sluice.monitoring.alerts import EMBEDDING, judge
from sluice.monitoring.config import DRIFT_TESTS, MonitorConfig
from sluice.monitoring.drift import Drift, categorical_drift, correct, embedding_drift, numeric_drift
from sluice.monitoring.report import MonitorReport, write_evidently, write_json
from sluice.monitoring.slo import burn_rate_slos, error_rate_slo, finite_slo, latency_slo
from sluice.monitoring.traffic import scan_traffic, write_traffic

NUMERIC = ("prompt_tokens", "completion_tokens", "first_token_ms", "per_token_ms", "mean_log_probability")
CATEGORICAL = ("finish_reason",)
TOKENS_NEEDED = {"first_token_ms": 1, "mean_log_probability": 1, "per_token_ms": 2}
"""Answers of fewer tokens rightly have no such number."""
STEPS = 3
assert 1 + len(NUMERIC) + len(CATEGORICAL) == DRIFT_TESTS


class Window(NamedTuple):
    """What a run reads: traffic records, [records] each."""

    current: pd.DataFrame
    """Of the champion in the window, without smoke tests and without the requests of the reference."""
    reference: pd.DataFrame
    unreadable: list[str]


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
    """Judges the champion's traffic of the last `window_hours` before `now` (epoch seconds) and writes the report.

    `traffic` and `reference` are folders of traffic records; the reference is what `save_reference` froze. Writes
    monitoring.json and evidently.html into `out`.
    """
    started = time.perf_counter()
    progress(0, STEPS, "reading traffic")
    window = read_window(config, traffic, reference, champion, now=now)
    progress(1, STEPS, f"judging {len(window.current)} records of version {champion}")
    report = assess(config, window, champion, now=now)
    judged = time.perf_counter()
    progress(2, STEPS, "writing the Evidently report")
    page = write_evidently(
        _answered(window.reference),
        _answered(window.current),
        out,
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        alpha=config.drift_alpha,
        min_drift_share=config.min_drift_share,
        now=now,
    )
    timings = {"judge_s": judged - started, "evidently_s": time.perf_counter() - judged}
    report = report.model_copy(update={"evidently": page, "timings": timings})
    write_json(report, out)
    progress(STEPS, STEPS, f"{report.verdict.outcome}: {report.verdict.reason}")
    return report


def read_window(config: MonitorConfig, traffic: Path, reference: Path, champion: str, *, now: float) -> Window:
    """The champion's records with now - window_hours <= time < now, and its reference."""
    scan, frozen = scan_traffic(traffic, now - config.window_hours * 3600, now), scan_traffic(reference)
    baseline = frozen.frame[frozen.frame["version"] == champion]
    ours = (scan.frame["version"] == champion) & (scan.frame["source"] != "smoke")
    current = scan.frame[ours & ~scan.frame["request_id"].isin(baseline["request_id"])]
    return Window(current, baseline, [*scan.unreadable, *(f"reference/{name}" for name in frozen.unreadable)])


def assess(config: MonitorConfig, window: Window, champion: str, *, now: float) -> MonitorReport:
    """The verdict on a window and what it rests on; nothing is written."""
    checks = [*_objectives(window.current, config, now), *_readable(window.unreadable)]
    drifts = _drifts(_answered(window.reference), _answered(window.current), config)
    return MonitorReport(
        verdict=judge(checks, drifts, config),
        version=champion,
        since=now - config.window_hours * 3600,
        until=now,
        records=len(window.current),
        reference_records=len(window.reference),
        unreadable=window.unreadable,
        checks=checks,
        drifts=drifts,
    )


def save_reference(
    traffic: Path, out: Path, version: str, since: float, *, until: float | None = None, source: str = "replay"
) -> int:
    """Freezes the version's records of one source with since <= time < until as its reference; returns how many.

    Records that are found replace an earlier reference of the version; those of other versions stay. Text is left
    behind: the reference outlives the traffic, and no test needs it.
    """
    frame = scan_traffic(traffic, since, until).frame
    chosen = frame[(frame["version"] == version) & (frame["source"] == source)]
    written = set(write_traffic(chosen.assign(prompt_text="", completion_text=""), out))
    for file in out.glob(f"hour=*/version={version}/*.parquet"):
        if written and file not in written:
            file.unlink()
    return len(chosen)


def _objectives(window: pd.DataFrame, config: MonitorConfig, now: float) -> list[Check]:
    """Requests refused as the client's mistake (4xx) say nothing of the model and are left out."""
    judged = window[(window["status"] < 400) | (window["status"] >= 500)]
    failed = _failed(judged)
    answered = _answered(judged)
    # An answer without a token has no first one; a failed request never got it.
    timed = judged[failed | (judged["completion_tokens"] >= TOKENS_NEEDED["first_token_ms"])]
    first_token_ms = timed["first_token_ms"].where(~_failed(timed), np.inf)
    scored = answered.loc[
        answered["completion_tokens"] >= TOKENS_NEEDED["mean_log_probability"], "mean_log_probability"
    ]
    least, confidence, budget = config.min_records, config.confidence, config.max_error_rate
    checks = [
        error_rate_slo(int(failed.sum()), len(judged), budget, min_requests=least, confidence=confidence),
        latency_slo(first_token_ms, config.max_first_token_p95_ms, min_requests=least, confidence=confidence),
        finite_slo(scored, min_requests=least, name="mean_log_probability"),
    ]
    if budget > 0:
        checks += burn_rate_slos(
            judged["time"], failed, now=now, budget=budget, min_requests=least, confidence=confidence
        )
    return checks


def _failed(frame: pd.DataFrame) -> pd.Series:
    """An error may also come after a streamed answer began with status 200."""
    return (frame["status"] >= 500) | ((frame["status"] < 400) & (frame["error"] != ""))


def _answered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["status"] < 400) & ~_failed(frame)]


def _drifts(reference: pd.DataFrame, current: pd.DataFrame, config: MonitorConfig) -> list[Drift]:
    least, permutations, seed = config.min_records, config.permutations, config.seed
    drifts = [
        embedding_drift(
            EMBEDDING,
            _embeddings(reference),
            _embeddings(current),
            permutations=permutations,
            min_rows=least,
            seed=seed,
            max_rows=config.max_embeddings,
        )
    ]
    for name in NUMERIC:
        values = (
            side.loc[side["completion_tokens"] >= TOKENS_NEEDED.get(name, 0), name] for side in (reference, current)
        )
        drifts.append(numeric_drift(name, *values, min_rows=least))
    drifts += [
        categorical_drift(
            name, list(reference[name]), list(current[name]), permutations=permutations, min_rows=least, seed=seed
        )
        for name in CATEGORICAL
    ]
    return correct(drifts, config.drift_alpha)


def _embeddings(frame: pd.DataFrame) -> NDArray[np.float64]:
    """[records, width]; a record whose embedding has another width than most is a row of NaN."""
    widths = frame["embedding"].map(len)
    width = int(widths.mode().iloc[0]) if len(widths) else 0
    if width == 0:
        return np.empty((0, 0))
    return np.array(
        [row if len(row) == width else np.full(width, np.nan) for row in frame["embedding"]], dtype=np.float64
    )


def _readable(unreadable: list[str]) -> list[Check]:
    """No check where every file was read: that alone says nothing good of the traffic."""
    if not unreadable:
        return []
    reason = f"{len(unreadable)} traffic files could not be read > 0: {', '.join(unreadable[:3])}"
    count = len(unreadable)
    return [Check(metric="unreadable_files", value=count, bound=0, n=count, outcome="inconclusive", reason=reason)]

"""The report of a monitoring run: monitoring.json, and Evidently's page of the same columns."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from sluice.core.check import Check
from sluice.monitoring.alerts import MonitorVerdict
from sluice.monitoring.drift import Drift

EVIDENTLY_FILE = "evidently.html"
JSON_FILE = "monitoring.json"


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


def write_evidently(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    out: Path,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    alpha: float,
    min_drift_share: float,
    now: float,
) -> str:
    """Write Evidently's drift page over the given columns; return its file name, or why there is none.

    Its tests are ours (Kolmogorov-Smirnov, chi-squared) at alpha over the number of columns: Evidently corrects
    nothing, and the page should not show drift where the verdict finds none. A column without values on a side is left
    out, because Evidently raises on it.
    """
    measured = {
        name for name in (*numeric, *categorical) if reference[name].notna().any() and current[name].notna().any()
    }
    numeric = [name for name in numeric if name in measured]
    categorical = [name for name in categorical if name in measured]
    if not measured:
        return "none: no column has values in both the reference and the window"
    # Evidently takes seconds to import, and reports its use unless this is set before.
    os.environ["DO_NOT_TRACK"] = "1"
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    columns = [*numeric, *categorical]
    preset = DataDriftPreset(
        columns=columns,
        drift_share=min_drift_share,
        num_method="ks",
        cat_method="chisquare",
        threshold=alpha / len(columns),
    )
    snapshot = Report([preset]).run(
        Dataset.from_pandas(current[columns], definition),
        Dataset.from_pandas(reference[columns], definition),
        timestamp=datetime.fromtimestamp(now, UTC),
    )
    snapshot.save_html(str(out / EVIDENTLY_FILE))
    return EVIDENTLY_FILE

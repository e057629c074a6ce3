"""A training run in MLflow: settings, the log of its steps, the result, and metrics of the machine.

MLflow takes seconds to import, so it is imported when a run is tracked.
"""

import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.core.mlflow_artifacts import artifact_files, open_experiment

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_AT_ONCE = 1000
"""Metrics per request: the most that MLflow accepts."""
_SAMPLE_S = 5
_LONGEST_PARAMETER = 500
_ILLEGAL = re.compile(r"[^\w.\- ]|^\.+$|^$")
"""Characters allowed in one part of a metric's name, between slashes; a part may not consist of dots only."""
_LONGEST_NAME = 100


class Tracked:
    """An open MLflow run."""

    def __init__(self, run_id: str, files: "ArtifactRepository") -> None:
        self.run_id, self._files = run_id, files

    def log(self, rows: Sequence[Mapping[str, Any]], prefix: str = "") -> None:
        """Log the numbers of rows by their steps, a metric per key; a nested table gives one per name in it."""
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        now = int(time.time() * 1000)
        metrics = [
            Metric(prefix + name, value, now, int(row["step"])) for row in rows for name, value in numbers(row).items()
        ]
        client = MlflowClient()
        for first in range(0, len(metrics), _AT_ONCE):
            client.log_batch(self.run_id, metrics=metrics[first : first + _AT_ONCE])

    def finish(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log the numbers of the result, and files as artifacts."""
        import mlflow

        mlflow.log_metrics(numbers(result))
        for path in files:
            self._files.log_artifact(str(path))


@contextmanager
def tracked(
    uri: str, experiment: str, name: str, settings: Mapping[str, Any], *, artifacts: str | None = None
) -> Iterator[Tracked]:
    """An MLflow run at `uri`, with the machine's CPU, memory, disk, network and GPU every few seconds and at the end.

    The experiment's artifacts lie below the folder or URI `artifacts`; without one, where MLflow puts them: at the
    server, or in the working directory. The run ends as FAILED where the body raises.
    """
    import mlflow
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    if artifacts is not None:
        open_experiment(mlflow.MlflowClient(), experiment, artifacts, below=experiment)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=name, log_system_metrics=False) as run:
        machine = SystemMetricsMonitor(run.info.run_id, sampling_interval=_SAMPLE_S)
        machine.start()
        try:
            mlflow.log_params(parameters(settings))
            files = artifact_files(run.info.artifact_uri, artifacts or "mlflow-artifacts:/", uri)
            yield Tracked(run.info.run_id, files)
        finally:
            _log_machine(machine)


def _log_machine(machine: Any) -> None:
    """Log a last sample of MLflow's monitor. A failure is only a warning: it must not hide how the run ended."""
    try:
        machine.finish()
        # MLflow drops the samples since it last logged: in a run shorter than an interval, all of them.
        for monitor in machine.monitors:
            monitor.clear_metrics()
        machine.collect_metrics()
        machine.publish_metrics(machine.aggregate_metrics())
        machine.mlflow_logger.flush()
    except Exception as error:
        logging.getLogger(__name__).warning("the machine's last figures are not in MLflow: %s", error)


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a row by name, without the step; those of a nested table or list by `name/key`, as MLflow has it."""
    found: dict[str, float] = {}
    # MLflow accepts few characters: `_` replaces the others, and a digest distinguishes names that become equal.
    legal = [_ILLEGAL.sub("_", str(name))[:_LONGEST_NAME] for name in row]
    same = Counter(legal)
    for key, short, value in zip(row, legal, row.values(), strict=True):
        clashes = short != str(key) and same[short] > 1
        name = f"{short}-{hashlib.sha256(str(key).encode()).hexdigest()[:8]}" if clashes else short
        if name == "step" or isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            found[name] = float(value)
        elif isinstance(value, Mapping):
            found |= {f"{name}/{key}": each for key, each in numbers(value).items()}
        elif isinstance(value, list):
            found |= {
                f"{name}/{key}": each
                for key, each in numbers({str(place): each for place, each in enumerate(value)}).items()
            }
    return found


def parameters(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted name, as text that MLflow accepts."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= parameters(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)[:_LONGEST_PARAMETER]
    return found

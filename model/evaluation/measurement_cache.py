"""Measurements of metrics, kept on disk by model, data, settings and code, so that nothing is measured twice."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from sluice.core.canonical import canonical_json
from sluice.core.check import finite_or_none
from sluice.core.files import atomic_write
from sluice.model.evaluation.metric import Measured
from sluice.model.evaluation.results import Item


class MeasurementCache:
    """A folder of measurements. `about` is all that they depend on beside the metric's name: plain values."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about

    def _path(self, metric: str) -> Path:
        key = hashlib.sha256(canonical_json([metric, self.about])).hexdigest()
        return self.folder / f"{metric}-{key[:32]}.json"

    def get(self, metric: str) -> Measured | None:
        """Return the kept measurement; None where there is none, or one that was damaged or is about something else."""
        try:
            stored = json.loads(self._path(metric).read_bytes())
            if stored["about"] != json.loads(canonical_json(self.about)):
                return None
            if stored["sha256"] != hashlib.sha256(canonical_json(stored["measured"])).hexdigest():
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        found = stored["measured"]
        items = [Item(**{**row, "value": math.nan if row["value"] is None else row["value"]}) for row in found["items"]]
        return Measured(items, found["results"], found["files"], found["timings"])

    def put(self, metric: str, measured: Measured) -> None:
        rows = [
            {**vars(item), "value": finite_or_none(item.value), "metadata": dict(item.metadata)}
            for item in measured.items
        ]
        content = {
            "items": rows,
            "results": dict(measured.results),
            "files": dict(measured.files),
            "timings": dict(measured.timings),
        }
        digest = hashlib.sha256(canonical_json(content)).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path(metric)) as partial:
            partial.write_bytes(canonical_json({"about": self.about, "sha256": digest, "measured": content}))

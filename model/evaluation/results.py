"""The evaluation artifact: aggregates in results.json, and one row per measured item in items.jsonl, for pairing."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sluice.core.canonical import canonical_json
from sluice.core.check import finite_or_none

RESULTS_FILE = "results.json"
ITEMS_FILE = "items.jsonl"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Item:
    """One measured item. A metric is sum(value) / sum(weight): bits over bytes, or correct answers over questions."""

    metric: str
    item: str
    """Hash of the input, so that two models' rows pair only where both got the same."""
    value: float
    """Not finite where the model did not produce a number."""
    weight: float = 1.0
    cluster: str = ""
    """Cluster of items that are alike, such as their document; empty for a cluster of its own."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Properties by which the gate may slice: source, language, task, .."""

    @property
    def unit(self) -> str:
        """The independent unit that this item belongs to."""
        return self.cluster or self.item


@dataclass(frozen=True)
class Evaluation:
    """One model's results, as the gate reads them."""

    results: Mapping[str, Any]
    """Content of results.json."""
    items: Mapping[str, tuple[Item, ...]]
    """Rows by metric."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Timings of the report, which are no part of the artifact because they never repeat."""

    @property
    def hashes(self) -> Mapping[str, str]:
        """sha256 by what it covers: model, tokenizer, data, evaluation_set, items."""
        hashes: Mapping[str, str] = self.results["hashes"]
        return hashes

    def planned(self, metric: str) -> int:
        """Items in the metric's evaluation set. Fewer rows than this is lost data."""
        return int(self.results["planned"].get(metric, 0))

    def with_items(self, metric: str, items: tuple[Item, ...]) -> "Evaluation":
        """Return the same results with other rows for one metric."""
        return replace(self, items={**self.items, metric: items})


def item_lines(items: list[Item]) -> bytes:
    """Encode items.jsonl: rows in the order given, a value that is not finite as null."""
    rows = [
        {
            "metric": i.metric,
            "item": i.item,
            "value": finite_or_none(i.value),
            "weight": i.weight,
            "cluster": i.cluster,
            "metadata": dict(i.metadata),
        }
        for i in items
    ]
    return b"".join(canonical_json(row) + b"\n" for row in rows)


def load_evaluation(folder: Path, timings: Mapping[str, float]) -> Evaluation:
    """Read an evaluation artifact; `timings` are those of its report.

    ValueError where a file is missing, unreadable, or items.jsonl is not the one results.json was made from.
    """
    for name in (RESULTS_FILE, ITEMS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name}; run the evaluate step again")
    rows = (folder / ITEMS_FILE).read_bytes()
    try:
        results = json.loads((folder / RESULTS_FILE).read_bytes())
        version, items_hash = results["schema_version"], dict(results["hashes"]).get("items")
        items: dict[str, list[Item]] = {metric: [] for metric in dict(results["planned"])}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULTS_FILE}: not an evaluation result ({error!r}); evaluate again") from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{folder / RESULTS_FILE}: schema {version}, this version reads {SCHEMA_VERSION}; evaluate again"
        )
    if hashlib.sha256(rows).hexdigest() != items_hash:
        raise ValueError(f"{folder / ITEMS_FILE}: does not match the hash in {RESULTS_FILE}; evaluate again")
    for line in rows.splitlines():
        row = json.loads(line)
        value = math.nan if row["value"] is None else float(row["value"])
        item = Item(row["metric"], row["item"], value, float(row["weight"]), row["cluster"], row["metadata"])
        items.setdefault(item.metric, []).append(item)
    return Evaluation(results, {metric: tuple(found) for metric, found in items.items()}, timings)

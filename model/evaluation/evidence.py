"""What an evaluation leaves behind: aggregates in results.json and one row an item in items.jsonl, for pairing."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

BITS_PER_BYTE = "bits_per_byte"
CHOICE_ACCURACY = "choice_accuracy"
GOLDEN_RATE = "golden_pass_rate"
METRICS = (BITS_PER_BYTE, CHOICE_ACCURACY, GOLDEN_RATE)

RESULTS_FILE = "results.json"
ITEMS_FILE = "items.jsonl"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Item:
    """One measured item. A metric is sum(value) / sum(weight): bits over bytes, or correct answers over questions."""

    metric: str
    item: str
    """Hash of what was asked, so that two models' rows pair only where they answered the same."""
    value: float
    """Not finite where the model did not produce a number."""
    weight: float = 1.0


@dataclass(frozen=True)
class Evaluation:
    """One model's evidence, as the gate reads it."""

    hashes: Mapping[str, str]
    """sha256 by what it covers: model, tokenizer, data, evaluation_set, items."""
    planned: Mapping[str, int]
    """Items the evaluation set holds, by metric. Fewer rows than this is lost data."""
    choices: int
    items: Mapping[str, tuple[Item, ...]]
    first_token_p95_ms: float = math.nan
    first_token_samples: int = 0

    def with_items(self, metric: str, items: tuple[Item, ...]) -> "Evaluation":
        """The same evidence with other rows for one metric."""
        return replace(self, items={**self.items, metric: items})


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: what is not finite is written as null."""
    return float(value) if math.isfinite(value) else None


def canonical_json(value: Any) -> bytes:
    """One rendering for equal values: sorted keys, no spaces, UTF-8, and no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def item_lines(items: list[Item]) -> bytes:
    """items.jsonl: rows in the order given, a value that is not finite as null."""
    rows = [{"metric": i.metric, "item": i.item, "value": finite_or_none(i.value), "weight": i.weight} for i in items]
    return b"".join(canonical_json(row) + b"\n" for row in rows)


def load_evaluation(folder: Path, timings: Mapping[str, float]) -> Evaluation:
    """Read an evaluation artifact; `timings` are those of its report, kept apart because they never repeat.

    ValueError where a file is missing, unreadable, or items.jsonl is not the one results.json was made from.
    """
    for name in (RESULTS_FILE, ITEMS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name}; run the evaluate step again")
    rows = (folder / ITEMS_FILE).read_bytes()
    try:
        results = json.loads((folder / RESULTS_FILE).read_bytes())
        version, hashes = results["schema_version"], dict(results["hashes"])
        planned, choices = dict(results["planned"]), int(results["choices"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULTS_FILE}: not an evaluation result ({error!r}); evaluate again") from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{folder / RESULTS_FILE}: schema {version}, this version reads {SCHEMA_VERSION}; evaluate again"
        )
    if hashlib.sha256(rows).hexdigest() != hashes.get("items"):
        raise ValueError(f"{folder / ITEMS_FILE}: does not match the hash in {RESULTS_FILE}; evaluate again")
    items: dict[str, list[Item]] = {metric: [] for metric in METRICS}
    for line in rows.splitlines():
        row = json.loads(line)
        value = math.nan if row["value"] is None else float(row["value"])
        items.setdefault(row["metric"], []).append(Item(row["metric"], row["item"], value, float(row["weight"])))
    return Evaluation(
        hashes=hashes,
        planned=planned,
        choices=choices,
        items={metric: tuple(found) for metric, found in items.items()},
        first_token_p95_ms=float(timings.get("first_token_p95_ms", math.nan)),
        first_token_samples=int(timings.get("first_token_samples", 0)),
    )

"""Which stored items of a workspace `sluice gc` removes. Pure.

An item is a cache, a former result or a record. One that something needs stays, whatever its age and size; of the
others go the old ones, those that are too large by themselves, then the oldest until the rest is small enough.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DAY_S = 86400.0


@dataclass(frozen=True)
class StoredItem:
    """Files that go or stay together."""

    kind: str
    name: str
    paths: tuple[Path, ...]
    size_bytes: int
    written: float
    """Time at which it was last written, in seconds since the epoch."""
    needed_by: str = ""
    """The reason to keep it; empty if nothing needs it."""


@dataclass(frozen=True)
class GcLimits:
    """Bounds on what nothing needs."""

    max_age_days: float = 14.0
    max_bytes: float = 20e9
    rollback_targets: int = 3
    """Former champions that are needed, the latest ones: a rollback goes to the last of them."""


DEFAULT_LIMITS = GcLimits()


@dataclass(frozen=True)
class GcDecision:
    item: StoredItem
    remove: bool
    reason: str


def decide(items: Iterable[StoredItem], limits: GcLimits, now: float) -> list[GcDecision]:
    """Decide on every item; `now` is in seconds since the epoch."""
    decisions, total, full = [], 0.0, False
    most = f"{limits.max_bytes / 1e9:g} GB"
    # The newest first, so that the oldest are beyond the size.
    for item in sorted(items, key=lambda item: (-item.written, item.kind, item.name)):
        if item.needed_by:
            decisions.append(GcDecision(item, False, item.needed_by))
        elif now - item.written > limits.max_age_days * DAY_S:
            decisions.append(GcDecision(item, True, f"older than {limits.max_age_days:g} days"))
        elif item.size_bytes > limits.max_bytes:
            decisions.append(GcDecision(item, True, f"larger than {most}"))
        elif full := full or total + item.size_bytes > limits.max_bytes:
            decisions.append(GcDecision(item, True, f"the oldest beyond {most}"))
        else:
            total += item.size_bytes
            decisions.append(GcDecision(item, False, f"at most {limits.max_age_days:g} days old"))
    return decisions


def freed_bytes(decisions: Iterable[GcDecision]) -> int:
    return sum(decision.item.size_bytes for decision in decisions if decision.remove)


def count_reasons(decisions: Iterable[GcDecision]) -> str:
    """The reasons with their numbers, the most frequent first: `12 at most 14 days old, 1 champion`."""
    counted = Counter(decision.reason for decision in decisions)
    frequent = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {reason}" for reason, number in frequent)

"""Requests in the gateway's memory, for the rollout's decisions and the page, and Prometheus metrics."""

import math
import uuid
from bisect import bisect_left, insort
from collections import Counter as Counts
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sluice.monitoring.traffic.classify import JUDGED, AttemptClass
from sluice.monitoring.traffic.record import TrafficRecord
from sluice.serving.routing import RouteTable

KEPT_RECORDS = 1_000
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Measurements:
    """Numbers of a version's attempts since the gateway began, those that a fallback hid from users included."""

    version: str
    gateway_id: str
    """Another one means that the gateway, and with it the counts, began anew."""
    counts: dict[str, dict[str, int]]
    """Source of the requests -> class of the attempt (`sluice.monitoring.traffic.classify`) -> number."""
    votes: dict[str, int] = field(default_factory=dict)
    """Users' votes on live answers: `good` and `bad` -> number."""

    def judged(self, *sources: str) -> tuple[int, int]:
        """Return the attempts of these sources (none given: all) that judge the version, and its faults among them."""
        chosen = [classes for source, classes in self.counts.items() if not sources or source in sources]
        return (
            sum(classes.get(name, 0) for classes in chosen for name in JUDGED),
            sum(classes.get("model_fault", 0) for classes in chosen),
        )

    @property
    def requests(self) -> int:
        return self.judged()[0]

    @property
    def errors(self) -> int:
        return self.judged()[1]


class _Window:
    """The newest `size` values, in order of time and of size: a quantile is read, not computed."""

    def __init__(self, size: int) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self.ordered: list[float] = []

    def add(self, value: float | None) -> None:
        if value is None or math.isnan(value):
            return
        if len(self._values) == self._values.maxlen:
            del self.ordered[bisect_left(self.ordered, self._values[0])]
        self._values.append(value)
        insort(self.ordered, value)


class RecentRequests:
    """Totals of each version's attempts by source and class, and the times of its newest `size` that judge it.

    Decisions rest on the totals, which forget nothing; the times are for the page. Reading them costs far less than a
    millisecond, as it holds up the users' requests.
    """

    def __init__(self, size: int = KEPT_RECORDS) -> None:
        self._gateway_id, self._size = uuid.uuid4().hex, size
        self._latencies: defaultdict[str, _Window] = defaultdict(lambda: _Window(size))
        self._first_tokens: defaultdict[str, _Window] = defaultdict(lambda: _Window(size))
        self._timed: defaultdict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=size))
        """By version: time of the request in epoch seconds, and time of the answer per token."""
        self._counts: defaultdict[str, Counts[tuple[str, AttemptClass]]] = defaultdict(Counts)
        self._votes: defaultdict[str, Counts[str]] = defaultdict(Counts)

    def add(self, record: TrafficRecord, attempt_class: AttemptClass) -> None:
        """Count an attempt, and keep the times of one that judges its version."""
        version = record.version
        self._counts[version][record.source, attempt_class] += 1
        if attempt_class not in JUDGED:
            return
        self._first_tokens[version].add(record.first_token_ms)
        if record.status < 400 and not record.error and record.completion_tokens > 0 and record.total_ms is not None:
            latency_ms = record.total_ms / record.completion_tokens
            self._latencies[version].add(latency_ms)
            self._timed[version].append((record.time, latency_ms))

    def add_vote(self, version: str, vote: str) -> None:
        """Count a user's vote, `good` or `bad`."""
        self._votes[version][vote] += 1

    def measurements(self, version: str) -> Measurements:
        """Return the totals of a version."""
        counts: dict[str, dict[str, int]] = {}
        for (source, attempt_class), number in self._counts.get(version, {}).items():
            counts.setdefault(source, {})[attempt_class] = number
        return Measurements(version, self._gateway_id, counts, dict(self._votes.get(version, {})))

    def overview(self, now: float) -> dict[str, dict[str, Any]]:
        """Return counts and quantiles by version: time to the first token, and time of the answer per token.

        `latency_p95_minute_ms` is of the requests that arrived in the last minute before `now`, in epoch seconds.
        """
        found = {}
        for version in sorted(self._counts, key=lambda name: (len(name), name)):
            counted = self.measurements(version)
            total, first = self._latencies[version].ordered, self._first_tokens[version].ordered
            minute = sorted(ms for time, ms in self._timed[version] if time >= now - 60)
            found[version] = {
                "requests": counted.requests,
                "errors": counted.errors,
                "not_judged": sum(self._counts[version].values()) - counted.requests,
                "votes": counted.votes,
                "latency_p50_ms": quantile(total, 0.5),
                "latency_p95_ms": quantile(total, 0.95),
                "latency_p95_minute_ms": quantile(minute, 0.95),
                "first_token_p50_ms": quantile(first, 0.5),
                "first_token_p95_ms": quantile(first, 0.95),
            }
        return found


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank quantile of sorted values: the smallest that `share` do not exceed. None if empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class Exporter:
    """Prometheus metrics of the gateway."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._registry = registry = CollectorRegistry()
        by_version = ("version", "arm")
        self._requests = Counter(
            "sluice_requests", "Attempts to answer.", (*by_version, "source", "status", "class"), registry=registry
        )
        self._errors = Counter("sluice_errors", "Failed attempts.", (*by_version, "error"), registry=registry)
        self._fallbacks = Counter("sluice_fallbacks", "Requests the champion took over.", registry=registry)
        self._tokens = Counter("sluice_tokens", "Tokens.", (*by_version, "kind"), registry=registry)
        self._total = Histogram(
            "sluice_request_seconds", "Time of an answered request.", by_version, buckets=_SECONDS, registry=registry
        )
        self._first_token = Histogram(
            "sluice_first_token_seconds", "Time to the first token.", by_version, buckets=_SECONDS, registry=registry
        )
        self._weight = Gauge("sluice_challenger_weight_percent", "Challenger's share.", registry=registry)
        self._ready = Gauge("sluice_version_ready", "1 for a loaded version.", ("version",), registry=registry)
        self._error = Gauge(
            "sluice_release_error", "1 while the release is not followed, by the reason.", ("kind",), registry=registry
        )
        self._lost = Gauge("sluice_traffic_records_lost", "Records that were not written.", registry=registry)

    def add(self, record: TrafficRecord, attempt_class: AttemptClass) -> None:
        """Count one attempt."""
        labels = (record.version, record.arm)
        self._requests.labels(*labels, record.source, str(record.status), attempt_class).inc()
        if record.error:
            self._errors.labels(*labels, record.error).inc()
        self._tokens.labels(*labels, "prompt").inc(record.prompt_tokens)
        self._tokens.labels(*labels, "completion").inc(record.completion_tokens)
        if record.status < 400 and record.total_ms is not None:
            self._total.labels(*labels).observe(record.total_ms / 1e3)
        if record.first_token_ms is not None:
            self._first_token.labels(*labels).observe(record.first_token_ms / 1e3)

    def add_fallback(self) -> None:
        """Count a request that fell back to the champion."""
        self._fallbacks.inc()

    def text(self, lost_records: int) -> bytes:
        """Return the metrics in Prometheus' text format."""
        self._weight.set(self._routes.current.challenger_weight)
        self._ready.clear()
        for version in self._routes.current.ready:
            self._ready.labels(version).set(1)
        self._error.clear()
        if self._routes.current.error:
            self._error.labels(self._routes.current.error_kind).set(1)
        self._lost.set(lost_records)
        return generate_latest(self._registry)

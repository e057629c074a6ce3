"""Observations of the two arms of a rollout, as totals since it began: all that its decisions need.

A replayed prompt goes to both arms and counts once, by who was bad on it. An answer of the champion is slow if it
exceeds a quantile of the champion's earlier answers to the same prompts, one of the challenger if it exceeds
`slow_factor` times that. The quantile is fixed before the pair is seen. So a challenger that is at most `slow_factor`
times as slow, at every quantile, is the only slow one of a pair at most as often as the champion, however well the
quantile was estimated; and what slows both at once makes neither the only one.
"""

import math
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sluice.monitoring.traffic.classify import JUDGED, AttemptClass
from sluice.serving.config import RolloutConfig

CAUTION = 0.75
"""Standard errors by which the champion's quantile is taken lower than it is estimated."""


@dataclass(frozen=True)
class Pairs:
    """Replayed prompts, by who was bad on them."""

    neither: int = 0
    challenger: int = 0
    """Only the challenger was bad."""
    champion: int = 0
    """Only the champion was bad."""
    both: int = 0

    @property
    def n(self) -> int:
        return self.neither + self.challenger + self.champion + self.both


@dataclass(frozen=True)
class LiveCounts:
    """Live requests of one step that judge a version."""

    weight: int
    """The challenger's percentage of the traffic."""
    challenger: int = 0
    challenger_faults: int = 0
    champion: int = 0
    champion_faults: int = 0


@dataclass(frozen=True)
class Evidence:
    """Totals since the rollout began."""

    errors: Pairs = Pairs()
    first_token: Pairs = Pairs()
    """Slow first tokens, among pairs that both arms answered."""
    between_tokens: Pairs = Pairs()
    """Slow means between later tokens, likewise."""
    live: tuple[LiveCounts, ...] = ()
    """By step."""
    invalid: str = ""
    """A measured time that cannot be one."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        return {**asdict(self), "live": [asdict(step) for step in self.live]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Evidence":
        """Read the values of `as_json`."""
        pairs = {name: Pairs(**values[name]) for name in ("errors", "first_token", "between_tokens")}
        return cls(**pairs, live=tuple(LiveCounts(**step) for step in values["live"]), invalid=values["invalid"])


@dataclass(frozen=True)
class Reply:
    """One arm's own attempt to answer a replayed prompt."""

    attempt_class: AttemptClass
    first_token_ms: float | None = None
    """Time to the first token without the time in the queue; None without an own answer."""
    between_tokens_ms: float | None = None
    """Mean time between later tokens; None for an answer of one token."""


class ReplayTotals:
    """Counts the pairs of replayed prompts. Only the champion's times are kept, sorted."""

    def __init__(self, config: RolloutConfig) -> None:
        self._slow_factor, self._max_slow = config.slow_factor, config.max_slow
        self.not_judged: Counter[str] = Counter()
        """Attempts that judge neither arm, by class. Their prompts are not counted."""
        self._invalid = ""
        # By who was bad, in the order of the fields of `Pairs`.
        self._errors, self._first_token, self._between_tokens = [0] * 4, [0] * 4, [0] * 4
        self._champion_first_ms: list[float] = []
        self._champion_between_ms: list[float] = []

    @property
    def evidence(self) -> Evidence:
        """The totals so far, without live requests."""
        return Evidence(
            Pairs(*self._errors), Pairs(*self._first_token), Pairs(*self._between_tokens), invalid=self._invalid
        )

    def add(self, champion: Reply, challenger: Reply) -> None:
        """Count the replies of both arms to one prompt."""
        unjudged = [reply.attempt_class for reply in (champion, challenger) if reply.attempt_class not in JUDGED]
        if unjudged:
            self.not_judged.update(unjudged)
            return
        challenger_failed, champion_failed = (reply.attempt_class == "model_fault" for reply in (challenger, champion))
        self._errors[challenger_failed + 2 * champion_failed] += 1
        if challenger_failed or champion_failed:
            return
        first = champion.first_token_ms, challenger.first_token_ms
        between = champion.between_tokens_ms, challenger.between_tokens_ms
        self._compare("first_token", self._first_token, self._champion_first_ms, *first)
        if None not in between:
            self._compare("between_tokens", self._between_tokens, self._champion_between_ms, *between)

    def _compare(
        self,
        name: str,
        counts: list[int],
        kept: list[float],
        champion_ms: float | None,
        challenger_ms: float | None,
    ) -> None:
        """Count a pair of times against the quantile of the champion's earlier ones."""
        if not (is_duration(champion_ms) and is_duration(challenger_ms)):
            wrong = challenger_ms if is_duration(champion_ms) else champion_ms
            self._invalid = self._invalid or f"{name} of {wrong} ms is not a measurement"
            return
        assert champion_ms is not None and challenger_ms is not None
        n, share = len(kept), self._max_slow
        # With fewer, less than half a slow answer is expected among them, so they say too little about the quantile.
        if n >= math.ceil(0.5 / share):
            # Somewhat below the estimate: too high a quantile would pass a slow challenger.
            rank = (1 - share) * n - CAUTION * math.sqrt(n * share * (1 - share))
            bound = kept[max(0, math.ceil(rank) - 1)]
            counts[(challenger_ms > self._slow_factor * bound) + 2 * (champion_ms > bound)] += 1
        insort(kept, champion_ms)


def is_duration(value: float | None) -> bool:
    """Return whether a value can be a measured time."""
    return value is not None and math.isfinite(value) and value >= 0

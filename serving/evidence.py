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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from sluice.monitoring.traffic.classify import JUDGED, AttemptClass
from sluice.serving.config import RolloutConfig


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
    challenger_votes: int = 0
    """Votes that arrived in this step for answers to live requests, good and bad."""
    challenger_bad_votes: int = 0
    champion_votes: int = 0
    champion_bad_votes: int = 0


@dataclass(frozen=True)
class Quality:
    """Totals of what was measured of the answers themselves (`sluice.serving.quality`)."""

    parity_different: int = 0
    """Greedy answers of the challenger that differ from those that the gate kept, but for ties."""
    parity_compared: int = 0
    parity_kept: int = 0
    """Answers that the gate kept; 0: none are there to compare with."""
    known: Pairs = Pairs()
    """Golden prompts and suite items, by who was wrong."""
    known_items: int = 0
    """Items that are asked in all."""
    text: Mapping[str, Pairs] = field(default_factory=dict)
    """Kind of difference (`sluice.serving.quality.text.KINDS`) -> replayed prompts, by whose answer has it."""
    judged: Pairs = Pairs()
    """Pairs of answers by whose a judge found worse, in both orders; counted only from a judge that agrees with people.
    """
    notes: tuple[str, ...] = ()
    """Measurements that could not be made, and why."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Quality":
        """Read the values of `dataclasses.asdict`."""
        nested = {
            "known": Pairs(**values.get("known", {})),
            "judged": Pairs(**values.get("judged", {})),
            "text": {kind: Pairs(**pairs) for kind, pairs in values.get("text", {}).items()},
            "notes": tuple(values.get("notes", ())),
        }
        return cls(**{**values, **nested})


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
    quality: Quality = Quality()
    invalid: str = ""
    """A measured time that cannot be one."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        return {**asdict(self), "live": [asdict(step) for step in self.live]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Evidence":
        """Read the values of `as_json`, also those of an earlier version."""
        pairs = {name: Pairs(**values[name]) for name in ("errors", "first_token", "between_tokens")}
        return cls(
            **pairs,
            live=tuple(LiveCounts(**step) for step in values["live"]),
            # Earlier versions measured nothing of the answers.
            quality=Quality.from_json(values.get("quality", {})),
            invalid=values["invalid"],
        )


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

    def __init__(self, config: RolloutConfig, begun: Evidence = Evidence()) -> None:
        """`begun` are the totals to go on from."""
        self._slow_factor, self._max_slow = config.slow_factor, config.max_slow
        self.not_judged: Counter[str] = Counter()
        """Attempts that judge neither arm, by class. Their prompts are not counted."""
        self._invalid = ""
        # By who was bad, in the order of the fields of `Pairs`.
        self._errors, self._first_token, self._between_tokens = (
            list(astuple(pairs)) for pairs in (begun.errors, begun.first_token, begun.between_tokens)
        )
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
        if (bound := quantile_below(kept, self._max_slow)) is not None:
            counts[(challenger_ms > self._slow_factor * bound) + 2 * (champion_ms > bound)] += 1
        insort(kept, champion_ms)


def quantile_below(kept: Sequence[float], share: float) -> float | None:
    """Return about the (1 - share) quantile of sorted values; None while they are too few to know it."""
    n = len(kept)
    # With fewer, less than half a value beyond it is expected among them.
    if n < math.ceil(0.5 / share):
        return None
    return kept[math.ceil((1 - share) * n) - 1]


def is_duration(value: float | None) -> bool:
    """Return whether a value can be a measured time."""
    return value is not None and math.isfinite(value) and value >= 0

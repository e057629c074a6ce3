"""Policy of one metric: which way is better, its bounds, and how much data a decision needs."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from sluice.core.settings.block import Block

Kind = Literal["regression", "quality", "safety", "golden"]
Direction = Literal["higher", "lower"]
Scale = Literal["rate", "mean"]

LEAST_CLUSTERS: Mapping[Scale, int] = {"rate": 30, "mean": 80}
"""Default of `min_clusters`. A mean over fewer documents passes skewed losses too often (docs/evaluation.md)."""


class TailBound(Block):
    """Bound for the share of documents that lose much, which a mean can hide."""

    beyond: float = Field(gt=0)
    """A document counts that is worse than the baseline's by more than this, per unit of weight."""
    share: float = Field(gt=0, lt=1)
    """The upper limit of the share of such documents must lie below this."""


class MetricPolicy(Block):
    """Bounds of one metric. A bound that is null is not checked."""

    kind: Kind = "regression"
    """`regression`: bounds alone. `quality`: a scorer or judge gave the values, which decide only if it agrees with
    people. `safety`: the values are a rate of harm below `floor`. `golden`: a complete set, whose rate is exact."""
    direction: Direction = "higher"
    """Which values are better."""
    scale: Scale = "rate"
    """`rate`: every value lies in [0, 1]. `mean`: unbounded values over weights, such as bits over bytes."""
    floor: float | None = None
    """The limit of the interval on the worse side must keep this, whatever the champion does: a minimum where higher is
    better, a maximum where lower is."""
    over_chance: bool = False
    """Count the floor from chance, the mean of 1 / choices. Otherwise guessing keeps a floor of 0."""
    margin: float | None = Field(default=None, ge=0)
    """Non-inferiority margin: the candidate must be shown to be worse than the champion by less than this."""
    budget: float | None = Field(default=None, ge=0)
    """The same against the pinned anchor, so that small losses of many releases do not add up."""
    tail: TailBound | None = None
    beat_reference: bool = False
    """Whether a first version must be better than the reference that is measured beside it (a byte n-gram model)."""
    max_lost: int | None = Field(default=None, ge=0)
    """Most items that the champion answers rightly and the candidate does not; of a rate of harm, 0 is right."""
    min_clusters: int = Field(default_factory=lambda given: LEAST_CLUSTERS[given.get("scale", "rate")], ge=2)
    """With fewer documents (for a timing: samples) a check is `inconclusive`, which holds the candidate."""
    min_items: int | None = Field(default=None, ge=1)
    """With fewer planned items a check is `inconclusive`; kind golden has no other least count."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Pins the items: those of a suite of another sha256, or golden prompts of another file, decide nothing."""
    alpha: float | None = Field(default=None, gt=0, lt=0.5)
    """Error of each of the metric's one-sided checks; null: the policy's."""
    scorer: str | None = None
    """The scorer or judge whose agreement with people `quality` needs."""

    @model_validator(mode="after")
    def _rules(self) -> "MetricPolicy":
        if self.kind == "quality" and self.scorer is None:
            raise ValueError("kind quality needs `scorer`, the name of the scorer or judge that gave the values")
        if self.kind != "quality" and self.scorer is not None:
            raise ValueError(f"scorer {self.scorer} has no effect with kind {self.kind}: use kind quality")
        if self.kind == "safety" and (self.floor is None or self.direction != "lower" or self.scale != "rate"):
            raise ValueError("kind safety is a rate of harm: give `direction: lower`, `scale: rate` and its `floor`")
        if self.tail is not None and self.scale != "mean":
            raise ValueError("tail has no effect with scale rate, whose values are bounded: leave it out")
        if self.max_lost is not None and self.scale != "rate":
            raise ValueError("max_lost counts answers, which scale mean has none of: leave it out")
        if self.over_chance and (self.scale != "rate" or self.direction != "higher"):
            raise ValueError("over_chance is of shares of right choices: use `scale: rate` and `direction: higher`")
        if self.kind == "golden" and self.scale != "rate":
            raise ValueError("kind golden counts answers: use scale rate")
        return self

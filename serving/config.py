"""Settings of serving."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sluice.core.settings.block import Block
from sluice.core.settings.files import NamesFile

CHALLENGER_SHARE = 0.5
"""Share of a request's time that the challenger may use; the rest is left for the champion's fallback."""


class RegisterConfig(Block):
    """The MLflow registry entry."""

    block_name: ClassVar[str] = "register"

    model_name: str = Field("sluice", pattern=r"^[A-Za-z0-9_.-]+$")


class ServeConfig(Block):
    """The server."""

    block_name: ClassVar[str] = "serve"

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    max_batch: int = Field(8, ge=1)
    """Sequences decoded together."""
    max_queued: int = Field(64, ge=1)
    """Requests waiting beyond this are answered 503 with Retry-After."""
    max_tokens: int = Field(256, ge=1)
    """Upper limit of a request's max_tokens."""
    request_timeout_s: float = Field(60.0, gt=0)
    max_first_token_ms: float = Field(3000.0, gt=0)
    """Longest wait for the first token, and for news after it; the monitor's objective by default. If the challenger is
    silent for longer, the champion answers. A longer wait counts as the version's fault.
    """
    threads: int = Field(1, ge=1)
    """PyTorch threads of one engine."""

    @model_validator(mode="after")
    def _waits_end_before_the_request(self) -> "ServeConfig":
        most_ms = 1e3 * CHALLENGER_SHARE * self.request_timeout_s
        if self.max_first_token_ms > most_ms:
            raise ValueError(
                f"max_first_token_ms {self.max_first_token_ms:g} exceeds {most_ms:g}: of request_timeout_s "
                f"{self.request_timeout_s:g}, the challenger may use {CHALLENGER_SHARE:.0%}, and the champion the rest"
            )
        return self


class RolloutStep(Block):
    """One step of a rollout: the challenger's share of the live traffic, and what it takes to leave the step."""

    weight: int = Field(ge=0, le=100)
    """Percent of the live traffic; at 0 the challenger answers replayed prompts alone."""
    shadow: bool = False
    """At weight 0: live requests that the champion answers go to the challenger, too; its answers reach no user."""
    least_replays: int = Field(2, ge=1)
    """Prompts replayed to both versions in this step."""
    least_live: int = Field(0, ge=0)
    """Live requests to the challenger in this step. Not needed where the traffic is too thin to reach them."""
    least_s: float = Field(0.0, ge=0)
    longest_s: float = Field(600.0, gt=0)
    """A step that is inconclusive for so long, pauses not counted, drops the challenger."""

    @model_validator(mode="after")
    def _least_before_longest(self) -> "RolloutStep":
        if self.shadow and self.weight:
            raise ValueError(f"shadow must be false at weight {self.weight}: users get the challenger's answers there")
        if self.least_s >= self.longest_s:
            raise ValueError(f"least_s {self.least_s:g} must be less than longest_s {self.longest_s:g}")
        return self


QUICK_STEPS: tuple[dict[str, float], ...] = (
    {"weight": 0, "shadow": True, "least_replays": 50, "longest_s": 3600},
    {"weight": 1, "least_live": 5},
    {"weight": 5, "least_live": 10},
    {"weight": 25, "least_live": 25},
    {"weight": 50, "least_live": 50},
    {"weight": 100, "least_live": 100},
    {"weight": 100, "least_live": 100},
)
"""As in conf/rollout/quick.yaml."""


class QualityConfig(Block):
    """Settings of the quality signals: measurements of the answers besides errors and times."""

    max_parity_difference: float = Field(0.01, gt=0, lt=1)
    """The challenger is dropped once more of its greedy answers than this are shown to differ from the gate's."""
    unacceptable_parity_difference: float = Field(0.05, gt=0, lt=1)
    """The challenger advances only once fewer are shown to differ, or all of the gate's prompts were compared."""
    known_items: int = Field(64, ge=0)
    """Most golden prompts and suite items that both versions are asked; 0: none."""
    text: Literal["hold", "drop", "off"] = "hold"
    """If a text difference is shown: `hold` pauses the rollout for a person, `drop` drops the challenger."""
    least_votes: int = Field(30, ge=1)
    """Votes that each version needs before votes are compared."""
    judge_labels: Annotated[str | None, NamesFile()] = None
    """JSONL of answer pairs that people compared. With it, the judge at SLUICE_JUDGE_URL compares replayed answers; it
    counts if it agrees with people on these pairs (kappa 0.6).
    """
    judged_pairs: int = Field(100, ge=1)
    """Most prompts whose answers the judge compares."""
    surprisal: bool = False
    """Load the champion in the rollout's process too, and compare how likely it finds both versions' answers."""
    probes_at_once: int = Field(2, ge=1)
    """Probes in flight, each a request to both versions, beside the replayed prompts."""

    @model_validator(mode="after")
    def _limit_below_unacceptable(self) -> "QualityConfig":
        limit, unacceptable = self.max_parity_difference, self.unacceptable_parity_difference
        if limit >= unacceptable:
            raise ValueError(
                f"max_parity_difference {limit:g} must be less than unacceptable_parity_difference {unacceptable:g}: "
                "between them the rollout holds"
            )
        return self


class RolloutConfig(Block):
    """Steps of the rollout and the bounds of its checks; docs/release.md has the error rates of these decisions."""

    block_name: ClassVar[str] = "rollout"

    steps: list[RolloutStep] = Field(list(QUICK_STEPS), min_length=1, validate_default=True)
    """The weights rise to 100; a last step of the same weight is the bake, with the champion still loaded."""
    max_error_rate: float = Field(0.02, gt=0, lt=1)
    """The challenger is dropped once its error rate is shown to exceed this, and to exceed the champion's."""
    unacceptable_error_rate: float = Field(0.03, gt=0, lt=1)
    """The challenger advances only once its error rate is shown to be below this."""
    max_error_increase: float | None = Field(None, gt=0, lt=1)
    """Bound on the challenger's error rate less the champion's, such as 0.01 for one point; null: none."""
    slow_factor: float = Field(1.5, ge=1)
    """An answer of the challenger is slow if it takes so many times the champion's (1 - max_slow) quantile."""
    max_slow: float = Field(0.05, gt=0, lt=1)
    unacceptable_slow: float = Field(0.10, gt=0, lt=1)
    alpha: float = Field(0.05, gt=0, lt=1)
    """Level of each test."""
    quality: QualityConfig = Field(default_factory=lambda: QualityConfig.model_validate({}))
    max_verdict_age_days: float = Field(30.0, gt=0)
    """A version whose verdict is older is neither proposed nor promoted without force."""
    ready_timeout_s: float = Field(120.0, gt=0)
    """Longest wait for the challenger's first answer, and for its smoke test."""
    longest_pause_s: float = Field(600.0, gt=0)
    """A rollout that its champion's errors have paused for so long ends; the challenger keeps its place at 0 %."""
    smoke_prompts: int = Field(8, ge=1)
    concurrency: int = Field(4, ge=1)
    max_tokens: int = Field(24, ge=1)
    seed: int = 1234

    @property
    def longest_s(self) -> float:
        """Longest duration of a rollout."""
        return self.ready_timeout_s + sum(step.longest_s + self.longest_pause_s for step in self.steps)

    @model_validator(mode="after")
    def _is_consistent(self) -> "RolloutConfig":
        weights = [step.weight for step in self.steps]
        if weights != sorted(weights) or weights[-1] != 100:
            raise ValueError(f"steps: weights {weights} must not fall, and end at 100")
        for limit, unacceptable in (
            ("max_error_rate", "unacceptable_error_rate"),
            ("max_slow", "unacceptable_slow"),
        ):
            if getattr(self, limit) >= getattr(self, unacceptable):
                raise ValueError(
                    f"{limit} {getattr(self, limit):g} must be less than {unacceptable} "
                    f"{getattr(self, unacceptable):g}: between them the rollout holds"
                )
        return self

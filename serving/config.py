"""Settings of serving."""

from typing import ClassVar

from pydantic import Field, model_validator

from sluice.core.settings.block import Block

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


class RolloutConfig(Block):
    """Steps of the canary and the bounds of its checks."""

    block_name: ClassVar[str] = "rollout"

    weights: list[int] = Field([10, 50, 100], min_length=1)
    """Percent of traffic on the challenger, step by step; the last must be 100."""
    requests_per_step: int = Field(30, ge=1)
    """Challenger requests that a step needs before it can pass."""
    max_error_rate: float = Field(0.02, gt=0, lt=1)
    max_latency_ratio: float = Field(1.5, gt=0)
    """Bound on the p95 time of a complete answer per token, challenger over champion."""
    alpha: float = Field(0.05, gt=0, lt=1)
    step_timeout_s: float = Field(120.0, gt=0)
    smoke_prompts: int = Field(8, ge=1)
    concurrency: int = Field(4, ge=1)
    max_tokens: int = Field(24, ge=1)
    seed: int = 1234

    @model_validator(mode="after")
    def _rises(self) -> "RolloutConfig":
        if (
            not self.weights
            or self.weights != sorted(set(self.weights))
            or self.weights[0] < 1
            or self.weights[-1] != 100
        ):
            raise ValueError(f"weights {self.weights} must rise from at least 1 to exactly 100")
        return self

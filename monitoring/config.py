"""Settings of monitoring."""

from typing import ClassVar

from pydantic import Field, model_validator

from sluice.core.settings.block import Block
from sluice.monitoring.traffic.record import COLUMNS

DRIFT_TESTS = sum(column.drift is not None for column in COLUMNS.values())


class MonitorConfig(Block):
    """Bounds beyond which traffic is an alert or a reason to roll back."""

    block_name: ClassVar[str] = "monitor"

    window_hours: float = Field(24.0, gt=0)
    min_records: int = Field(30, ge=1)
    """Fewer records than this are `inconclusive`, which is an alert, never an ok."""
    max_error_rate: float = Field(0.02, ge=0, lt=1)
    """Share of the version's faults; a wait of its own beyond max_first_token_p95_ms is one."""
    max_first_token_p95_ms: float = Field(3000.0, gt=0)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence of the intervals of error rate and latency; only an interval beyond its bound is a failure."""
    drift_alpha: float = Field(0.01, gt=0, lt=1)
    """Level of the drift tests together, by Holm's correction."""
    min_drift_share: float = Field(0.5, gt=0, le=1)
    """Least share of columns in drift that is an alert; drift of the prompts' embedding always is one."""
    permutations: int = Field(2000, ge=100)
    max_embeddings: int = Field(500, ge=10)
    """Embeddings of each side that the drift test compares, drawn by the seed; its memory grows with the square."""
    seed: int = 1234

    @model_validator(mode="after")
    def _p_values_reach_the_level(self) -> "MonitorConfig":
        needed = DRIFT_TESTS / self.drift_alpha - 1
        if self.permutations < needed:
            raise ValueError(
                f"permutations {self.permutations} can never show drift at drift_alpha {self.drift_alpha} over "
                f"{DRIFT_TESTS} tests: use at least {needed:.0f}"
            )
        return self

"""Settings of the monitoring room."""

from pydantic import Field

from data.config import Block


class MonitorConfig(Block):
    """When traffic is an alert, and when it is a reason to roll back."""

    window_hours: float = Field(24.0, gt=0)
    min_records: int = Field(30, ge=1)
    """Fewer records than this are `inconclusive`, which is an alert, never an ok."""
    max_error_rate: float = Field(0.02, ge=0, lt=1)
    max_first_token_p95_ms: float = Field(3000.0, gt=0)
    drift_alpha: float = Field(0.01, gt=0, lt=1)
    """Level of each drift test, after Holm's correction over the tests."""
    min_drift_share: float = Field(0.3, gt=0, le=1)
    """Share of columns in drift from which on drift is an alert."""
    permutations: int = Field(500, ge=100)
    seed: int = 1234

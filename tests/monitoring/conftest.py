"""Synthetic traffic, drawn by a seed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sluice.monitoring.traffic.record import TrafficRecord

NOW = 1_790_000_000.0

Generator = Callable[..., list[TrafficRecord]]


@pytest.fixture
def now() -> float:
    """The time at which the tests monitor, epoch seconds."""
    return NOW


@pytest.fixture
def make_traffic() -> Generator:
    """Records of a healthy version in the hour before `now`; keyword arguments make it ill."""

    def make(
        count: int,
        seed: int = 0,
        *,
        prefix: str = "live",
        version: str = "7",
        error_share: float = 0.0,
        slowness: float = 1.0,
        topic_shift: float = 0.0,
        **fields: Any,
    ) -> list[TrafficRecord]:
        generator = np.random.default_rng(seed)
        records = []
        for index in range(count):
            is_error = generator.random() < error_share
            prompt_tokens = int(20 * generator.lognormal(topic_shift, 0.4)) + 1
            completion_tokens = 0 if is_error else int(generator.integers(1, 25))
            values = {
                "request_id": f"{prefix}-{seed}-{index}",
                "time": NOW - float(generator.uniform(0, 3500)),
                "version": version,
                "arm": "champion",
                "queue_ms": float(generator.exponential(2)),
                "first_token_ms": None if is_error else slowness * float(generator.lognormal(4, 0.3)),
                "per_token_ms": slowness * float(generator.lognormal(2, 0.2)) if completion_tokens > 1 else None,
                "total_ms": slowness * 200.0,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "finish_reason": "error" if is_error else str(generator.choice(["stop", "length"], p=[0.3, 0.7])),
                "status": 500 if is_error else 200,
                "error": "NonFiniteLogits" if is_error else "",
                "embedding": generator.normal(topic_shift, 1, 16).tolist(),
                "mean_log_probability": None if is_error else -float(generator.gamma(4, 0.5)),
                "source": "live",
            }
            records.append(TrafficRecord(**(values | fields)))
        return records

    return make

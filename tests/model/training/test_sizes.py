"""Batch and sequence schedules: how many tokens a run reads is known, exactly, before it starts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.model.config import PretrainConfig, SizeSchedule
from sluice.model.training.batches.sizes import Sizes, Stages, growing


def config(**settings: Any) -> PretrainConfig:
    return PretrainConfig(**{"workers": 1, "batch_size": 32, "micro_batch_size": 4, "steps": 100, **settings})


def test_without_a_schedule_nothing_changes() -> None:
    sizes = Sizes(config(), 64)
    assert {(sizes.batch_size(step), sizes.sequence_length(step)) for step in range(100)} == {(32, 64)}
    assert sizes.rows_before(7) == 7 * 32 and sizes.tokens_before(100) == 100 * 32 * 64


def test_sizes_grow_by_equal_factors() -> None:
    schedule = {"start": 4, "stages": 4, "fraction": 0.3}
    sizes = Sizes(config(batch_schedule=schedule, sequence_schedule={**schedule, "start": 8}), 64)
    assert [sizes.batch_size(step) for step in (0, 9, 10, 19, 20, 29, 30, 99)] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert [sizes.sequence_length(step) for step in (0, 9, 10, 19, 20, 29, 30, 99)] == [8, 8, 16, 16, 32, 32, 64, 64]


def test_a_replica_of_several_processes_counts_once() -> None:
    schedule = SizeSchedule(start=8, stages=2, fraction=0.5)
    sizes = Sizes(config(workers=4, pipeline_stages=2, micro_batch_size=4, batch_schedule=schedule), 64)
    assert [sizes.batch_size(step) for step in (0, 49, 50)] == [8, 8, 32]


@given(
    start=st.integers(1, 8),
    full=st.integers(9, 40),
    unit=st.integers(1, 4),
    stages=st.integers(2, 7),
    fraction=st.floats(0.01, 1.0),
    steps=st.integers(1, 300),
)
def test_laws_of_a_growing_size(start: int, full: int, unit: int, stages: int, fraction: float, steps: int) -> None:
    allowed = range(unit, full * unit + 1, unit)
    schedule = SizeSchedule(start=start * unit, stages=stages, fraction=fraction)
    grown = growing(schedule, full * unit, allowed, steps)
    sizes = [grown.at(step) for step in range(steps + 1)]
    assert sizes == sorted(sizes) and set(sizes) <= set(allowed)
    assert sizes[0] == start * unit or round(fraction * steps / (stages - 1)) == 0
    assert set(sizes[round(fraction * steps) :]) <= {full * unit}
    assert [grown.before(step) for step in range(steps + 1)] == [sum(sizes[:step]) for step in range(steps + 1)]


def test_before_counts_within_a_stage() -> None:
    stages = Stages((0, 3, 5), (2, 4, 8))
    assert [stages.before(step) for step in range(8)] == [0, 2, 4, 6, 10, 14, 22, 30]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_schedule": {"start": 6}}, r"batch_schedule\.start 6 .* multiples of 4 below 32"),
        ({"batch_schedule": {"start": 32}}, r"batch_schedule\.start 32 .* below 32"),
        ({"sequence_schedule": {"start": 12}}, r"sequence_schedule\.start 12 .* divisors of the context 64 below 64"),
        ({"sequence_schedule": {"start": 64}}, r"sequence_schedule\.start 64 .* below 64"),
    ],
)
def test_a_start_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sizes(config(**settings), 64)

"""The table of the planner's forecast beside real steps."""

import pytest

from benchmarks.model.forecast import CASES, Row, measure, tables
from sluice.model.planner.step_forecast import ForecastCheck, StepForecast, StepMeasured


def check(step_error: float) -> ForecastCheck:
    return ForecastCheck(
        threads=1,
        micro_batches=2,
        forecast=StepForecast(step_s=1 + step_error, memory_bytes=100 << 20),
        measured=StepMeasured(step_s=1.0, clock_s=2.0, memory_bytes=125 << 20),
        step_error=step_error,
        clock_error=(1 + step_error) / 2 - 1,
        memory_error=-0.2,
    )


def test_a_row_tells_the_median_and_how_far_rounds_lie_apart() -> None:
    row = Row("a model", "bf16", [check(0.3), check(-0.1), check(0.2)])
    cells = tables([row], 3)["forecast"].splitlines()[-1].strip("| ").split(" | ")
    assert cells[:4] == ["a model", "bf16", "1.20 s", "1.00 s"]
    assert cells[4:6] == ["+20 % (-10 % to +30 %)", "-40 % (-55 % to -35 %)"]
    assert cells[6:] == ["100 MiB", "125 MiB", "-20 %"]


def test_what_was_not_measured_is_no_row() -> None:
    row = Row("a model", "fp32", [ForecastCheck(threads=1, micro_batches=2, skipped="it did not end within 60 s")])
    with pytest.raises(ValueError, match="a model, fp32 was not measured: it did not end within 60 s"):
        row.errors("step")


def test_a_case_is_measured() -> None:
    assert len(CASES) > 5
    (measured,) = measure("4 layers, width 128", "fp32", rounds=1).checks
    assert measured.skipped is None
    assert measured.forecast is not None and measured.measured is not None
    assert measured.micro_batches == 2
    # Busy or not, the memory of a step is what it is.
    assert abs(measured.forecast.memory_bytes / measured.measured.memory_bytes - 1) < 0.5

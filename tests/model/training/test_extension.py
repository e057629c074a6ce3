"""Steps that a longer run shares with a shorter one: a property of the schedules and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.model.config import PretrainConfig
from sluice.model.training.checkpointing.extension import newest_shared, shared_steps
from sluice.model.training.optimization.schedule import rate

GROWING = {"batch_schedule": {"start": 16, "stages": 2, "fraction": 0.5}}


def config(**settings: object) -> PretrainConfig:
    return PretrainConfig.model_validate({"steps": 40, "warmup_steps": 5, **settings})


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({"schedule": "inverse_sqrt"}, 40),
        ({"min_learning_rate_ratio": 1.0}, 40),
        ({"schedule": "cosine", "min_learning_rate_ratio": 1.0}, 40),
        ({"decay_fraction": 0.25}, 30),
        # wsd falls from the end of the warm-up on; cosine begins at the peak.
        ({}, 6),
        ({"schedule": "cosine"}, 6),
        ({"schedule": "linear"}, 6),
        ({"decay_fraction": 0.25, "decay_from": "step-00000020"}, 0),
        (
            {
                "min_learning_rate_ratio": 1.0,
                "batch_schedule": {"start": 16, "stages": 2, "fraction": 0.5},
                "micro_batch_size": 4,
            },
            20,
        ),
    ],
)
def test_what_a_longer_run_shares(settings: dict[str, object], shared: int) -> None:
    before, after = config(**settings), config(**settings, steps=80)
    assert shared_steps(before, after, 64) == shared


@given(
    st.sampled_from(["wsd", "cosine", "linear", "inverse_sqrt"]),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 20),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_shared_steps_have_the_same_rates(schedule: str, steps: int, more: int, warmup: int, last: float) -> None:
    settings = {"schedule": schedule, "warmup_steps": warmup, "min_learning_rate_ratio": last}
    before, after = config(**settings, steps=steps), config(**settings, steps=steps + more)
    shared = shared_steps(before, after, 64)
    assert [rate(before, step) for step in range(shared)] == [rate(after, step) for step in range(shared)]
    assert shared == steps or rate(before, shared) != rate(after, shared)


def test_the_newest_checkpoint_that_is_shared_is_taken_or_none() -> None:
    before, after = config(decay_fraction=0.25), config(decay_fraction=0.25, steps=80)
    assert newest_shared(before, after, 64, [10, 30, 31, 40]) == 30
    with pytest.raises(ValueError, match=r"with schedule wsd its steps from 30 on depend on their number"):
        newest_shared(before, after, 64, [40])
    for falling in ({}, {"schedule": "cosine"}):
        with pytest.raises(ValueError, match=r"its steps from 6 on depend on their number, and no checkpoint"):
            newest_shared(config(**falling), config(**falling, steps=80), 64, [3, 6, 40])
    with pytest.raises(ValueError, match=r"steps=40 does not extend the run, which has 40 steps"):
        newest_shared(before, before, 64, [40])


def test_a_run_shorter_than_its_warm_up_is_not_extended() -> None:
    before, after = (config(min_learning_rate_ratio=1.0, warmup_steps=50, steps=steps) for steps in (8, 10))
    with pytest.raises(ValueError, match=r"its 8 steps end within its warm-up \(pretrain\.warmup_steps=50\)"):
        newest_shared(before, after, 64, [8])

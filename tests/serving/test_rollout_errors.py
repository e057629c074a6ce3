"""How often a rollout decides wrongly, by small simulations of the benchmark with fixed seeds.

Each bound is one that a decision function at the wanted rate would break once in a thousand times.
"""

from collections.abc import Callable

import pytest
from scipy import stats

from benchmarks.rollout.rules import Ending
from benchmarks.rollout.simulate import simulate, summary
from benchmarks.rollout.traffic import Scenario

RUNS = 30


def most(rate: float) -> float:
    """The highest share among RUNS that is no sign of more than `rate`."""
    return float(stats.binom.ppf(0.999, RUNS, rate)) / RUNS


def run(scenario: Scenario, max_error_increase: float | None = None, seed: int = 11) -> dict[str, float | None]:
    return summary(simulate(scenario, RUNS, seed, max_error_increase=max_error_increase))


@pytest.mark.parametrize(("errors", "requests"), [(0.0, 150), (0.005, 150), (0.01, 400)])
def test_an_identical_challenger_is_promoted_soon(errors: float, requests: int) -> None:
    found = run(Scenario(true_errors=errors, champion_errors=errors, replays_per_second=0.7))
    assert found["dropped"] is not None and found["dropped"] <= most(0.02)
    # The median of so few rollouts spreads by a fifth.
    assert found["median_requests_promoted"] is not None and found["median_requests_promoted"] <= 1.2 * requests


@pytest.mark.parametrize(("errors", "promoted", "requests"), [(0.05, 0.01, 220), (0.10, 0.001, 50)])
def test_a_failing_challenger_is_dropped_soon(errors: float, promoted: float, requests: int) -> None:
    found = run(Scenario(true_errors=errors))
    assert found["promoted"] is not None and found["promoted"] <= most(promoted)
    assert found["median_requests_dropped"] is not None and found["median_requests_dropped"] <= 1.2 * requests


@pytest.mark.parametrize(
    ("ratio", "spread", "least", "at_most"),
    [(1.4, 0.3, 0.85, 1.0), (2.0, 0.3, 0.0, 0.05), (2.0, 0.5, 0.0, 0.05), (3.0, 0.5, 0.0, 0.005)],
)
def test_a_slow_challenger_is_promoted_only_within_the_bounds(
    ratio: float, spread: float, least: float, at_most: float
) -> None:
    promoted = run(Scenario(latency_ratio=ratio, latency_spread=spread))["promoted"]
    assert promoted is not None and stats.binom.ppf(0.001, RUNS, least) / RUNS <= promoted <= most(at_most)


def test_one_slow_signal_of_two_is_enough() -> None:
    for signal in ("first_token", "between_tokens"):
        found = run(Scenario(latency_ratio=3.0, latency_spread=0.5, slow_signal=signal))
        assert found["promoted"] == 0.0


def test_a_healthy_challenger_is_within_an_increase_of_one_point() -> None:
    found = run(Scenario(true_errors=0.0005, champion_errors=0.0005), max_error_increase=0.01)
    assert found["median_requests_promoted"] is not None and found["median_requests_promoted"] <= 1.2 * 350


def test_what_both_fail_pauses_and_drops_nobody() -> None:
    found = run(Scenario(shared_errors=0.1, replays_per_second=0.7))
    assert found["dropped"] is not None and found["dropped"] <= most(0.02)
    assert found["open"] is not None and found["open"] >= 0.9


def test_bursts_that_both_share_drop_few() -> None:
    found = run(Scenario(bursts=True, replays_per_second=10.0))
    assert found["dropped"] is not None and found["dropped"] <= most(0.05)


@pytest.mark.parametrize(
    ("scenario", "rule", "goes_wrong"),
    [
        (Scenario(true_errors=0.03), "estimates", lambda end: end.outcome == "promoted"),
        (Scenario(shared_errors=0.1), "estimates", lambda end: end.outcome == "dropped"),
        (Scenario(), "mann-whitney", lambda end: end.outcome == "dropped"),
        (Scenario(true_errors=0.01, replays_per_second=0.7), "argo", lambda end: end.outcome == "dropped"),
    ],
    ids=["estimates promote 3 %", "estimates drop for a shared cause", "Mann-Whitney drops", "Argo drops"],
)
def test_the_peers_err_where_ours_does_not(scenario: Scenario, rule: str, goes_wrong: Callable[[Ending], bool]) -> None:
    assert sum(map(goes_wrong, simulate(scenario, 30, 12, rule))) >= 3


def test_a_seed_gives_the_same_rollouts() -> None:
    assert simulate(Scenario(), 3, 5) == simulate(Scenario(), 4, 5)[:3]


@pytest.mark.parametrize(
    ("scenario", "increase"),
    [
        (Scenario(true_errors=0.01, champion_errors=0.01), None),
        (Scenario(true_errors=0.04), None),
        (Scenario(true_errors=0.015, champion_errors=0.0005), 0.01),
        (Scenario(latency_ratio=1.6), None),
        (Scenario(shared_errors=0.025), None),
        (Scenario(bursts=True, replays_per_second=0.7), None),
    ],
    ids=["identical", "failing", "increase", "slow", "champion in doubt", "bursts"],
)
def test_polls_that_the_simulation_skips_change_nothing(scenario: Scenario, increase: float | None) -> None:
    ends = simulate(scenario, 4, 21, "ours", increase)
    assert ends == simulate(scenario, 4, 21, "every-poll", increase)

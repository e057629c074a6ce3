"""A rollout's newest decision as the page and `sluice rollout status` get it."""

import json
import math

import pytest

from sluice.serving.canary import RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import Evidence, LiveCounts, Pairs
from sluice.serving.page.view_model import view_model
from sluice.serving.progress import rollout_progress

CONFIG = RolloutConfig()


def progress(evidence: Evidence, step: int = 0) -> dict:
    decision = decide(RolloutState(step), evidence, CONFIG)
    return rollout_progress(decision, evidence, CONFIG, since=1000.0, not_judged={"capacity": 2})


def good(n: int) -> Evidence:
    return Evidence(Pairs(n), Pairs(n), Pairs(n))


@pytest.mark.parametrize("n", [0, 20, 400])
def test_an_e_value_reaches_its_threshold_as_the_check_passes(n: int) -> None:
    found = progress(good(n))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for check in found["checks"]:
        if check["e_advance"] is not None:
            assert (check["e_advance"] >= check["threshold"]) == (check["outcome"] == "pass"), check
        assert check["e_drop"] < check["threshold"]


def test_bad_is_shown_only_where_all_its_tests_have_shown_it() -> None:
    """Errors of both arms alike are above the limit, and no more than the champion's."""
    alike = progress(Evidence(Pairs(300, 50, 50), Pairs(300), Pairs(300)))["checks"][0]
    assert (alike["metric"], alike["outcome"]) == ("error_rate", "inconclusive")
    assert alike["e_drop"] < alike["threshold"]
    worse = progress(Evidence(Pairs(300, 50, 0), Pairs(300), Pairs(300)))["checks"][0]
    assert (worse["outcome"], worse["e_drop"] >= worse["threshold"]) == ("fail", True)
    certain = progress(Evidence(Pairs(0, 100_000)))["checks"][0]
    assert math.isfinite(certain["e_drop"]) and certain["e_drop"] > 1e300


def test_an_e_value_that_showed_nothing_is_that_of_now() -> None:
    """Good answers speak against "bad": the e-value is below 1, not the largest so far."""
    errors = progress(good(400))["checks"][0]
    assert errors["e_drop"] < 0.1 and errors["e_advance"] > errors["threshold"]


def test_the_page_shows_it() -> None:
    evidence = Evidence(Pairs(60), Pairs(60), Pairs(60), live=(LiveCounts(0), LiveCounts(1, 3, 0, 200, 1)))
    found = progress(evidence, step=1)
    page = view_model({"champion": "1", "release": {"champion": "1", "challenger": "2"}, "view": {"rollout": found}})
    assert page.rollout is not None
    assert [step.state for step in page.rollout.steps][:3] == ["done", "current", "ahead"]
    assert (page.rollout.live, page.rollout.replays, page.rollout.not_judged) == ("3", "60", "2 capacity")
    assert [signal.name for signal in page.signals][:3] == ["Errors", "Slow first tokens", "Slow later tokens"]

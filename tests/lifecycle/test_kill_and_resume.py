"""kill -9 in the middle, `sluice run` again: nothing finished is repeated, and it all ends with the same bytes."""

import pytest
from lifecycle_checkout import Checkout

from sluice.components.stage import read_metrics

pytestmark = pytest.mark.e2e


def test_killed_in_training_and_in_the_rollout_it_ends_as_if_nothing_had_happened(
    resumed: Checkout, undisturbed_hashes: dict[str, str]
) -> None:
    assert read_metrics(resumed.workspace, "pretrain")["timings"]["resumed_step"] >= 40
    status = resumed.status()
    assert all(step["cached"] for step in status["steps"][:7]), status["steps"]
    assert (status["champion"], status["challenger"], status["ledger_ok"]) == ("1", None, True)
    assert resumed.artifact_hashes() == undisturbed_hashes

"""kill -9 in the middle, `sluice run` again: nothing finished is repeated, and it all ends with the same bytes."""

import os
import signal
from collections.abc import Callable

import pytest
from lifecycle_checkout import Checkout

from components.stage import read_metrics

pytestmark = pytest.mark.e2e


def test_killed_in_training_and_in_the_rollout_it_ends_as_if_nothing_had_happened(
    undisturbed_hashes: dict[str, str], new_checkout: Callable[[str], Checkout]
) -> None:
    checkout = new_checkout("killed")
    for step, kind, done in (("pretrain", "progress", 50), ("rollout", "note", 0)):
        process = checkout.start("run", *checkout.settings)
        checkout.wait_for(process, step, kind, done)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert checkout.status()["champion"] is None
    assert read_metrics(checkout.workspace, "pretrain")["timings"]["resumed_step"] >= 40

    checkout.run()
    status = checkout.status()
    assert all(step["cached"] for step in status["steps"][:7]), status["steps"]
    assert (status["champion"], status["challenger"], status["ledger_ok"]) == ("1", None, True)
    assert checkout.artifact_hashes() == undisturbed_hashes

"""kill -9 in the middle, `sluice run` again: nothing finished is repeated, and it all ends with the same bytes."""

from lifecycle_checkout import Checkout

from sluice.components.artifact import read_metrics


def test_killed_in_training_and_in_the_rollout_it_ends_as_if_nothing_had_happened(
    resumed: Checkout, undisturbed: Checkout
) -> None:
    assert read_metrics(resumed.workspace, "pretrain")["timings"]["resumed_step"] >= 40
    status = resumed.status()
    assert all(step["cached"] for step in status["steps"][:7]), status["steps"]
    assert (status["champion"], status["challenger"], status["ledger_ok"]) == ("1", None, True)
    for step in ("pretrain", "tune", "evaluate"):
        hashes = resumed.file_hashes(step)
        assert {"manifest.json"} < set(hashes) and hashes == undisturbed.file_hashes(step), step

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_fixtures import packed_corpus  # noqa: F401

from data.packing import PackedTokens
from model.training.dataset import TrainingBatches, WindowOrder, read_windows, validation_starts


@given(tokens=st.integers(20, 3000), context=st.integers(2, 40), seed=st.integers(0, 9))
def test_an_epoch_reads_every_window_once(tokens: int, context: int, seed: int) -> None:
    if tokens < 2 * context:
        with pytest.raises(ValueError, match="too few for windows"):
            WindowOrder(tokens, context, seed)
        return
    order = WindowOrder(tokens, context, seed)
    for epoch in (0, 1):
        starts = np.sort(order.starts(epoch * order.windows, order.windows))
        assert (np.diff(starts) == context).all()
        assert starts[0] >= 0 and starts[-1] + context + 1 <= tokens


@given(first=st.integers(0, 500), count=st.integers(1, 50))
def test_position_depends_on_nothing_but_where_it_is(first: int, count: int) -> None:
    order = WindowOrder(1000, 16, seed=7)
    assert (order.starts(first, count) == order.starts(0, 600)[first : first + count]).all()


def test_epochs_and_seeds_differ() -> None:
    order = WindowOrder(5000, 16, seed=7)
    first, second = order.starts(0, order.windows), order.starts(order.windows, order.windows)
    assert not (first == second).all()
    assert not (first == WindowOrder(5000, 16, seed=8).starts(0, order.windows)).all()


def test_workers_share_out_the_batch_of_one(packed_corpus: Path) -> None:  # noqa: F811
    tokens = PackedTokens(packed_corpus / "pack", "train").tokens
    whole = TrainingBatches(tokens, 32, 1, batch_size=8, rank=0, world=1)
    parts = [TrainingBatches(tokens, 32, 1, batch_size=8, rank=rank, world=2) for rank in range(2)]
    for step in (0, 3, 40):
        ids, targets = whole.read(step)
        assert ids.shape == targets.shape == (8, 32)
        assert (ids[:, 1:] == targets[:, :-1]).all()
        assert (np.concatenate([part.read(step)[0] for part in parts]) == ids.numpy()).all()


def test_validation_windows_do_not_overlap_and_reach_the_end() -> None:
    starts = validation_starts(10_001, 100, limit=7)
    assert len(starts) == 7
    assert (np.diff(starts) >= 100).all()
    assert len(validation_starts(10_001, 100, limit=1000)) == 100
    with pytest.raises(ValueError, match=r"raise pack\.valid_fraction"):
        validation_starts(100, 100, limit=1)


def test_windows_hold_the_tokens(packed_corpus: Path) -> None:  # noqa: F811
    tokens = PackedTokens(packed_corpus / "pack", "train").tokens
    ids, targets = read_windows(tokens, np.array([5, 50]), 8)
    assert ids[1].tolist() == tokens.read(50, 8).tolist()
    assert targets[1].tolist() == tokens.read(51, 8).tolist()

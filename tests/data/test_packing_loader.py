"""The loader: every row once an epoch, and the same sequence after any stop, with any number of workers."""
# ruff: noqa: F811

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_fixtures import CONFIG, mixed_corpus, small_tokenizer  # noqa: F401

from sluice.data.config import PackConfig
from sluice.data.packing import Loader, LoaderState, PackedTokens, pack
from sluice.data.packing.loader import IGNORED
from sluice.data.packing.order import permuted
from sluice.data.packing.shards import PADDING

CONTEXT = 64


@pytest.fixture(scope="module", params=["concatenated", "best_fit"])
def side(
    request: pytest.FixtureRequest,
    mixed_corpus: Path,
    small_tokenizer: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> PackedTokens:
    rows = CONTEXT + 1 if request.param == "best_fit" else None
    settings = CONFIG.model_dump(exclude={"layout", "row_tokens"})
    out = tmp_path_factory.mktemp("packed")
    pack(PackConfig(**settings, layout=request.param, row_tokens=rows), mixed_corpus, small_tokenizer, out)
    return PackedTokens(out, "train")


@given(st.integers(1, 3000), st.integers(0, 9), st.integers(0, 3))
def test_an_order_visits_every_row_once(size: int, seed: int, epoch: int):
    order = permuted(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(size))
    where = size // 2
    assert permuted(np.array([where]), size, seed, epoch)[0] == order[where]


def test_an_order_is_no_pattern():
    size, epochs = 1000, 200
    orders = np.stack([permuted(np.arange(size), size, 3, epoch) for epoch in range(epochs)])
    # Where row after row goes is uniform and uncorrelated: five standard deviations of a mean of uniforms.
    assert np.abs(orders.mean(axis=0) - (size - 1) / 2).max() < 5 * size / 12**0.5 / epochs**0.5
    neighbours = [np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders]
    assert abs(np.mean(neighbours)) < 5 / (size * epochs) ** 0.5
    assert len({tuple(order[:3]) for order in orders}) == epochs
    # Pinned: a saved position outlives the version of every library.
    assert permuted(np.arange(8), 8, 1234, 0).tolist() == [7, 1, 2, 5, 6, 3, 0, 4]


def test_an_epoch_reads_every_row_once(side: PackedTokens):
    loader = Loader(side, CONTEXT, seed=3, batch=1)
    first, second = loader.starts(0, loader.rows), loader.starts(loader.rows, loader.rows)
    stride = CONTEXT if side.layout == "concatenated" else CONTEXT + 1
    for starts in (np.sort(first), np.sort(second)):
        assert (np.diff(starts) == stride).all()
        assert starts[0] >= 0 and starts[-1] + CONTEXT + 1 <= len(side.sequence)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, Loader(side, CONTEXT, seed=4, batch=1).starts(0, loader.rows))


def test_a_stopped_run_resumes_exactly_with_other_workers(side: PackedTokens):
    rows = Loader(side, CONTEXT, seed=3, batch=1).rows
    count = 2 * rows + 40
    straight = Loader(side, CONTEXT, seed=3, batch=1)
    whole = [next(straight) for _ in range(count)]
    tokens = np.concatenate([batch.tokens for batch in whole])
    documents = np.concatenate([batch.documents for batch in whole])

    runs = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 12)), min_size=1, max_size=4)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, count - 1), runs)
    def killed_and_restored(sample: int, runs: list[tuple[int, int, int]]) -> None:
        state = straight.state.model_copy(update={"sample": sample})
        for world, share, steps in runs:
            saved = LoaderState.model_validate_json(state.model_dump_json())
            workers = [
                Loader(side, CONTEXT, seed=3, batch=world * share, rank=rank, world=world, state=saved)
                for rank in range(world)
            ]
            for _ in range(steps):
                if workers[0].state.sample + world * share > count:
                    break
                batches = [next(worker) for worker in workers]
                at = workers[0].state.sample - world * share
                together = slice(at, at + world * share)
                assert np.array_equal(np.concatenate([batch.tokens for batch in batches]), tokens[together])
                assert np.array_equal(np.concatenate([batch.documents for batch in batches]), documents[together])
            assert len({worker.state for worker in workers}) == 1
            state = workers[0].state

    killed_and_restored()


def test_targets_stay_in_their_document(side: PackedTokens):
    loader = Loader(side, CONTEXT, seed=1, batch=64)
    batch = next(loader)
    assert batch.ids.shape == batch.targets.shape == (64, CONTEXT)
    assert batch.tokens.dtype == batch.documents.dtype == np.int64
    counted = batch.targets != IGNORED
    assert np.array_equal(batch.targets[counted], batch.tokens[:, 1:][counted])
    assert (batch.documents[:, 1:][counted] == batch.documents[:, :-1][counted]).all()
    # What follows an end token is another document or padding.
    assert not counted[batch.ids == side.eos_id].any()
    assert counted[(batch.documents[:, 1:] != PADDING) & (batch.ids != side.eos_id)].all()


def test_a_position_of_another_sequence_is_refused(side: PackedTokens):
    state = Loader(side, CONTEXT, seed=3, batch=1).state
    with pytest.raises(ValueError, match="seed 3, this one has 4"):
        Loader(side, CONTEXT, seed=4, batch=1, state=state)
    with pytest.raises(ValueError, match="tokens 1, this one has"):
        Loader(side, CONTEXT, seed=3, batch=1, state=state.model_copy(update={"tokens": 1}))


def test_settings_that_cannot_be_are_refused(side: PackedTokens):
    with pytest.raises(ValueError, match="a batch of 3 rows over 2 workers"):
        Loader(side, CONTEXT, seed=1, batch=3, world=2)
    too_long = 10**7
    match = "does not fit rows of 65" if side.layout == "best_fit" else "too few for one row"
    with pytest.raises(ValueError, match=match):
        Loader(side, too_long, seed=1, batch=1)

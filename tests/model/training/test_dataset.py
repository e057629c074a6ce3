"""Which rows a worker reads at a step, in either layout, and what they are made into."""

from pathlib import Path
from typing import Any

import architecture_fixtures
import numpy as np
import pytest
import torch
from evaluation_fixtures import SPLIT
from hypothesis import given
from hypothesis import strategies as st

from sluice.data.config import PackConfig
from sluice.data.packing import PackedTokens, pack
from sluice.data.packing.shards import PADDING, TokenSequence
from sluice.data.tokenization import SPECIAL_TOKENS
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.batches.dataset import (
    TrainingBatches,
    WindowOrder,
    special_tokens,
    validation_batches,
    validation_starts,
)
from sluice.model.training.batches.objectives import Objective


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


def config(**settings: Any) -> PretrainConfig:
    return PretrainConfig(**{"workers": 1, "batch_size": 8, "micro_batch_size": 2, "steps": 60, "seed": 1, **settings})


@pytest.fixture(scope="module", params=["concatenated", "best_fit"])
def packed(
    request: pytest.FixtureRequest, packed_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> PackedTokens:
    """The training side in either layout, for a context of 32."""
    out = tmp_path_factory.mktemp("packed")
    rows = 33 if request.param == "best_fit" else None
    settings = SPLIT.model_dump(exclude={"layout", "row_tokens"})
    pack(
        PackConfig(**settings, layout=request.param, row_tokens=rows),
        packed_corpus / "refine",
        packed_corpus / "tokenizer",
        out,
    )
    return PackedTokens(out, "train")


@pytest.mark.parametrize("isolate", [False, True])
def test_workers_share_out_the_batch_of_one(packed: PackedTokens, isolate: bool) -> None:
    growing = {"start": 4, "stages": 2, "fraction": 0.5}
    settings = {"isolate_documents": isolate, "batch_schedule": growing}
    whole = TrainingBatches(packed, config(**settings), 32)
    parts = [TrainingBatches(packed, config(workers=2, **settings), 32, rank=rank, world=2) for rank in range(2)]
    for step, rows in ((0, 4), (3, 4), (40, 8)):
        batch = whole.read(step)
        shares = [part.read(step) for part in parts]
        assert batch.ids.shape == batch.targets.shape == (rows, 32)
        assert (batch.documents is not None) is isolate
        for name, value in vars(batch).items():
            if value is not None:
                assert torch.equal(torch.cat([getattr(share, name) for share in shares]), value), name


def test_the_default_reads_windows_as_they_follow_from_the_seed(packed_corpus: Path) -> None:
    side = PackedTokens(packed_corpus / "pack", "train")
    batches, order = TrainingBatches(side, config(), 32), WindowOrder(len(side.tokens), 32, seed=1)
    for step in (0, 5):
        batch = batches.read(step)
        ids, targets = read_windows(side.tokens, order.starts(step * 8, 8), 32)
        assert torch.equal(batch.ids, ids) and torch.equal(batch.targets, targets)
        assert batch.mask is None and batch.documents is None


def test_an_epoch_reads_every_row_once_under_any_schedule(packed: PackedTokens) -> None:
    schedule = {"start": 4, "stages": 2, "fraction": 0.5}
    run = config(batch_schedule=schedule, sequence_schedule={**schedule, "start": 8})
    batches = TrainingBatches(packed, run, 32)
    plain = TrainingBatches(packed, config(batch_size=1, micro_batch_size=1), 32)
    rows = batches.sizes.rows_before(60)
    assert rows == 30 * 4 + 30 * 8 and batches.epochs == rows / plain.sizes.rows_before(60) * plain.epochs
    seen = torch.cat([batches.read(step).ids.reshape(-1, 32) for step in range(60)])
    assert torch.equal(seen, torch.cat([plain.read(row).ids for row in range(rows)]))
    assert batches.read(0).ids.shape == (16, 8) and batches.read(59).ids.shape == (8, 32)
    assert batches.sizes.tokens_before(60) == seen.numel()


def test_more_epochs_than_allowed_are_refused_before_the_first_step(packed: PackedTokens) -> None:
    epochs = TrainingBatches(packed, config(), 32).epochs
    assert epochs > 0.5
    TrainingBatches(packed, config(max_epochs=epochs), 32)
    with pytest.raises(ValueError, match=rf"60 steps read {epochs:.2f} epochs .* pretrain.max_epochs"):
        TrainingBatches(packed, config(max_epochs=epochs * 0.99), 32)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "alibi_window", "hybrid"])
def test_packed_documents_cost_what_they_cost_alone(packed: PackedTokens, architecture: str) -> None:
    shape = {**architecture_fixtures.DECODERS[architecture], "vocab_size": packed.vocab_size, "context": 32}
    model = architecture_fixtures.lively(architecture_fixtures.shape(shape))
    batch = TrainingBatches(packed, config(isolate_documents=True), 32).read(2)
    assert batch.documents is not None and batch.mask is not None
    together, count = cross_entropy_sum(model, batch.ids, batch.targets, batch.mask, **batch.inputs)
    alone, shards = torch.zeros(()), 0
    for ids, targets, mask, documents in zip(batch.ids, batch.targets, batch.mask, batch.documents, strict=True):
        for document in documents[documents != PADDING].unique():
            mine = documents == document
            nats, _ = cross_entropy_sum(model, ids[mine][None], targets[mine][None], mask[mine][None])
            alone, shards = alone + nats, shards + 1
    assert shards > len(batch.ids) and int(count) < batch.targets.numel()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-3)


def test_held_out_rows_are_shared_out_and_always_the_same(packed_corpus: Path) -> None:
    side = PackedTokens(packed_corpus / "pack", "valid")
    objective = Objective.of(config(objective="masked"), side.vocab_size, side.eos_id)

    def rows(rank: int, world: int) -> list[list[int]]:
        batches = validation_batches(side, objective, 32, windows=7, rows=2, rank=rank, world=world)
        return [row for batch in batches for row in batch.ids.tolist()]

    whole = rows(0, 1)
    assert len(whole) == 7 and whole == rows(0, 1)
    assert sorted(rows(0, 2) + rows(1, 2)) == sorted(whole)
    causal = Objective.of(config(), side.vocab_size, side.eos_id)
    batch = next(validation_batches(side, causal, 32, windows=7, rows=7))
    ids, targets = read_windows(side.tokens, validation_starts(len(side.tokens), 32, 7), 32)
    assert torch.equal(batch.ids, ids) and torch.equal(batch.targets, targets) and batch.mask is None


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize(
    ("windows", "rows", "world"), [(1, 4, 2), (3, 1, 2), (5, 2, 2), (9, 4, 2), (2, 1, 4), (7, 3, 3)]
)
def test_every_worker_makes_as_many_held_out_batches(
    packed_corpus: Path, objective: str, windows: int, rows: int, world: int
) -> None:
    """ZeRO 3 gathers weights in every forward pass: a worker with one less would leave the others waiting."""
    side = PackedTokens(packed_corpus / "pack", "valid")
    made = Objective.of(config(objective=objective), side.vocab_size, side.eos_id)

    def batches(rank: int, world: int) -> list[Batch]:
        return list(validation_batches(side, made, 32, windows=windows, rows=rows, rank=rank, world=world))

    shared = [batches(rank, world) for rank in range(world)]
    assert len({len(each) for each in shared}) == 1
    assert sum(batch.tokens for each in shared for batch in each) == sum(batch.tokens for batch in batches(0, 1))
    kind = {"kind": "decoder" if objective == "causal" else "encoder"}
    model = architecture_fixtures.lively(
        architecture_fixtures.shape({**kind, "vocab_size": made.model_vocabulary, "context": 32})
    )
    with torch.no_grad():
        parts = [cross_entropy_sum(model, b.ids, b.targets, b.mask)[0] for each in shared for b in each]
        whole = [cross_entropy_sum(model, b.ids, b.targets, b.mask)[0] for b in batches(0, 1)]
    torch.testing.assert_close(torch.stack(parts).sum(), torch.stack(whole).sum(), rtol=1e-5, atol=1e-3)


def test_special_tokens_are_those_of_the_tokenizer(packed_corpus: Path) -> None:
    found = special_tokens(packed_corpus / "tokenizer")
    assert len(found) == len(SPECIAL_TOKENS)
    assert PackedTokens(packed_corpus / "pack", "train").eos_id in found


def test_validation_windows_do_not_overlap_and_reach_the_end() -> None:
    starts = validation_starts(10_001, 100, limit=7)
    assert len(starts) == 7
    assert (np.diff(starts) >= 100).all()
    assert len(validation_starts(10_001, 100, limit=1000)) == 100
    with pytest.raises(ValueError, match=r"raise pack\.valid_fraction"):
        validation_starts(100, 100, limit=1)


def test_windows_hold_the_tokens(packed_corpus: Path) -> None:
    tokens = PackedTokens(packed_corpus / "pack", "train").tokens
    ids, targets = read_windows(tokens, np.array([5, 50]), 8)
    assert ids[1].tolist() == tokens.read(50, 8).tolist()
    assert targets[1].tolist() == tokens.read(51, 8).tolist()


def read_windows(tokens: TokenSequence, starts: np.ndarray, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets [len(starts), context] int64 of the windows at `starts`."""
    rows = torch.from_numpy(np.stack([tokens.read(int(start), context + 1) for start in starts]).astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

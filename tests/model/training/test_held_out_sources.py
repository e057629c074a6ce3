"""The held-out loss by source: its parts are the whole, whoever computes them, and it tells what was trained on."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_fixtures import SPLIT, build_corpus
from rank_pool import RankPool
from test_training import SHAPE, pretrain_in
from training_fixtures import pretrain_in_a_rank, training_rows, write_request

from sluice.data.packing import PackedTokens, SourceCounts, pack
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.dataset import source_names, validation_batches
from sluice.model.training.batches.objectives import Objective
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.loop import HeldOut, validate
from sluice.model.training.optimization.optimizer import build_optimizer
from sluice.model.training.telemetry.sources import BITS, NATS, by_source
from sluice.model.training.telemetry.tracking import numbers

SOURCES = ("django==5.2.19", "notes", "org/pages")
SETTINGS: dict[str, Any] = {
    "workers": 1,
    "steps": 4,
    "batch_size": 8,
    "micro_batch_size": 4,
    "warmup_steps": 1,
    "validate_every": 2,
    "checkpoint_every": 4,
    "validation_batches": 50,
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """refine/, tokenizer/ and pack/ of documents of three sources."""
    folder = build_corpus(tmp_path_factory.mktemp("mixed"), sources=SOURCES)
    (folder / "pack").mkdir()
    pack(SPLIT, folder / "refine", folder / "tokenizer", folder / "pack")
    return folder


def engine_for(vocabulary: int, **shape: Any) -> LocalEngine:
    model = Transformer(TransformerConfig(**{**SHAPE.model_dump(), "vocab_size": vocabulary, "context": 32, **shape}))
    initialize(model, 0)
    return LocalEngine(model, build_optimizer(model, PretrainConfig()))


def found_in(mixed: Path, engine: LocalEngine, rows: int = 3, **settings: Any) -> tuple[HeldOut, PackedTokens]:
    side = PackedTokens(mixed / "pack", "valid")
    objective = Objective.of(PretrainConfig(**settings), side.vocab_size, side.eos_id)
    batches = validation_batches(side, objective, 32, windows=1000, rows=rows)
    return validate(engine, batches, len(source_names(side, objective))), side


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, {}),
        ({"isolate_documents": True}, {}),
        ({}, {"logit_soft_cap": 20.0}),
        ({"objective": "masked"}, {"kind": "encoder"}),
    ],
)
def test_the_parts_are_the_whole(mixed: Path, settings: dict[str, Any], shape: dict[str, Any]) -> None:
    side = PackedTokens(mixed / "pack", "valid")
    objective = Objective.of(PretrainConfig(**settings), side.vocab_size, side.eos_id)
    engine = engine_for(objective.model_vocabulary, **shape)
    held, side = found_in(mixed, engine, **settings)
    batches = list(validation_batches(side, objective, 32, windows=1000, rows=3))
    assert held.source_targets.sum() == sum(batch.tokens for batch in batches)
    assert held.source_nats.sum() / held.source_targets.sum() == pytest.approx(held.loss, rel=1e-6)
    assert (held.source_targets > 0).all() and len(held.source_nats) == len(SOURCES)
    # The whole has the bits that it has where nobody asks for its parts.
    assert held.loss.hex() == validate(engine, batches).loss.hex()
    # One source alone, the plain way: as the only targets that count.
    for number in range(len(SOURCES)):
        nats = count = 0.0
        for batch in batches:
            assert batch.origins is not None
            mine = batch.origins == number if batch.mask is None else (batch.origins == number) & batch.mask
            with torch.no_grad():
                some, tokens = cross_entropy_sum(engine.model, batch.ids, batch.targets, mine, **batch.inputs)
            nats, count = nats + float(some), count + int(tokens)
        assert held.source_targets[number] == count
        assert held.source_nats[number] == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize(("objective", "shift"), [("causal", 1), ("masked", 0)])
def test_a_target_is_of_the_source_of_its_own_document(mixed: Path, objective: str, shift: int) -> None:
    side = PackedTokens(mixed / "pack", "valid")
    made = Objective.of(PretrainConfig(objective=objective), side.vocab_size, side.eos_id)
    batch = next(validation_batches(side, made, 32, windows=10**6, rows=10**6))
    assert batch.origins is not None
    last = batch.targets.numel()
    of_document = [
        list(side.sources)[number] for number in side.source_ids(0, len(side.tokens))[shift : last + shift].tolist()
    ]
    assert [list(side.sources)[number] for number in batch.origins.flatten().tolist()] == of_document
    assert np.array_equal(batch.targets.flatten().numpy(), side.tokens.read(shift, last))


def test_a_source_without_a_target_is_left_out() -> None:
    sources = {"a": SourceCounts(documents=1, tokens=10, bytes=40), "b": SourceCounts(), "c": SourceCounts()}
    held = HeldOut(2.0, torch.tensor([8.0, 0.0, 0.0]), torch.tensor([4.0, 0.0, 0.0]))
    assert by_source(held, sources, causal=True) == {BITS: {"a": pytest.approx(2 / math.log(2) * 10 / 40)}}
    assert by_source(held, sources, causal=False) == {NATS: {"a": 2.0}}
    assert by_source(HeldOut(2.0, torch.zeros(0), torch.zeros(0)), {}, causal=True) == {}


def test_two_workers_find_what_one_finds(
    rank_pool: RankPool, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    report = pretrain_in(tmp_path / "one", mixed, SETTINGS)
    rows = [row for row in training_rows(tmp_path / "one") if "validation_loss" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(set(row[BITS]) == set(SOURCES) for row in rows)
    assert report.validation_bits_per_byte_by_source == rows[-1][BITS] and not report.validation_loss_by_source
    for name, layout in (("zero3", {"zero_stage": 3}), ("pipeline", {"pipeline_stages": 2, "zero_stage": 1})):
        request = write_request(tmp_path / name, mixed, {**SETTINGS, "workers": 2, **layout})
        rank_pool.run(2, pretrain_in_a_rank, request)
        others = [row for row in training_rows(tmp_path / name) if "validation_loss" in row]
        for row, other in zip(rows, others, strict=True):
            assert other["validation_loss"] == pytest.approx(row["validation_loss"], abs=1e-5)
            assert other[BITS] == pytest.approx(row[BITS], abs=1e-4)


def test_a_source_that_was_trained_on_costs_less_than_a_foreign_one(mixed: Path) -> None:
    """Three sources of the same kind of text, of which the targets of one alone are learned from."""
    side = PackedTokens(mixed / "pack", "valid")
    engine = engine_for(side.vocab_size)
    tokens = torch.from_numpy(side.tokens.read(0, len(side.tokens)).astype(np.int64))
    known = torch.from_numpy(side.source_ids(0, len(tokens)) == 0)
    draw = random.Random(0)
    for _ in range(60):
        starts = [draw.randrange(len(tokens) - 33) for _ in range(8)]
        rows = torch.stack([tokens[start : start + 33] for start in starts])
        mask = torch.stack([known[start + 1 : start + 33] for start in starts])
        if mask.any():
            cross_entropy_sum(engine.model, rows[:, :-1], rows[:, 1:], mask)[0].div(mask.sum()).backward()
            engine.step()
    held, _ = found_in(mixed, engine)
    bits = by_source(held, side.sources, causal=True)[BITS]
    assert bits[SOURCES[0]] < min(bits[name] for name in SOURCES[1:])


@pytest.mark.parametrize("sources", [0, 1])
def test_an_older_folder_and_one_source_have_no_parts(mixed: Path, tmp_path: Path, sources: int) -> None:
    shutil.copytree(mixed / "pack", tmp_path / "pack")
    path = tmp_path / "pack" / "index.json"
    index = json.loads(path.read_text())
    known = index["splits"]["valid"]["sources"]
    index["splits"]["valid"]["sources"] = dict(list(known.items())[:sources])
    if not sources:
        del index["splits"]["valid"]["sources"]
        (tmp_path / "pack" / "valid.sources.npy").unlink()
    path.write_text(json.dumps(index))
    engine = engine_for(index["vocab_size"])
    held, _ = found_in(tmp_path, engine)
    assert len(held.source_nats) == 0
    assert held.loss.hex() == found_in(mixed, engine)[0].loss.hex()


def test_names_of_sources_become_names_that_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    names = ["django==5.2.19", "a=1", "a_1", "a?1", "org/pages", "..", "", "Übung", "x" * 300, "x" * 301]
    found = numbers({"step": 3, BITS: {name: place for place, name in enumerate(names)}})
    assert sorted(found.values()) == list(range(len(names)))
    for name in found:
        _validate_metric_name(name)
    assert found[f"{BITS}/django__5.2.19"] == 0 and found[f"{BITS}/a_1"] == 2 and found[f"{BITS}/org_pages"] == 4

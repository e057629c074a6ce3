"""Two ranks, and the second is in trouble: for test_failure.py, in a RankPool."""

import json
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.checkpointing.saver import Saver
from sluice.model.training.checkpointing.shards import Snapshot
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.faults.diagnosis import diagnose
from sluice.model.training.faults.preemption import Preemption
from sluice.model.training.optimization.optimizer import build_optimizer

CONFIG = TransformerConfig(vocab_size=31, hidden_size=8, layers=2, heads=2, kv_heads=1, intermediate_size=12, context=8)


def some_batch() -> Batch:
    ids = torch.randint(CONFIG.vocab_size, (4, CONFIG.context + 1), generator=torch.Generator().manual_seed(1))
    return Batch(ids[:, :-1].clone(), ids[:, 1:].clone())


def engine_of(config: TransformerConfig) -> LocalEngine:
    model = Transformer(config)
    initialize(model, 1)
    return LocalEngine(model, build_optimizer(model, PretrainConfig(workers=1)))


def preempt_in_a_thread(rank: int, notice: Path) -> tuple[bool, list[bool]]:
    """Where no signal is heard: the file is seen by the second rank alone."""
    preemption = Preemption(world=2, notice=notice if rank == 1 else None)
    with preemption:
        asked = [preemption.requested()]
        if rank == 1:
            notice.touch()
        asked.append(preemption.requested())
        return preemption.listens, asked


def preempt(rank: int) -> tuple[list[bool], bool]:
    with Preemption(world=2) as preemption:
        asked = [preemption.requested()]
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        asked.append(preemption.requested())
        return asked, preemption._received


def save(folder: Path, rank: int) -> list[str | None]:
    saver, outcomes = Saver(folder, rank=rank, world=2), list[str | None]()
    for step, elements in ((1, 10), (2, 100_000)):
        if rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
        shards = {f"weight:master:{rank * elements}": torch.ones(elements if rank == 1 else 10)}
        saver.save(step, Snapshot(shards, {"weight": (2 * elements,)}), [], {})
        outcomes.append(saver.wait())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return outcomes


def diagnose_one(folder: Path, rank: int) -> str:
    engine = engine_of(CONFIG)
    if rank == 1:
        with torch.no_grad():
            engine.model.embedding.weight[3, 3] = float("nan")
    return diagnose(engine, some_batch(), 4, step=3, what="the loss is nan", folder=folder)


def trouble_in_the_second(folder: str) -> None:
    out = Path(folder)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    asked, received = preempt(rank)
    with ThreadPoolExecutor(1) as pool:
        listens, by_notice = pool.submit(preempt_in_a_thread, rank, out / "notice").result()
    outcome = {
        "listens": listens,
        "by_notice": by_notice,
        "asked": asked,
        "received": received,
        "saved": save(out / "checkpoints", rank),
        "diagnosis": diagnose_one(out, rank),
    }
    (out / f"{rank}.json").write_text(json.dumps(outcome))
    dist.barrier()

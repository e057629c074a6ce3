"""A run of one process with all that a checkpoint holds: dropout, guard, average. As a script it is killed midway.

interrupted_run.py FOLDER STEP [FOLDER STEP ..]
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sluice.core.progress import no_progress
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.checkpointing.resume import CheckpointManager
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.loop import LoopClock, LoopHooks, train
from sluice.model.training.optimization.averaging import WeightAverage
from sluice.model.training.optimization.guard import StepGuard
from sluice.model.training.optimization.optimizer import build_optimizer

STEPS, SAVE_EVERY = 70, 5
CONFIG = TransformerConfig(
    vocab_size=31, hidden_size=8, layers=1, heads=2, kv_heads=1, intermediate_size=12, context=8, dropout=0.2
)


def batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(CONFIG.vocab_size, (4, CONFIG.context + 1), generator=generator)
    # Now and then something that the guard leaves out.
    return Batch(ids[:, :-1], ids[:, 1:] if step % 16 else ids[:, 1:] * 0)


def new_engine(seed: int) -> LocalEngine:
    torch.manual_seed(seed)
    model = Transformer(CONFIG)
    initialize(model, seed)
    config = PretrainConfig(workers=1, batch_size=4, micro_batch_size=4, learning_rate=0.02)
    return LocalEngine(model, build_optimizer(model, config))


def go(
    folder: Path,
    seed: int = 1,
    before: Callable[[int], None] = lambda _: None,
    preempted: Callable[[], bool] = lambda: False,
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor], list[str]]:
    """Train to the end from whatever is in `folder`. Returns the log, the average of the weights, and the notes."""
    engine = new_engine(seed)
    average, guard = WeightAverage(dict(engine.model.named_parameters()), 0.9), StepGuard(2.0, window=8)

    def read(step: int) -> Batch:
        before(step)
        return batch(step)

    with CheckpointManager(folder, engine, guard=guard, average=average, keep=3) as continuation:
        done, log = continuation.resume()
        hooks = LoopHooks(
            steps=STEPS,
            micro_batch_size=4,
            learning_rate_scale=lambda step: 1 - step / STEPS,
            batch=read,
            guard=guard,
            average=average,
            save=continuation.save,
            save_every=SAVE_EVERY,
            preempted=preempted,
        )
        log = train(engine, hooks, done=done, log=log, progress=no_progress, clock=LoopClock())
        assert continuation.finish() is None
        return log, {**average.state(), "updates": torch.tensor(average.updates)}, continuation.take_notes()


def kill_at(step: int) -> Callable[[int], None]:
    def kill(at: int) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


if __name__ == "__main__":
    for folder, step in zip(sys.argv[1::2], map(int, sys.argv[2::2]), strict=True):
        # A fork each, so that torch is imported once; no operation has run yet, so there are no threads to lose.
        if not (pid := os.fork()):
            go(Path(folder), before=kill_at(step))
            sys.exit(f"the run in {folder} ended before step {step}")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, (folder, status)

"""One worker of a pretraining run: set-up, training and export. Ray Train, torchrun and a plain call all start here."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from pydantic import BaseModel
from torch import Tensor

from sluice.core.cpus import available_cores
from sluice.core.progress import Note, Progress, no_progress
from sluice.data.packing import PackedTokens
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.directory import load_transformer, save_continued
from sluice.model.training.batches.batch import Batch
from sluice.model.training.batches.dataset import TrainingBatches, source_names, special_tokens, validation_batches
from sluice.model.training.batches.objectives import Objective
from sluice.model.training.checkpointing import checkpoints
from sluice.model.training.checkpointing.export import export_model
from sluice.model.training.checkpointing.lock import locked
from sluice.model.training.checkpointing.randomness import seed_random
from sluice.model.training.checkpointing.resume import CheckpointManager
from sluice.model.training.engines.build import build_engine
from sluice.model.training.engines.engine import TrainingEngine
from sluice.model.training.faults.diagnosis import diagnose
from sluice.model.training.faults.preemption import Preemption
from sluice.model.training.faults.watchdog import Watchdog
from sluice.model.training.loop import LoopClock, LoopHooks, train, validate
from sluice.model.training.optimization.averaging import WeightAverage
from sluice.model.training.optimization.guard import StepGuard
from sluice.model.training.optimization.schedule import rate
from sluice.model.training.telemetry.metrics import StepMetrics, matmul_peak, training_flops_per_token
from sluice.model.training.telemetry.sources import BITS, NATS, by_source

_GROUP_TIMEOUT = timedelta(minutes=10)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Job(BaseModel):
    """A pretraining run, as it is sent to its workers."""

    config: PretrainConfig
    model: TransformerConfig | ModelConfig
    packed: Path
    tokenizer: Path
    base: Path | None = None
    """Model directory whose weights the run begins at, of the configuration `model`."""
    context: int
    """Tokens of a training sequence."""
    out: Path
    state: Path
    """Folder of this run's checkpoints: no other run may resume from them."""
    others: list[Path] = []
    """Folders of the same run's checkpoints in other layouts, to resume from where they are further."""
    lineage: dict[str, Any]
    started: float
    """Time at which the run was requested, in seconds since the epoch."""

    @property
    def result(self) -> Path:
        return self.state / "result.json"

    @property
    def notice(self) -> Path:
        """Exists when the run was asked to stop and its workers cannot receive the signal."""
        return self.state / "stop-requested"


def run_worker(job: Job, progress: Progress = no_progress) -> None:
    """Train as one of the processes of the current group; rank 0 writes the model, training.jsonl and `job.result`."""
    config, rank, processes = job.config, dist.get_rank(), dist.get_world_size()
    assert processes == config.workers, f"{processes} processes for pretrain.workers {config.workers}"
    # The number of threads is part of the arithmetic: it depends on the cores, not on the launcher.
    torch.set_num_threads(threads(available_cores(), processes))
    progress = progress if rank == 0 else no_progress
    progress(0, config.steps, "starting workers")

    train_tokens, valid_tokens = PackedTokens(job.packed, "train"), PackedTokens(job.packed, "valid")
    special = special_tokens(job.tokenizer)
    if job.base is None:
        vocabulary = Objective.of(config, train_tokens.vocab_size, train_tokens.eos_id, special).model_vocabulary
        model = Transformer(TransformerConfig.from_settings(job.model, vocabulary))
        initialize(model, config.seed)
    else:
        model = load_transformer(job.base).train()
    seed_random(config.seed, rank)
    model.to(_device(), _DTYPES[config.dtype])
    with tempfile.TemporaryDirectory(prefix="sluice-extensions-") as extensions:
        engine = build_engine(model, config, Path(extensions))

    batches = TrainingBatches(train_tokens, config, job.context, special=special, rank=engine.rank, world=engine.world)
    metrics = None
    if config.metrics_every is not None:
        metrics = StepMetrics(
            engine,
            every=config.metrics_every,
            flops_per_token=training_flops_per_token(engine.model.config.model_copy(update={"context": job.context})),
            peak_flops=matmul_peak(config.dtype, torch.get_num_threads() * processes, processes),
        )
    with _Run(job, engine, batches, valid_tokens, metrics) as run:
        run.train(progress)


class _Run:
    """The state around the steps of one worker: checkpoints, watchdog, preemption, metrics."""

    def __init__(
        self,
        job: Job,
        engine: TrainingEngine,
        batches: TrainingBatches,
        valid: PackedTokens,
        metrics: StepMetrics | None,
    ) -> None:
        config = job.config
        self.job, self.engine, self.batches, self.valid, self.metrics = job, engine, batches, valid, metrics
        self.rank = dist.get_rank()
        self.guard = StepGuard(config.skip_sigma, config.skip_window) if config.skip_sigma else None
        self.average = None
        if config.average_decay is not None:
            self.average = WeightAverage(engine.weights(), config.average_decay)
        self.checkpoints = CheckpointManager(
            job.state,
            engine,
            keep=config.keep_checkpoints,
            keep_every=config.keep_every,
            guard=self.guard,
            average=self.average,
        )
        self.preemption = Preemption(
            dist.get_world_size(), next(engine.model.parameters()).device, notice=job.notice if self.rank == 0 else None
        )
        stacks = job.state / f"stacks-rank-{self.rank:05d}.txt"
        self.watchdog = Watchdog(config.watchdog_s, stacks, name=f"worker {self.rank}")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.rank == 0:
                stack.enter_context(locked(self.job.state))
            for each in (self.watchdog, self.preemption, self.checkpoints):
                # Left in reverse order: the last write ends while SIGTERM is still handled.
                stack.enter_context(each)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def train(self, progress: Progress) -> None:
        """Train to the last step and export the model."""
        done, log = self.checkpoints.resume(self.job.others)
        # Not before: a branch that is under way no longer needs its plateau, which may have been removed.
        if not done and self.job.config.decay_from is not None:
            try:
                plateau = checkpoints.open_checkpoint(Path(self.job.config.decay_from))
            except ValueError as error:
                raise ValueError(f"pretrain.decay_from: {error}") from None
            done, log = self.checkpoints.branch_from(plateau, self.engine.model.config, self.job.config.optimizer)
        self._report_notes(progress, done)
        if self.metrics is not None:
            self.metrics.start()
        clock, ready = LoopClock(), time.time()
        log = train(self.engine, self._hooks(progress), done=done, log=log, progress=progress, clock=clock)
        timings = {
            "launch_seconds": ready - self.job.started,
            "train_seconds": clock.train,
            "validate_seconds": clock.validate,
            "checkpoint_seconds": clock.save,
            "tokens_per_second": clock.tokens / clock.train if clock.train else 0.0,
            "resumed_step": float(done),
        }
        with self._averaged():
            weights = self.engine.full_weights()
        if self.rank == 0:
            _finish(self.job, self.engine.model.config, self.batches.objective, weights, log, timings, self.metrics)
        self.checkpoints.finish()
        self._report_notes(progress, self.job.config.steps)
        dist.barrier()

    def _report_notes(self, progress: Progress, done: int) -> None:
        for note in self.checkpoints.take_notes():
            progress(done, self.job.config.steps, Note(note))

    def _hooks(self, progress: Progress) -> LoopHooks:
        config = self.job.config

        def save(step: int, log: list[dict[str, Any]]) -> None:
            self.checkpoints.save(step, log)
            self._report_notes(progress, step)

        return LoopHooks(
            steps=config.steps,
            micro_batch_size=config.micro_batch_size,
            learning_rate_scale=lambda step: rate(config, step, decay_start=self.checkpoints.branch),
            batch=self.batches.read,
            guard=self.guard,
            average=self.average,
            validate=self._validate,
            validate_every=config.validate_every,
            save=save,
            save_every=config.checkpoint_every,
            inspect=self.metrics.inspect if self.metrics is not None else None,
            observe=self.metrics.observe if self.metrics is not None else None,
            diagnose=lambda batch, step, what: diagnose(
                self.engine, batch, config.micro_batch_size, step=step, what=what, folder=self.job.state
            ),
            preempted=self.preemption.requested,
            beat=self.watchdog.beat,
        )

    def _validate(self) -> dict[str, Any]:
        config, objective = self.job.config, self.batches.objective
        names = source_names(self.valid, objective)

        def held_out() -> Iterator[Batch]:
            for batch in validation_batches(
                self.valid,
                objective,
                self.job.context,
                windows=config.validation_batches * config.batch_size,
                rows=config.micro_batch_size,
                rank=self.engine.rank,
                world=self.engine.world,
            ):
                # Keeps the watchdog alive during validation.
                self.watchdog.beat()
                yield batch

        with self._averaged():
            found = validate(self.engine, held_out(), len(names))
        sources = {name: self.valid.sources[name] for name in names}
        return {"validation_loss": found.loss, **by_source(found, sources, causal=objective.name == "causal")}

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.swapped()


def _finish(  # noqa: PLR0917
    job: Job,
    shape: TransformerConfig,
    objective: Objective,
    weights: dict[str, Tensor],
    log: list[dict[str, Any]],
    timings: dict[str, float],
    metrics: StepMetrics | None,
) -> None:
    # 16-bit training keeps its rounded weights: they are what was validated.
    with torch.device("meta"):
        model = Transformer(shape)
    model.load_state_dict({name: weight.float().cpu() for name, weight in weights.items()}, assign=True)
    if job.base is None:
        export_model(job.out, model, job.tokenizer, objective, job.lineage)
    else:
        save_continued(job.out, model, job.base, job.lineage)
    (job.out / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    parameters = sum(each.numel() for each in model.parameters())
    validation = [row for row in log if "validation_loss" in row][-1]
    result = {
        "parameters": parameters,
        "parameters_without_embedding": parameters - model.embedding.weight.numel(),
        "final_loss": [row["loss"] for row in log if "loss" in row][-1],
        **{name: validation[name] for name in ("validation_loss", BITS, NATS) if name in validation},
        "timings": timings | ({"speed": metrics.speed} if metrics is not None else {}),
    }
    job.result.write_text(json.dumps(result), encoding="utf-8")


def threads(cores: int, processes: int) -> int:
    """Threads for one of `processes` on a machine with `cores` cores. On several machines `LOCAL_WORLD_SIZE` is the
    number of processes on this one.
    """
    return max(1, cores // min(processes, int(os.environ.get("LOCAL_WORLD_SIZE", processes))))


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def join_group() -> None:
    """Join the process group that torchrun's environment describes, or else a group of only this process.

    It stays for the life of the process: DeepSpeed remembers its first group.
    """
    if dist.is_initialized():
        return
    launched = dist.is_torchelastic_launched()
    if not launched:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed refuses to start without it
    # Before the first collective, for which NCCL would otherwise take GPU 0 in every process.
    backend = "nccl" if _device().type == "cuda" else "gloo"
    if launched:
        dist.init_process_group(backend, timeout=_GROUP_TIMEOUT)
        return
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=_GROUP_TIMEOUT)

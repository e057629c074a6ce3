"""Start the workers of a pretraining run: by Ray Train, torchrun or in this process. The package's only file that
imports Ray Train; `search/sweep.py` imports Ray Tune, and joins Ray from here.
"""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from sluice.core.local_ray import LocalRay, connect
from sluice.core.out_of_memory import count_oom_kills, describe_kills
from sluice.core.progress import Note, Progress
from sluice.model.training.errors import TrainingFailed, TrainingInterrupted
from sluice.model.training.faults.preemption import forwarded_to
from sluice.model.training.worker import Job, join_group, run_worker

Result = TypeVar("Result")
_EVICTED = ("OutOfMemoryError", "low on memory")
"""Words in Ray's errors about a process that its memory monitor killed."""
_RESUMES = "; the next run goes on from the newest checkpoint"
_RAY_ENDED_WITHIN_S = 2.0
"""Whoever works on Ray fails about as soon as Ray's end is seen."""


def launch(job: Job, progress: Progress, *, restarts: int = 0) -> dict[str, Any]:
    """Run the job's workers to their end and return what rank 0 reported.

    Under torchrun this process is one of them. Otherwise they run under Ray Train where RAY_ADDRESS is set or there is
    more than one, and a single one in this process. When one of Ray's workers dies, all start again from the newest
    checkpoint, at most `restarts` times (torchrun has its own --max-restarts). Raises TrainingFailed in one line if any
    of them fails.
    """
    job.result.unlink(missing_ok=True)
    if dist.is_torchelastic_launched():
        if (world := int(os.environ["WORLD_SIZE"])) != job.config.workers:
            raise ValueError(f"torchrun started {world} processes, but pretrain.workers is {job.config.workers}")
        join_group()
        dist.barrier()  # no rank may still be removing the last result when rank 0 writes the new one
        run_worker(job, progress)
    elif os.environ.get("RAY_ADDRESS") or job.config.workers > 1:
        with joined_ray(job.config.workers, job.state / "ray.log"):
            import ray

            # Defaults that Ray Train reads from this process's environment; values of the user stay.
            # On a busy small machine two workers import torch for longer than the default minute.
            os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
            if len(ray.nodes()) == 1:
                # The one machine is not taken away while the caller lives; watching for it is a process of its own.
                os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            resources = ray.cluster_resources()
            # A GPU for every worker or for none: workers on GPUs and on CPUs could not communicate.
            gpu = resources.get("GPU", 0) >= job.config.workers
            # Ray leaves GPUs visible to workers without one. When our code runs there, torch has already looked.
            hidden = {"CUDA_VISIBLE_DEVICES": ""} if resources.get("GPU") and not gpu else {}
            _fit(job, progress, gpu=gpu, restarts=restarts, environment=hidden)
    else:
        join_group()
        run_worker(job, progress)
    result: dict[str, Any] = json.loads(job.result.read_text(encoding="utf-8"))
    return result


@contextmanager
def joined_ray(cpus: int | None = None, log: Path | None = None) -> Iterator[None]:
    """Ray inside: the cluster that this process is in or RAY_ADDRESS names, else one of `cpus` (all) that ends with it
    and prints to `log`, or to standard error.

    SIGTERM and Ctrl-C keep their handlers, inside and after it. Raises TrainingInterrupted where SIGTERM comes
    while Ray is joined, and TrainingFailed where a cluster of our own dies.
    """
    import ray

    if ray.is_initialized():
        with _signals_kept():
            yield
        return
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    # Never a cluster that happens to run on this host.
    own = None if os.environ.get("RAY_ADDRESS") else LocalRay(cpus, log=log).start()
    with _signals_kept():
        try:
            try:
                with _signals_kept():
                    if own is None:
                        level = logging.WARNING
                        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=level)
                    else:
                        connect(own.address)
            except SystemExit as ended:
                # Ray's own handler of SIGTERM ends the process with the signal's number.
                if ended.code != signal.SIGTERM:
                    raise
                raise TrainingInterrupted("stop requested while Ray was starting") from None
            yield
        except Exception as error:
            if own is not None and (why := own.why_ended(_RAY_ENDED_WITHIN_S)):
                raise TrainingFailed(f"{why}{_RESUMES}") from error
            raise
        finally:
            ray.shutdown()
            if own is not None:
                own.stop()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the SIGTERM and SIGINT handlers on exit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_in_thread(work: Callable[[], Result]) -> Result:
    """Return or raise the result of `work`, run in a thread: outside of the main thread Ray's libraries leave Ctrl-C
    alone, which they would otherwise treat as a request to end quietly.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="run_in_thread", daemon=True).start()
    return done.result()


def _fit(job: Job, progress: Progress, *, gpu: bool, restarts: int, environment: dict[str, str] | None = None) -> None:
    """`environment` is added to that of the workers' processes."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    oom_kills = count_oom_kills()
    for attempt in range(restarts + 1):
        trainer = TorchTrainer(
            _ray_worker,
            train_loop_config={"job": job, "progress": progress},
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=job.config.workers, use_gpu=gpu),
            run_config=RunConfig(
                name=f"ray-{attempt}",
                storage_path=str(job.state),
                # Ray's own retries would repeat a run that fails deterministically.
                failure_config=FailureConfig(max_failures=0),
                # An argument of Ray Train's second version, which is the one in use.
                worker_runtime_env={"env_vars": environment} if environment else None,  # type: ignore[call-arg]
            ),
        )
        with forwarded_to(job.notice) as stop_requested:
            try:
                run_in_thread(trainer.fit)
            except TrainingFailedError as error:
                failed = error
            else:
                return
        failures: dict[int, Exception] = getattr(failed, "worker_failures", {})
        for raised in map(_raised, failures.values()):
            if isinstance(raised, TrainingInterrupted):
                raise raised from failed
        if stop_requested():
            raise TrainingInterrupted(f"stop requested, and lost {_first_cause(failed, oom_kills)}") from failed
        # A restart helps where processes died, not where our code raised an error.
        own = [each for each in failures.values() if not _is_lost_peer(each)]
        died = bool(failures) and all(_raised(each) is None for each in own)
        if attempt == restarts or not died:
            raise TrainingFailed(f"{_first_cause(failed, oom_kills)}{_RESUMES if died else ''}") from failed
        note = f"a worker died: start {attempt + 2} of at most {restarts + 1}, from the newest checkpoint"
        progress(0, job.config.steps, Note(note))


def _ray_worker(settings: dict[str, Any]) -> None:
    """Runs in a worker of Ray Train, which has made the process group."""
    run_worker(settings["job"], settings["progress"])


def _first_cause(error: Exception, oom_kills: int | None = None) -> str:
    """The failure that caused the others, in one line naming its worker; `oom_kills` as counted before the start."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return " ".join(str(error).split())
    # When a worker dies, its peers fail too, in the middle of a collective: name the one with a reason of its own.
    rank, failure = min(sorted(failures.items()), key=lambda item: _is_lost_peer(item[1]))
    cause = _raised(failure)
    if cause is None:
        is_evicted = any(mark in str(failure) for mark in _EVICTED)
        kills = "memory ran out (Ray killed it)" if is_evicted else describe_kills(oom_kills, count_oom_kills())
        return f"worker {rank}: its process died, {kills or 'without a message'}"
    text = " ".join(str(cause).split())
    return f"worker {rank}: {text if isinstance(cause, TrainingFailed) else f'{type(cause).__name__}: {text}'}"


def _raised(failure: Exception) -> BaseException | None:
    """The exception of a worker; None where the worker died without one, for which Ray raises its own error."""
    # Ray passes the exception of a worker on as it is, or wrapped.
    cause: BaseException = getattr(failure, "_base_exc", None) or getattr(failure, "cause", None) or failure
    return None if type(cause).__module__.partition(".")[0] == "ray" else cause


def _is_lost_peer(error: Exception) -> bool:
    return any(mark in str(error) for mark in ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer"))

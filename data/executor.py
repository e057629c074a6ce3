"""Run independent tasks on the run's Ray cluster, or in local processes without one."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from sluice.core.failure import Failure, describe
from sluice.core.out_of_memory import count_oom_kills, describe_exit
from sluice.core.progress import Progress, no_progress

Item = TypeVar("Item")
Result = TypeVar("Result")
RunTasks = Callable[..., list[Any]]
"""Called like `run_tasks`."""

PATIENCE_S = 600.0
"""Time without a finished task after which the call fails and names what it waited for."""
_JOIN_S = 5.0
_POLL_S = 0.01


class TaskFailed(Failure):
    """A task raised, died or timed out; the message names its item."""


class WorkerDied(TaskFailed):
    """A local worker process ended by itself, for example because it was killed."""


def run_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    progress: Progress = no_progress,
    note: str = "tasks",
    patience_s: float = PATIENCE_S,
    processes: "Processes | None" = None,
) -> list[Result]:
    """Return `[function(item) for item in items]`, at most `workers` at a time, on Ray if RAY_ADDRESS is set.

    Function, items and results are pickled. Local workers are those of `processes`; without it they end with the call.
    Raises TaskFailed for the first task that fails, after which no other task starts, or when none finishes within
    `patience_s` seconds.
    """
    if workers < 1:
        raise ValueError(f"workers {workers} must be at least 1")
    if os.environ.get("RAY_ADDRESS"):
        finished = _on_ray(function, items, workers, patience_s)
    elif workers == 1 or len(items) <= 1:
        finished = _here(function, items)
    else:
        finished = _in_processes(function, items, workers, patience_s, processes)
    results: dict[int, Result] = {}
    for index, result in finished:
        results[index] = result
        progress(len(results), len(items), note)
    assert len(results) == len(items), f"{len(results)} results for {len(items)} items"
    return [results[index] for index in range(len(items))]


class Processes:
    """Local workers, started on first use and then reused, so that they import modules only once."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._workers = 0

    def pool(self, workers: int) -> ProcessPoolExecutor:
        if self._workers < workers:
            self.end()
        if self._pool is None:
            self._workers = workers
            # Spawned: a fork of a process with threads (Ray, tokenizers, a progress bar) may inherit a held lock.
            self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        return self._pool

    def end(self, *, wait: bool = True) -> None:
        """Stop the workers; without `wait`, terminate them instead of waiting for their tasks."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        running = list((pool._processes or {}).values())
        pool.shutdown(wait=wait, cancel_futures=not wait)
        for process in [] if wait else running:
            process.terminate()


@contextmanager
def lasting_workers() -> Iterator[RunTasks]:
    """Yield a `run_tasks` that reuses its local processes until the end of the block."""
    processes = Processes()
    try:
        yield partial(run_tasks, processes=processes)
    except BaseException:
        processes.end(wait=False)
        raise
    processes.end()


def _here(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    for index, item in enumerate(items):
        try:
            yield index, function(item)
        except Exception as error:
            raise _failed(item, error) from error


def _in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    patience_s: float,
    lasting: Processes | None,
) -> Iterator[tuple[int, Result]]:
    here = lasting or Processes()
    pool = here.pool(workers)
    waiting = list(enumerate(items))[::-1]
    # No more tasks than workers, so that it is known what was running when a worker dies.
    running: dict[Future[Result], int] = {}
    oom_kills = count_oom_kills()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, item = waiting.pop()
                # A worker that starts here inherits the mask: at Ctrl-C this process ends it, without a traceback.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    running[pool.submit(function, item)] = index
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
            processes = list((pool._processes or {}).values())
            done, _ = wait(running, timeout=patience_s, return_when=FIRST_COMPLETED)
            if not done:
                raise _stalled([items[index] for index in running.values()], patience_s)
            for future in done:
                try:
                    result = future.result()
                except BrokenProcessPool as error:
                    raise _died([items[index] for index in running.values()], processes, oom_kills) from error
                except Exception as error:
                    raise _failed(items[running[future]], error) from error
                yield running.pop(future), result
    except BaseException:
        here.end(wait=False)
        raise
    if lasting is None:
        here.end()


def _on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, patience_s: float
) -> Iterator[tuple[int, Result]]:
    import ray

    if not ray.is_initialized():
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    # A task lost to a crash of its node is retried; an error raised by the function is not.
    task = ray.remote(num_cpus=1, max_retries=1)(function)
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, item = waiting.pop()
                running[task.remote(item)] = index
            done, _ = ray.wait(list(running), num_returns=1, timeout=patience_s)
            if not done:
                raise _stalled([items[index] for index in running.values()], patience_s)
            index = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except Exception as error:
                raise _failed(items[index], error) from error
            yield index, result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _failed(item: object, error: BaseException) -> TaskFailed:
    # Ray wraps the task's own error in one whose text is a traceback.
    cause = getattr(error, "cause", None) or error
    return TaskFailed(f"task {_name(item)} failed: {describe(cause)}")


def _died(items: Sequence[object], processes: Sequence[BaseProcess], oom_kills: int | None) -> WorkerDied:
    deadline = time.monotonic() + _JOIN_S
    for process in processes:
        # join() returns at once, without a code, while the pool's own thread is the one that reaps the process.
        while process.exitcode is None and time.monotonic() < deadline:
            process.join(timeout=_POLL_S)
            time.sleep(_POLL_S)
    # The pool ends the other workers with SIGTERM; a worker that ended otherwise is the one that died.
    codes = [code for each in processes if (code := each.exitcode) not in {None, 0, -signal.SIGTERM}]
    is_signal = bool(codes) and codes[0] < 0
    how = describe_exit(codes[0], oom_kills, count_oom_kills()) if is_signal else "ended without an error message"
    return WorkerDied(f"a worker process {how} at {' or '.join(map(_name, items))}")


def _stalled(items: Sequence[object], patience_s: float) -> TaskFailed:
    return TaskFailed(f"no task finished within {patience_s:g} s; waited for {', '.join(map(_name, items[:4]))}")


def _name(item: object) -> str:
    name = str(item)
    return name if len(name) <= 200 else f"{name[:200]}..."

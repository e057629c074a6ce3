"""When a run under Ray Train starts again, and whom it blames when it does not."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_fixtures import HANG_S

from sluice.core.progress import no_progress
from sluice.model.training import launch, worker
from sluice.model.training.errors import TrainingFailed, TrainingInterrupted

LOST_PEER = "gloo/transport/tcp/pair.cc: Connection closed by peer"


def group_error(failures: dict[int, Exception]) -> Exception:
    from ray.train.v2.api.exceptions import WorkerGroupError

    return WorkerGroupError("workers failed", failures)


def wrapped(error: Exception) -> Exception:
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    return UserExceptionWithTraceback(error, f"Traceback ..: {error}")


def gone(why: Exception | None = None) -> Exception:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return WorkerHealthCheckFailedError("health check failed", why or ActorDiedError())


def job(folder: Path) -> Any:
    return SimpleNamespace(config=SimpleNamespace(workers=2, steps=10), state=folder, notice=folder / "stop-requested")


def asked_to_end(folder: Path) -> None:
    """SIGTERM to the launching process, whose main thread hears it."""
    os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + HANG_S
    while not job(folder).notice.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def sigterm(folder: Path) -> Exception:
    """The launching process is asked to stop, and the workers see it and end."""
    asked_to_end(folder)
    return group_error({0: TrainingInterrupted("stopped on request after step 3 of 10; it is saved")})


def drained(folder: Path) -> Exception:
    """It is asked to stop, and a worker's machine is gone before that worker could."""
    asked_to_end(folder)
    return group_error({1: gone()})


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Ends of the attempts; taken from the front."""
    import ray.train.torch

    ends: list[Any] = []

    class Trainer:
        def __init__(self, *_: Any, **settings: Any) -> None:
            assert settings["run_config"].failure_config.max_failures == 0
            assert settings["run_config"].worker_runtime_env == {}

        def fit(self) -> None:
            end = ends.pop(0)
            if (error := end(tmp_path) if callable(end) else end) is not None:
                raise error

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    return ends


def test_a_run_whose_worker_died_starts_again(attempts: list[Any], tmp_path: Path) -> None:
    lost = RuntimeError(LOST_PEER)
    attempts.extend([group_error({0: lost, 1: gone()}), group_error({1: gone()}), None])
    launch._fit(job(tmp_path), no_progress, gpu=False, restarts=2)
    assert attempts == []


def test_restarts_are_counted(attempts: list[Any], tmp_path: Path) -> None:
    attempts.extend([group_error({1: gone()}), group_error({1: gone()}), None])
    with pytest.raises(TrainingFailed, match=r"^worker 1: its process died"):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=1)
    assert attempts == [None]


@pytest.mark.parametrize("delivered", [lambda error: error, wrapped])
def test_a_run_that_fails_by_itself_does_not(
    attempts: list[Any], tmp_path: Path, delivered: Callable[[Exception], Exception]
) -> None:
    """Ray has been seen to deliver the error itself, and has a wrapper for it."""
    lost = delivered(RuntimeError(LOST_PEER))
    attempts.extend([group_error({0: lost, 1: delivered(TrainingFailed("the loss is nan at step 3"))}), None])
    with pytest.raises(TrainingFailed, match=r"^worker 1: the loss is nan at step 3$"):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=5)
    assert attempts == [None]


def test_being_asked_to_end_reaches_the_workers_and_is_no_failure(attempts: list[Any], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    job(tmp_path).notice.touch()  # of an earlier run: it must end nothing
    attempts.extend([group_error({1: gone()}), sigterm, None])
    with pytest.raises(TrainingInterrupted, match="after step 3 of 10; it is saved"):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=5)
    assert attempts == [None]
    assert signal.getsignal(signal.SIGTERM) is before
    assert not job(tmp_path).notice.exists()


def test_a_worker_lost_after_being_asked_to_end_does_not_start_again(attempts: list[Any], tmp_path: Path) -> None:
    attempts.extend([drained, None])
    with pytest.raises(TrainingInterrupted, match=r"^stop requested, and lost worker 1: "):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=5)
    assert attempts == [None]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs, which tests may be, ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stays_with_the_launching_process(attempts: list[Any], tmp_path: Path) -> None:
    """Ray Train would take it in the main thread, and end with status 1 and without a word."""
    ended = threading.Event()

    def ctrl_c(_: Path) -> None:
        assert threading.current_thread() is not threading.main_thread()
        os.kill(os.getpid(), signal.SIGINT)
        assert ended.wait(HANG_S)

    attempts.append(ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=5)
    ended.set()


def test_what_is_done_beside_returns_and_raises_as_it_is() -> None:
    assert launch.run_in_thread(lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        launch.run_in_thread(lambda: {}["x"])


def test_an_error_is_named_with_its_kind() -> None:
    assert launch._first_cause(group_error({0: KeyError("x")})) == "worker 0: KeyError: 'x'"


def test_a_worker_that_died_is_told_with_the_memory_and_what_goes_on(
    attempts: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import OutOfMemoryError

    attempts.append(group_error({1: gone()}))
    with pytest.raises(TrainingFailed, match=r"^worker 1: its process died, without a message; the next run goes on"):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=0)
    counts = iter([4, 6])
    monkeypatch.setattr(launch, "count_oom_kills", lambda: next(counts))
    attempts.append(group_error({1: gone()}))
    with pytest.raises(TrainingFailed, match=r"died, memory ran out \(2 processes killed by the kernel\); the next"):
        launch._fit(job(tmp_path), no_progress, gpu=False, restarts=0)
    evicted = group_error({0: gone(OutOfMemoryError("Task was killed due to the node running low on memory."))})
    assert launch._first_cause(evicted) == "worker 0: its process died, memory ran out (Ray killed it)"


@pytest.mark.parametrize(
    ("gpus", "workers", "uses", "hidden"),
    [(0, 1, False, {}), (2, 2, True, {}), (1, 2, False, {"CUDA_VISIBLE_DEVICES": ""})],
)
def test_gpus_are_used_by_all_workers_or_hidden_from_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: int, workers: int, uses: bool, hidden: dict[str, str]
) -> None:
    """Ray leaves them visible: two workers on a machine with one GPU would meet on it, through gloo."""
    import ray

    seen: dict[str, Any] = {}

    def fit(task: Any, progress: Any, **options: Any) -> None:
        seen.update(options)
        task.result.write_text("{}")

    for name in ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(launch, "joined_ray", lambda cpus, log: nullcontext())
    monkeypatch.setattr(ray, "nodes", lambda: [None])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4, "GPU": gpus} if gpus else {"CPU": 4})
    monkeypatch.setattr(launch, "_fit", fit)
    task = job(tmp_path)
    task.config.workers, task.result = workers, tmp_path / "result.json"
    task.state = tmp_path
    launch.launch(task, no_progress)
    assert (seen["gpu"], seen["environment"]) == (uses, hidden)


@pytest.mark.parametrize("launched", [False, True])
def test_a_process_takes_its_gpu_before_it_joins_the_others(monkeypatch: pytest.MonkeyPatch, launched: bool) -> None:
    """NCCL's first collective would otherwise take GPU 0 in every process."""
    done: list[Any] = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(device.index))
    monkeypatch.setattr(worker.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(worker.dist, "is_torchelastic_launched", lambda: launched)
    monkeypatch.setattr(worker.dist, "init_process_group", lambda backend, **_: done.append(backend))
    worker.join_group()
    assert done == [3 if launched else 0, "nccl"]


@pytest.mark.parametrize(
    ("cores", "processes", "here", "each"), [(8, 2, None, 4), (8, 4, "2", 4), (2, 4, None, 1), (7, 2, "2", 3)]
)
def test_processes_of_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, here: str | None, each: int
) -> None:
    """With four processes on two machines, two share a machine's cores."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if here:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert worker.threads(cores, processes) == each

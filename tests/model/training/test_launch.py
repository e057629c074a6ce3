"""When a run under Ray Train starts again, and whom it blames when it does not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.progress import no_progress
from model.training import launch, worker
from model.training.faults.failures import TrainingFailed, TrainingInterrupted

LOST_PEER = "gloo/transport/tcp/pair.cc: Connection closed by peer"


def group_error(failures: dict[int, Exception]) -> Exception:
    from ray.train.v2.api.exceptions import WorkerGroupError

    return WorkerGroupError("workers failed", failures)


def wrapped(error: Exception) -> Exception:
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    return UserExceptionWithTraceback(error, f"Traceback ..: {error}")


def gone() -> Exception:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return WorkerHealthCheckFailedError("health check failed", ActorDiedError())


def job(folder: Path) -> Any:
    return SimpleNamespace(config=SimpleNamespace(workers=2, steps=10), state=folder, notice=folder / "asked-to-end")


def sigterm(folder: Path) -> Exception:
    """The launching process is asked to end, and the workers see it and end."""
    signal.raise_signal(signal.SIGTERM)
    assert job(folder).notice.exists()
    return group_error({0: TrainingInterrupted("asked to end after step 3 of 10; it is saved")})


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What each attempt ends with; taken from the front."""
    import ray.train.torch

    ends: list[Any] = []

    class Trainer:
        def __init__(self, *_: Any, **settings: Any) -> None:
            assert settings["run_config"].failure_config.max_failures == 0

        def fit(self) -> None:
            if (end := ends.pop(0)) is not None:
                raise end(tmp_path) if callable(end) else end

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    return ends


def test_a_run_whose_worker_died_starts_again(attempts: list[Any], tmp_path: Path) -> None:
    lost = RuntimeError(LOST_PEER)
    attempts.extend([group_error({0: lost, 1: gone()}), group_error({1: gone()}), None])
    launch._fit(job(tmp_path), no_progress, gpu=False, restarts=2)
    assert attempts == []


def test_restarts_are_counted(attempts: list[Any], tmp_path: Path) -> None:
    attempts.extend([group_error({1: gone()}), group_error({1: gone()}), None])
    with pytest.raises(TrainingFailed, match=r"^worker 1: WorkerHealthCheckFailedError: health check failed"):
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


def test_an_error_is_named_with_its_kind() -> None:
    assert launch._first_cause(group_error({0: KeyError("x")})) == "worker 0: KeyError: 'x'"


@pytest.mark.parametrize(("gpus", "workers", "enough"), [(0, 1, False), (2, 2, True), (1, 2, False)])
def test_gpus_are_used_by_all_or_none(gpus: float, workers: int, enough: bool) -> None:
    assert launch._enough_gpus({"GPU": gpus}, workers) is enough


@pytest.mark.parametrize(("backend", "seen"), [("gloo", ""), ("nccl", "0,1")])
def test_workers_without_gpus_see_none(monkeypatch: pytest.MonkeyPatch, backend: str, seen: str) -> None:
    """Ray leaves them visible: two workers on a machine with one GPU would meet on it, through gloo."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(launch.dist, "get_backend", lambda: backend)
    found: list[str] = []
    monkeypatch.setattr(launch, "run_worker", lambda *_: found.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    launch._ray_worker({"job": None, "progress": no_progress})
    assert found == [seen]


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

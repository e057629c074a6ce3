"""The same tasks on Ray: order, a killed worker that is named, and refining with the same bytes as in this process."""

import os
import signal
from pathlib import Path

import pytest
from test_refine import kept_bytes, planted, run

from sluice.data.executor import TaskFailed, run_tasks


def square(number: int) -> int:
    return number * number


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(autouse=True)
def _on_ray(ray_head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_head)


def test_results_come_in_the_order_of_the_items() -> None:
    assert run_tasks(square, range(9), workers=2) == [number * number for number in range(9)]


def test_a_killed_worker_fails_the_call_and_its_task_is_named() -> None:
    with pytest.raises(TaskFailed, match="task 3 failed: WorkerCrashedError"):
        run_tasks(die_on_three, range(5), workers=2)


def test_refining_on_ray_gives_the_bytes_of_refining_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.data.refining.refine._LEAST_PART_BYTES", 2000)
    on_ray = run(tmp_path, planted(), "ray", per_shard=3, workers=2)
    monkeypatch.delenv("RAY_ADDRESS")
    run(tmp_path, planted(), "here")
    assert on_ray.documents_in == len(planted())
    assert kept_bytes(tmp_path / "ray") == kept_bytes(tmp_path / "here")

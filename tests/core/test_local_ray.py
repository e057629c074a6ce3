"""A cluster of one's own: how it is started again, how its end is told, and that nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from fake_ray import FakeRay

from sluice.core.local_ray import ATTEMPTS, LocalRay, RayFailed, socket_path_fault


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return FakeRay(tmp_path)


@pytest.mark.process
def test_a_start_that_fails_or_crashes_is_tried_again_and_leaves_nothing(fake: FakeRay) -> None:
    fake.plan("raise", "abort", "succeed")
    told: list[str] = []
    ray = LocalRay(log=fake.folder / "log")
    try:
        assert ray.start(tell=told.append).address == "127.0.0.1:6379"
        assert told == [
            f"Ray did not start: Exception: The current node timed out during startup.; attempt 2 of {ATTEMPTS}",
            f"Ray did not start: its process was ended by SIGABRT; attempt 3 of {ATTEMPTS}",
        ]
        assert fake.left() == list(fake.started()[-1])
    finally:
        ray.stop()
    assert not fake.left()
    assert ray.why_ended(0) is None
    assert "The current node timed out" in (fake.folder / "log").read_text()


def test_a_process_that_cannot_be_started_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    (folder := tmp_path / "folder").mkdir()
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(folder))
    with pytest.raises(BlockingIOError):
        LocalRay().start()
    assert not folder.exists()


@pytest.mark.process
def test_the_last_failed_attempt_is_one_line_with_the_load_of_the_machine(fake: FakeRay) -> None:
    fake.plan(*["raise"] * ATTEMPTS)
    with pytest.raises(RayFailed, match=rf"in {ATTEMPTS} attempts: .*timed out during startup.*; the load .*less busy"):
        LocalRay(log=fake.folder / "log").start()
    assert len(fake.started()) == ATTEMPTS
    assert not fake.left()


@pytest.mark.process
def test_an_attempt_that_hangs_is_given_up(fake: FakeRay) -> None:
    fake.plan(*["hang"] * ATTEMPTS)
    with pytest.raises(RayFailed, match=r"it was not up within 0.5 s"):
        LocalRay(log=fake.folder / "log").start(attempt_s=0.5)
    assert not fake.left()


@pytest.mark.process
def test_the_death_of_ray_is_told_with_its_signal(fake: FakeRay) -> None:
    fake.plan("succeed")
    ray = LocalRay(log=fake.folder / "log").start()
    try:
        assert ray.why_ended(0) is None
        os.kill(fake.started()[0][0], signal.SIGKILL)
        why = ray.why_ended(60)
        assert why is not None
        assert why.startswith("Ray died: its raylet was killed by SIGKILL")
    finally:
        ray.stop()
    assert not fake.left()


@pytest.mark.process
def test_a_start_is_stopped_from_another_thread(fake: FakeRay) -> None:
    fake.plan("hang", "succeed")
    ray = LocalRay(log=fake.folder / "log")

    def stop() -> None:
        while not fake.started():
            time.sleep(0.01)
        ray.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(RayFailed, match="stopped while it started"):
        ray.start(tell=pytest.fail)
    stopping.join()
    assert len(fake.started()) == 1
    assert not fake.left()


@pytest.mark.process
@pytest.mark.parametrize("plan", ["succeed", "hang"])
def test_nothing_outlives_a_process_that_is_killed(fake: FakeRay, plan: str) -> None:
    fake.plan(plan)
    script = "from sluice.core.local_ray import LocalRay\nimport time\nray = LocalRay().start()\ntime.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        while not fake.started():
            time.sleep(0.01)
        process.kill()
    deadline = time.monotonic() + 120
    while left := fake.left():
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_a_temporary_folder_too_deep_for_sockets_is_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert socket_path_fault("/tmp") is None
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    fault = socket_path_fault(str(deep))
    assert fault is not None
    assert "TMPDIR" in fault
    assert "107" in fault
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ValueError, match="too long for Ray"):
        LocalRay().start()
    assert not list(deep.iterdir())


_RAYLET_DIES = """
import sys, time
from pathlib import Path
import psutil
from sluice.core.local_ray import LocalRay, connect

log = Path(sys.argv[1])
own = LocalRay(cpus=1, log=log).start()
connect(own.address)
is_own = lambda each: each.name() == "raylet" and any(own._folder.name in word for word in each.cmdline())
next(filter(is_own, psutil.Process(own._process.pid).children(recursive=True))).kill()
print(own.why_ended(60))
deadline = time.monotonic() + 60
while "Raylet is terminated" not in log.read_text() and time.monotonic() < deadline:
    time.sleep(0.1)
own.stop()
"""


@pytest.mark.process
def test_rays_own_account_of_its_death_is_in_its_log_alone(tmp_path: Path) -> None:
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}
    command = [sys.executable, "-c", _RAYLET_DIES, str(tmp_path / "ray.log")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("Ray died: its raylet was killed by SIGKILL") and done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert "Raylet is terminated" in (tmp_path / "ray.log").read_text()

"""Every test has one kind, and a unit test cannot start a process."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import PurePath

import pytest
from kinds import ProcessStarted, forbid_processes, kind_of


@pytest.mark.parametrize(
    ("marks", "folder", "fixtures", "kind"),
    [
        ([], "data", [], "unit"),
        (["parametrize", "process"], "data", [], "process"),
        ([], "serving", ["tmp_path", "ray_head"], "process"),
        (["matrix"], "model/training", ["rank_pool"], "matrix"),
        ([], "lifecycle", [], "process"),
        ([], "benchmarks", [], "matrix"),
        (["unit"], "benchmarks", [], "unit"),
        (["process", "process"], "data", [], "process"),
    ],
)
def test_kind(marks: list[str], folder: str, fixtures: list[str], kind: str) -> None:
    assert kind_of(marks, PurePath(folder), fixtures) == kind


def test_two_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="is marked matrix and process: keep one of unit, process, matrix"):
        kind_of(["process", "matrix"], PurePath("data"), [])


def start_by_spawn() -> None:
    multiprocessing.get_context("spawn").Process(target=print).start()


def start_by_fork() -> None:
    multiprocessing.get_context("fork").Process(target=print).start()


STARTS = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
    "shell": lambda: subprocess.getoutput("true"),
    "system": lambda: os.system("true"),
    "fork": os.fork,
    "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
    "exec": lambda: os.execv("/no/such/program", ["program"]),
    "multiprocessing spawn": start_by_spawn,
    "multiprocessing fork": start_by_fork,
}


@pytest.mark.parametrize("way", STARTS)
def test_a_start_is_refused(way: str) -> None:
    with pytest.raises(ProcessStarted, match="a unit test started a process"), forbid_processes():
        STARTS[way]()


def test_a_refusal_that_the_code_under_test_hides_fails_the_test_all_the_same() -> None:
    hidden = contextlib.suppress(BaseException)
    with pytest.raises(ProcessStarted, match=r"subprocess\.Popen true"), forbid_processes(), hidden:
        subprocess.run(["true"])


def test_ray_that_came_up_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        up = False

        @classmethod
        def is_initialized(cls) -> bool:
            return cls.up

    monkeypatch.setitem(sys.modules, "ray", Ray)
    with forbid_processes():
        pass
    with pytest.raises(ProcessStarted, match=r"ray\.init"), forbid_processes():
        Ray.up = True
    # A head that another test started is no fault of this one.
    with forbid_processes():
        pass
    Ray.up = False


def test_libraries_may_ask_about_the_machine() -> None:
    with forbid_processes():
        subprocess.run(["uname", "-m"], check=True, capture_output=True)

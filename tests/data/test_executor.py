"""Tasks in local processes: order, failures that name their item, waits that end."""

import os
import signal
import time
from pathlib import Path

import pytest

from sluice.data.executor import TaskFailed, lasting_workers, run_tasks


def square(number: int) -> int:
    return number * number


def fail_on_three(number: int) -> int:
    if number == 3:
        raise KeyError("three")
    return number


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hang(_: int) -> int:
    time.sleep(600)
    return 0


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers: int):
    heard: list[tuple[int, int, str]] = []
    results = run_tasks(square, range(9), workers=workers, progress=lambda *said: heard.append(said), note="squares")
    assert results == [number * number for number in range(9)]
    assert heard == [(done, 9, "squares") for done in range(1, 10)]


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_task_fails_the_call_and_is_named(workers: int):
    with pytest.raises(TaskFailed, match="task 3 failed: KeyError: 'three'"):
        run_tasks(fail_on_three, range(5), workers=workers)


def interrupt_itself(_: int) -> bool:
    os.kill(os.getpid(), signal.SIGINT)
    return signal.SIGINT in signal.sigpending()


@pytest.mark.process
def test_ctrl_c_is_for_the_calling_process_alone():
    assert run_tasks(interrupt_itself, range(4), workers=2) == [True] * 4
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.process
def test_a_killed_worker_fails_the_call_and_what_it_worked_at_is_named():
    with pytest.raises(TaskFailed, match=r"a worker process was killed by SIGKILL.* at (\d or 3|3 or \d|3)$"):
        run_tasks(die_on_three, range(5), workers=2)


@pytest.mark.process
def test_a_task_that_never_ends_is_given_up_and_named():
    with pytest.raises(TaskFailed, match=r"no task finished within 0\.5 s; waited for 0, 1"):
        run_tasks(hang, range(2), workers=2, patience_s=0.5)


def test_no_items_is_no_work():
    assert run_tasks(square, [], workers=2) == []
    with pytest.raises(ValueError, match="workers 0"):
        run_tasks(square, [1], workers=0)


def test_progress_that_appends_to_a_file_hears_every_task(tmp_path: Path):
    path = tmp_path / "progress"
    run_tasks(square, range(3), workers=1, progress=lambda done, total, _: path.open("a").write(f"{done}/{total}\n"))
    assert path.read_text() == "1/3\n2/3\n3/3\n"


def process(_: int) -> int:
    return os.getpid()


@pytest.mark.process
def test_lasting_workers_are_the_same_from_call_to_call_and_end_with_the_block():
    with lasting_workers() as run:
        found = {*run(process, range(4), workers=2), *run(process, range(4), workers=2)}
        assert 1 <= len(found) <= 2
        assert os.getpid() not in found
    for pid in found:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.process
def test_after_a_worker_died_the_next_call_has_new_ones():
    with lasting_workers() as run:
        with pytest.raises(TaskFailed, match="SIGKILL"):
            run(die_on_three, range(5), workers=2)
        assert run(square, range(4), workers=2) == [0, 1, 4, 9]

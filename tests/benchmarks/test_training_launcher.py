"""Programs that end in time or are ended with all below them, and reasons that are those of the rank that failed."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.training.launcher import Ended, OutOfMemory, program, reason_of, run, run_to_any_end

NO_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
OF_A_PEER = "RuntimeError: [/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:21681. GLHF!"


def of_torchrun(raised: str, status: int = 1) -> str:
    """Output of torchrun where rank 0 failed and rank 1 lost it."""
    return f"""
*****************************************
Setting OMP_NUM_THREADS environment variable for each process to be 1 in default
*****************************************
{raised}
[rank1]: Traceback (most recent call last):
[rank1]:   File "w.py", line 16, in <module>
[rank1]:     dist.all_reduce(t)
[rank1]: {OF_A_PEER}
W1128 19:38:46.776000 23144 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 9 closing signal
E1128 19:38:46.944000 23144 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {status}) \
local_rank: 0 (pid: 23310) of binary: python
Traceback (most recent call last):
  File "torch/distributed/launcher/api.py", line 383, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
w.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {status} (pid: 23310)
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
""".replace("\\\n", "")


def test_the_reason_is_what_was_raised_and_not_the_last_warning() -> None:
    warned = "[rank0]:[W1128 ProcessGroupNCCL.cpp:1553] Warning: destroy_process_group() was not called"
    assert reason_of(f"Traceback (most recent call last):\n{NO_MEMORY}\n{warned}\n") == NO_MEMORY
    assert reason_of(f"[rank0]: {NO_MEMORY}\nbye") == f"[rank0]: {NO_MEMORY}"
    assert reason_of("first\nlast\n") == "last" and reason_of("") == "nothing said"


def test_the_reason_is_the_failed_ranks_and_not_torchruns_or_a_peers() -> None:
    raised = "[rank0]: Traceback (most recent call last):\n[rank0]: ValueError: no such thing"
    assert reason_of(of_torchrun(raised)) == "[rank0]: ValueError: no such thing"
    assert reason_of(of_torchrun("", -9)) == "rank 0 was ended by signal 9"
    assert reason_of(of_torchrun("")) == f"[rank1]: {OF_A_PEER}"


@pytest.mark.parametrize("first", [0, 1])
def test_want_of_memory_is_known_of_any_rank(first: int) -> None:
    raised = [f"[rank0]: {NO_MEMORY}", "[rank0]: RuntimeError: something else"][:: 1 - 2 * first]
    failure = Ended(1, "", of_torchrun("\n".join(raised))).failure("a case")
    assert isinstance(failure, OutOfMemory) and str(failure) == f"a case ended with status 1: [rank0]: {NO_MEMORY}"
    other = Ended(1, "", of_torchrun("[rank0]: RuntimeError: something else")).failure("a case")
    assert not isinstance(other, OutOfMemory)


def test_one_rank_needs_no_torchrun() -> None:
    assert program(1, "a.b", "c") == [sys.executable, "-m", "a.b", "c"]
    assert program(2, "a.b", "c")[-5:] == ["--nproc-per-node", "2", "-m", "a.b", "c"]


def test_no_ray_is_inherited_and_any_end_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    show = "import os, sys; print(os.environ.get('RAY_ADDRESS'), os.environ['MORE']); sys.exit(int(os.environ['MORE']))"
    assert run("a case", [sys.executable, "-c", show], 60, {"MORE": "0"}) == "None 0\n"
    assert run_to_any_end("a case", [sys.executable, "-c", show], 60, {"MORE": "3"}) == Ended(3, "None 3\n", "")
    with pytest.raises(RuntimeError, match="a case ended with status 3: nothing said"):
        run("a case", [sys.executable, "-c", show], 60, {"MORE": "3"})


def test_what_does_not_end_is_ended_with_all_below_it(tmp_path: Path) -> None:
    """The one below is a session of its own and holds the pipes, as torchrun's workers are and do."""
    path = tmp_path / "below"
    below = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}], start_new_session=True)"
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="a case did not end within 5 s"):
        run("a case", [sys.executable, "-c", start], 5, {})
    assert time.monotonic() - started < 60
    assert not psutil.pid_exists(int(path.read_text())) or (
        psutil.Process(int(path.read_text())).status() == psutil.STATUS_ZOMBIE
    )

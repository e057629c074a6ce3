"""Processes of a group, as torchrun would start them, forked from one process that has imported torch and DeepSpeed.

The imports take seconds of processor time, more than most jobs. Every job has processes of its own, because process
groups, DeepSpeed and torch.compile keep state that no call removes, and because a job that dies must harm no other.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Self, cast

from ports import free_port
from training_fixtures import HANG_S, ROOT, environment

LATE = ("torch._dynamo", "torch._inductor.compile_fx", "deepspeed.runtime.zero.muon.muon_optimizer")
"""Imported by engines as they are built, which takes seconds."""


class RankPool:
    """Runs functions of importable modules in several ranks, one job at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._jobs = folder, 0

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-u", __file__],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a hang can be ended with all ranks
        )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()

    def run(self, world: int, function: Callable[..., None], *arguments: object) -> str:
        """Call `function` with the arguments, as strings, in `world` ranks. Return the standard output of rank 0.

        A rank that fails ends the others; the AssertionError names the job and the rank and ends with its errors.
        """
        self._jobs += 1
        name = f"{function.__module__}.{function.__qualname__}({', '.join(map(str, arguments))})"
        job = {
            "module": function.__module__,
            "function": function.__qualname__,
            "arguments": [str(each) for each in arguments],
            "world": world,
            "port": free_port(),
            "logs": str(self._folder / str(self._jobs)),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        if not select.select([self._server.stdout], [], [], HANG_S)[0]:
            os.killpg(self._server.pid, signal.SIGKILL)
            raise AssertionError(f"{name} did not end within {HANG_S} s\n{_tail(job, 0)}")
        answer = self._server.stdout.readline()
        assert answer, f"{name}: the pool's process ended"
        failed: list[int] | None = json.loads(answer)
        assert failed is None, f"{name}: rank {failed[0]} of {world} ended with {failed[1]}\n{_tail(job, failed[0])}"
        return Path(job["logs"], "0.out").read_text(encoding="utf-8")


def _tail(job: dict[str, Any], rank: int) -> str:
    return Path(job["logs"], f"{rank}.err").read_text(encoding="utf-8", errors="replace")[-4000:]


def serve() -> None:
    """Run the jobs that come on standard input, a JSON line each; answer null, or [rank, exit status] of a failure."""
    import torch

    from sluice.model.training.engines.deepspeed_settings import import_deepspeed

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an import prints is no answer
    with tempfile.TemporaryDirectory() as extensions:
        import_deepspeed(Path(extensions))
        for module in LATE:
            importlib.import_module(module)
        # Every engine of DeepSpeed looks for fairseq anew. None ends that before the lock of imports, which fails in
        # CPython 3.11 where a garbage collection meanwhile imports something (gh-106176).
        cast(dict[str, ModuleType | None], sys.modules)["fairseq.optim.fairseq_optimizer"] = None
        for line in sys.stdin:
            answers.write(json.dumps(run_ranks(json.loads(line))) + "\n")
            answers.flush()


def run_ranks(job: dict[str, Any]) -> tuple[int, int] | None:
    """Return the rank that failed first, with its exit status, having ended the others."""
    Path(job["logs"]).mkdir(parents=True)
    running = {fork_rank(job, rank): rank for rank in range(job["world"])}
    failed = None
    while running:
        process, status = os.wait()
        rank, code = running.pop(process), os.waitstatus_to_exitcode(status)
        if code and failed is None:
            failed = (rank, code)
            for other in running:
                os.kill(other, signal.SIGKILL)
    return failed


def fork_rank(job: dict[str, Any], rank: int) -> int:
    """Return the process that runs the job as `rank`."""
    if child := os.fork():
        return child
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{job['logs']}/{rank}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
        names = ("RANK", "LOCAL_RANK"), ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
        os.environ |= {name: str(rank) for name in names[0]} | {name: str(job["world"]) for name in names[1]}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job["port"]), "TORCHELASTIC_RUN_ID": "tests"}
        getattr(importlib.import_module(job["module"]), job["function"])(*job["arguments"])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()

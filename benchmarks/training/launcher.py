"""Programs of the benchmark in processes of their own: waited for with a bound, and none of them left behind."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

_GONE_S = 10.0
"""Bound of waiting for processes that were killed."""

_RAISED = re.compile(r"(?:\[rank\d+\]: )?(?:\w+\.)*\w*(?:Error|Exception|Failed|Interrupted)\b")
"""The line of a traceback that says what was raised."""
_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|ALLOC_FAILED")
_OF_A_PEER = re.compile(r"DistBackendError|Connection (?:closed|reset|refused)|Broken pipe")
"""Errors of a rank whose peer has exited."""
_RANK_ENDED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
"""From here on torchrun speaks of itself."""
_OF_TORCHRUN = re.compile(r"\S*ChildFailedError|[=-]{4,}$|[EIW]\d+ .*/distributed/elastic/")


class OutOfMemory(RuntimeError):
    """A run that the device's memory does not hold."""


class Ended(NamedTuple):
    """Status and output of a program that ended."""

    status: int
    said: str
    errors: str

    def failure(self, name: str) -> RuntimeError:
        """Its status and reason; OutOfMemory where that is why."""
        reason = reason_of(self.errors)
        kind = OutOfMemory if _NO_MEMORY.search(reason) else RuntimeError
        return kind(f"{name} ended with status {self.status}: {reason}")


def program(ranks: int, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, under torchrun where there are several ranks."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [sys.executable, *(torchrun if ranks > 1 else []), "-m", module, *arguments]


def request(
    folder: Path, tokens: tuple[Path, Path], config: Mapping[str, Any], model: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Request of a pretraining run that works in `folder`; `tokens` are the folders (packed, tokenizer)."""
    paths = {"packed": tokens[0], "tokenizer": tokens[1], "out": folder / "out", "checkpoints": folder / "checkpoints"}
    return {"config": config, "model": model, **{name: str(path) for name, path in paths.items()}, **more}


def results_of(said: str, folder: Path) -> tuple[dict[str, Any], dict[int, float]]:
    """(report, losses by step counted from 1) of a pretraining run that worked in `folder` and printed `said`."""
    report = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    rows = [json.loads(line) for line in (folder / "out/training.jsonl").read_text(encoding="utf-8").splitlines()]
    return report, {row["step"]: row["loss"] for row in rows if "loss" in row}


def run(name: str, command: Sequence[str], bound_s: float, environment: Mapping[str, str]) -> str:
    """Run a program and return its output. RuntimeError with its name if it fails or does not end; OutOfMemory if
    that is the reason.
    """
    ended = run_to_any_end(name, command, bound_s, environment)
    if ended.status:
        raise ended.failure(name)
    return ended.said


def run_to_any_end(name: str, command: Sequence[str], bound_s: float, environment: Mapping[str, str]) -> Ended:
    """As `run`, for a program that may fail. `environment` adds to this process's, in which no Ray is named."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command, env={**inherited, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said, errors = process.communicate(timeout=bound_s)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} did not end within {bound_s:g} s") from None
    finally:
        _kill_all(process)
    return Ended(process.returncode, said, errors)


def _kill_all(process: "subprocess.Popen[str]") -> None:
    """The program, if it still runs, and all below it: torchrun's workers are sessions of their own."""
    if process.poll() is not None:
        return
    top = psutil.Process(process.pid)
    # While it stands still it starts no more of them.
    top.suspend()
    found = [*top.children(recursive=True), top]
    for each in found:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(found, timeout=_GONE_S)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_GONE_S)


def reason_of(said: str) -> str:
    """The line of a program's errors that tells why it failed. Libraries warn even behind it, torchrun tells of all its
    ranks in a table, and a rank whose peer has gone complains of that.
    """
    end = _RANK_ENDED.search(said)
    stripped = [line.strip() for line in said.splitlines()]
    own = [line for line in stripped[: said[: end.start()].count("\n") if end else None] if line]
    lines = [line for line in own if not _OF_TORCHRUN.match(line)]
    raised = [line for line in lines if _RAISED.match(line)]
    for likely in (
        [line for line in raised if _NO_MEMORY.search(line)],
        [line for line in raised if not _OF_A_PEER.search(line)],
        [f"rank {end[2]} was ended by signal {-int(end[1])}"] if end and int(end[1]) < 0 else [],
        raised,
        lines,
    ):
        if likely:
            return likely[-1]
    return "nothing said"

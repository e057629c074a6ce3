"""A pretraining run with its clocks read, or one that ends itself by SIGKILL once some steps are done.

`.. watched clock REQUEST FOLDER` is `-m sluice.model.training.pretrain REQUEST`, and writes `ticks-RANK.json` to FOLDER
besides. `.. watched kill REQUEST STEP` is the same until STEP steps are done; each of its processes leaves
`killed-RANK` beside the request, so that no other end is taken for this one.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.report import device_peak_bytes
from benchmarks.training.case import Ticks


class Watch:
    """Reads the clocks around every optimizer step, the making of its batch and its waiting for other ranks."""

    def __init__(self) -> None:
        self.ticks, self._spent = Ticks(), dict.fromkeys(("data", "communication"), 0.0)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose time within a step counts as `name`."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            started = time.perf_counter()
            answer = work(*arguments, **settings)
            self._spent[name] += time.perf_counter() - started
            return answer

        return timed

    def step(self, optimizer_step: Callable[..., Any]) -> Callable[..., Any]:
        """The loop's step: (engine, loop, number) -> record."""

        def timed(engine: Any, loop: Any, number: int) -> Any:
            self._spent = dict.fromkeys(self._spent, 0.0)
            record = optimizer_step(engine, replace(loop, batch=self.timed("data", loop.batch)), number)
            self.ticks.ends.append(time.perf_counter())
            self.ticks.cpu.append(time.process_time())
            self.ticks.data.append(self._spent["data"])
            self.ticks.communication.append(self._spent["communication"])
            self.ticks.peak_bytes = peak_bytes()
            return record

        return timed


def peak_bytes() -> int:
    """Largest memory of this program so far: allocated on the accelerator where there is one, else resident."""
    return device_peak_bytes("cuda" if torch.cuda.is_available() else "cpu")


def mark_of(request: Path, rank: int) -> Path:
    return request.parent / f"killed-{rank}"


def killed_at(step: int, mark: Path, optimizer_step: Callable[..., Any]) -> Callable[..., Any]:
    """The loop's step, (engine, loop, number) -> record, of a process that does `step` of them."""

    def dying(engine: Any, loop: Any, number: int) -> Any:
        if number < step:
            return optimizer_step(engine, loop, number)
        try:
            # Until all have done as many. Who is still in it when another dies has done them too.
            dist.barrier()
        finally:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return dying


def main(mode: str, request: str, argument: str) -> None:
    from sluice.model.training import loop, pretrain

    sys.argv, rank, watch = [sys.argv[0], request], int(os.environ.get("RANK", "0")), Watch()
    if mode == "kill":
        loop.optimizer_step = killed_at(int(argument), mark_of(Path(request), rank), loop.optimizer_step)
    else:
        # Whatever the collective, its caller waits on a Work, and what it waits for is the other ranks or the wire.
        dist.Work.wait = watch.timed("communication", dist.Work.wait)  # type: ignore[method-assign]
        loop.optimizer_step = watch.step(loop.optimizer_step)
    pretrain.main()
    (Path(argument) / f"ticks-{rank}.json").write_text(watch.ticks.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

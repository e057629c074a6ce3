"""A pretraining run with its clocks read.

`.. watched REQUEST FOLDER` is `-m sluice.model.training.pretrain REQUEST`, and writes
`ticks-RANK.json` to FOLDER besides.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.case import Ticks


class Watch:
    """Reads the clocks around every optimizer step, the making of its batch and its waiting for other ranks."""

    def __init__(self) -> None:
        self.ticks = Ticks()
        self._data = self._communication = 0.0

    def waiting(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        """`wait` of a collective, its time counted."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            started = time.perf_counter()
            answer = wait(*arguments, **settings)
            self._communication += time.perf_counter() - started
            return answer

        return timed

    def step(self, optimizer_step: Callable[..., Any]) -> Callable[..., Any]:
        """The loop's step: (engine, loop, number) -> record."""

        def timed(engine: Any, loop: Any, number: int) -> Any:
            self._data = self._communication = 0.0
            record = optimizer_step(engine, replace(loop, batch=self._reading(loop.batch)), number)
            self.ticks.ends.append(time.perf_counter())
            self.ticks.cpu.append(time.process_time())
            self.ticks.data.append(self._data)
            self.ticks.communication.append(self._communication)
            self.ticks.peak_bytes = peak_bytes()
            return record

        return timed

    def _reading(self, read: Callable[[int], Any]) -> Callable[[int], Any]:
        def timed(number: int) -> Any:
            started = time.perf_counter()
            batch = read(number)
            self._data += time.perf_counter() - started
            return batch

        return timed


def peak_bytes() -> int:
    """Largest memory of this program so far: allocated on the accelerator where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():
        # `ru_maxrss` would begin with the memory of the larger program that started this one.
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line[:6] == "VmHWM:")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(request: str, folder: str) -> None:
    from torch.distributed import Work

    from sluice.model.training import loop, pretrain

    watch = Watch()
    # Whatever the collective, its caller waits on a Work, and what it waits for is the other ranks or the wire.
    Work.wait = watch.waiting(Work.wait)  # type: ignore[method-assign]
    loop.optimizer_step = watch.step(loop.optimizer_step)
    sys.argv = [sys.argv[0], request]
    pretrain.main()
    name = f"ticks-{os.environ.get('RANK', '0')}.json"
    (Path(folder) / name).write_text(watch.ticks.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

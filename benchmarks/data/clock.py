"""CPU time of functions that are measured in turns."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

from pydantic import BaseModel

from benchmarks.report import run_in_turns

RUNS = 3


class Rate(BaseModel):
    """Time that a function took for some text."""

    size_bytes: int
    cpu_s: list[float]
    """User and system time of all threads, a run each."""

    @property
    def median_s(self) -> float:
        return statistics.median(self.cpu_s)

    @property
    def megabytes_a_second(self) -> float:
        """MB (10**6 bytes) a CPU-second, at the median run."""
        return self.size_bytes / 1e6 / self.median_s


def measure(works: Mapping[str, Callable[[], object]], size_bytes: int, runs: int) -> dict[str, Rate]:
    """Run each of `works` over its `size_bytes` of text, in turns."""

    def cpu_s(work: Callable[[], object]) -> float:
        gc.collect()
        started = time.process_time()
        work()
        return time.process_time() - started

    seconds = run_in_turns({name: partial(cpu_s, work) for name, work in works.items()}, runs)
    return {name: Rate(size_bytes=size_bytes, cpu_s=spent) for name, spent in seconds.items()}


def utf8_bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)

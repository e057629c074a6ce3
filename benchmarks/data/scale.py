"""CPU a document and peak memory as the corpus grows. Each size is built by a process of its own and its workers."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel

from sluice.data.config import RefineConfig

_SAMPLE_S = 0.05


class Size(BaseModel):
    text_bytes: int
    documents: int
    kept: int
    cpu_s: float
    """CPU time of all processes, imports included."""
    wall_s: float
    largest_process_bytes: int
    """Peak resident memory of the largest process."""
    all_processes_bytes: int
    """Peak of the sum over all processes; what they share is counted in each."""
    timings: dict[str, float]

    @property
    def cpu_ms_a_document(self) -> float:
        return 1000 * self.cpu_s / self.documents


def watched_build(  # noqa: PLR0917
    source: Path, config: RefineConfig, folder: Path, text_bytes: int, bytecode: Path, markup: str = "md"
) -> Size:
    """Build `source` in a process of its own and watch its memory. RuntimeError if it fails.

    Scale builds have text that is extracted already: headings, items and code stand in it as in Markdown. Compiled
    bytecode is looked for, and left, in `bytecode`: a second build starts as an installed program does.
    """
    program = [sys.executable, "-m", "benchmarks.data.watched"]
    command = [*program, str(source), str(folder / "out"), config.model_dump_json(), markup]
    started = time.perf_counter()
    # Where bytecode is not to be written, every process of every build would compile all that it imports.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    largest = together = 0
    while True:
        sizes = _resident(process.pid)
        largest, together = max([largest, *sizes]), max(together, sum(sizes))
        try:
            process.wait(_SAMPLE_S)
        except subprocess.TimeoutExpired:
            continue
        break
    assert process.stdout is not None
    with process.stdout as output:
        lines = output.read().splitlines()
    if process.returncode:
        raise RuntimeError(f"the build of {source} ended with {process.returncode}")
    told = json.loads(lines[-1])
    return Size(
        text_bytes=text_bytes,
        wall_s=time.perf_counter() - started,
        # Between two samples a process may have been larger for a moment; the kernel knows.
        largest_process_bytes=max(largest, told.pop("largest_process_bytes")),
        all_processes_bytes=together,
        **told,
    )


def _resident(pid: int) -> list[int]:
    """Resident memory of a process and all below it, without those that end meanwhile."""
    sizes: list[int] = []
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
    return sizes

"""One worker beside two, in local processes and on Ray: the scoring phase, which is shared out, and the whole build."""

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from benchmarks.report import ROOT
from sluice.data.build import BuildReport, build
from sluice.data.config import IngestConfig, RefineConfig


class Builds(BaseModel):
    """Wall seconds of the same build, by number of workers and run."""

    score_s: dict[int, list[float]] = {1: [], 2: []}
    """Time of the phase that the workers share: extract, mask, score, sketch."""
    build_s: dict[int, list[float]] = {1: [], 2: []}
    hashes: set[str] = set()
    """Hashes of the clean documents; one, if the number of workers changes nothing."""
    phases: dict[str, float] = {}
    """Seconds of each phase and block with one worker, in the last run."""

    def speedup(self, seconds: dict[int, list[float]]) -> float:
        return statistics.median(seconds[1]) / statistics.median(seconds[2])


def local_and_ray(source: Path, refine: RefineConfig, folder: Path, runs: int) -> dict[str, Builds]:
    """The build of the files in `source`, in turns by 1 and 2 workers."""
    local = _in_turns(source, refine, folder, runs)
    with ray_head():
        # A worker of Ray lives on: the first build starts it and lets it import what the later ones need.
        _in_turns(source, refine, folder, 1)
        return {"local": local, "ray": _in_turns(source, refine, folder, runs)}


def _in_turns(source: Path, refine: RefineConfig, folder: Path, runs: int) -> Builds:
    found, ingest = Builds(), IngestConfig.model_validate({"sources": str(source)})
    for _ in range(runs):
        for workers in (1, 2):
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            started = time.perf_counter()
            report = build(ingest, refine.model_copy(update={"workers": workers}), out)
            found.build_s[workers].append(time.perf_counter() - started)
            found.score_s[workers].append(report.refine.timings["score_s"])
            found.hashes.add(report.refine.content_sha256)
            if workers == 1:
                found.phases = _phases(report)
    return found


def _phases(report: BuildReport) -> dict[str, float]:
    """Seconds in the order of the way; reading goes first, and the workers' blocks are part of scoring."""
    timings = report.refine.timings
    workers = {name.removesuffix("_workers_s"): value for name, value in timings.items() if name.endswith("_workers_s")}
    return {
        "ingest": sum(report.ingest.timings.values()),
        **{f"score: {name}": value for name, value in workers.items()},
        "compare": timings["compare_s"],
        "decide, cut, write": timings["write_s"],
    }


@contextmanager
def ray_head() -> Iterator[None]:
    """A Ray head of this process with two CPUs, known to sluice.data.executor by RAY_ADDRESS."""
    from sluice.components.ray_head import prepare_environment
    from sluice.core.local_ray import LocalRay

    prepare_environment()
    import ray  # fixes its authentication at import, so the token comes first

    os.environ["PYTHONPATH"] = str(ROOT)
    head = LocalRay(cpus=2).start()
    os.environ["RAY_ADDRESS"] = head.address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()
        head.stop()

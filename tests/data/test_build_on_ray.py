"""Whole builds on Ray whose worker is killed amid refine: tried again, or named; the outcome is the same."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from test_refine import page

from sluice.core.manifest import read_manifest
from sluice.data.build import BuildReport, build
from sluice.data.config import IngestConfig, RefineConfig
from sluice.data.executor import TaskFailed
from sluice.data.refining.score import ScoreTask, Summary, score_part

PARTS = 6
DIES = 3


def die_always(task: ScoreTask) -> Summary:
    if task.number == DIES:
        while not any(
            task.work.glob("summary-*.json")
        ):  # Dies once another part is done, so that there is something to keep.
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    return score_part(task)


def die_once(task: ScoreTask) -> Summary:
    died = task.work.parents[2] / "died"
    if task.number == DIES and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return score_part(task)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.data.refining.refine._LEAST_PART_BYTES", 1000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps({"text": page("caching", number)}) + "\n" for number in range(PARTS)))
    return path


def built(source: Path, name: str, workers: int = 2) -> BuildReport:
    config = IngestConfig(sources=str(source), documents_per_shard=1)
    off = dict.fromkeys(name for name in RefineConfig.model_fields if name.startswith("max_top_"))
    settings = RefineConfig.model_validate({"workers": workers, "min_jaccard": 1.0, **off})
    return build(config, settings, source.with_name(name))


@pytest.mark.process
@pytest.mark.parametrize("killed", [die_once, die_always])
def test_a_worker_killed_in_the_middle_is_tried_again_or_named_and_the_outcome_is_the_same(
    source: Path, monkeypatch: pytest.MonkeyPatch, ray_head: str, killed: object
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert built(source, "undisturbed", workers=1).refine.documents_kept == PARTS
    monkeypatch.setenv("RAY_ADDRESS", ray_head)
    out, half = source.with_name("out"), source.with_name(".out.partial")
    with monkeypatch.context() as patch:
        patch.setattr("sluice.data.refining.refine.score_part", killed)
        if killed is die_always:
            with pytest.raises(TaskFailed, match=rf"task documents-{DIES:04d}\.jsonl to .* failed: WorkerCrashedError"):
                built(source, "out")
            assert not out.exists()
            assert sorted(path.name for path in half.iterdir()) == ["work"]
            assert not list(half.glob(f"work/*/summary-{DIES:04d}.json")), "a part that died is not done"
        else:
            built(source, "out")
            assert source.with_name("died").exists()
    if killed is die_always:
        built(source, "out")
    assert read_manifest(out)["files"] == read_manifest(source.with_name("undisturbed"))["files"]

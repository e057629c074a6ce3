"""A run records and shows its steps from their events."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sluice.components.artifact import write_metrics
from sluice.components.params import load_block
from sluice.components.workspace import STEPS, Workspace
from sluice.model.config import PretrainConfig
from sluice.pipelines.compose import compose, write_params
from sluice.pipelines.runner import (
    RunFolder,
    _check,
    latest_run,
    make_record,
    name_run,
    only_run,
    run_pipeline,
    step_record,
)
from sluice.pipelines.summary import outside_share
from sluice.pipelines.terminal import BarView, LineView, clock


def event(step: str, kind: str, time: float, **fields: Any) -> dict[str, Any]:
    return {"step": step, "kind": kind, "time": time, **fields}


def test_step_record_follows_the_events() -> None:
    events = [event("pack", "start", 10.0), event("ingest", "start", 11.0)]
    assert step_record(events, "pack")["state"] == "running"
    assert step_record(events, "gate")["state"] == "pending"
    done = step_record([*events, event("pack", "done", 12.5, cached=True)], "pack")
    assert (done["state"], done["seconds"], done["cached"]) == ("done", 2.5, True)
    failed = step_record([*events, event("pack", "failed", 13.0, message="why")], "pack")
    assert (failed["state"], failed["message"]) == ("failed", "why")


def test_own_work_is_without_cached_steps_and_without_starting_workers(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_metrics(workspace, "ingest", {}, {"work_seconds": 50.0})
    write_metrics(workspace, "pretrain", {}, {"work_seconds": 30.0, "launch_seconds": 20.0})
    events = [
        event("ingest", "start", 0.0),
        event("ingest", "done", 1.0, cached=True),
        event("pretrain", "start", 1.0),
        event("pretrain", "done", 35.0, cached=False),
    ]
    record = make_record(events, workspace, 40.0)
    assert record["work_seconds"] == 10.0
    assert outside_share(record) == pytest.approx(0.75)


def test_success_is_every_steps_own_word(tmp_path: Path) -> None:
    """kfp.local can say SUCCESS where nothing ran; the record must not."""
    workspace, folder = Workspace(tmp_path), RunFolder(tmp_path)
    whole = [e for step in STEPS for e in (event(step, "start", 0.0), event(step, "done", 1.0))]
    _check(make_record(whole, workspace, 1.0), 0, folder)
    with pytest.raises(
        Exception, match=r"the run ended before monitor: its process was killed by SIGKILL.*; the same `sluice run`"
    ):
        _check(make_record(whole[:-1], workspace, 1.0), -9, folder, 0)
    with pytest.raises(Exception, match="before monitor: its process ended with status 0"):
        _check(make_record(whole[:-1], workspace, 1.0), 0, folder)
    with pytest.raises(Exception, match="before ingest"):
        _check(make_record([], workspace, 1.0), 0, folder)
    broken = [*whole[:-1], event("monitor", "failed", 2.0, message="monitor: no traffic")]
    with pytest.raises(Exception, match="monitor: no traffic"):
        _check(make_record(broken, workspace, 1.0), 1, folder)


def test_two_runs_never_share_a_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with only_run(workspace), pytest.raises(ValueError, match="another run or promotion"), only_run(workspace):
        pass
    with only_run(workspace):
        assert (workspace.state / "run.lock").is_file()


def test_a_refused_run_leaves_the_settings_of_the_one_that_is_going(tmp_path: Path, root: Path) -> None:
    workspace = Workspace(tmp_path)
    params = compose(Workspace(root), ["profile=tiny", "pretrain.steps=9"])
    with only_run(workspace):
        workspace.params.write_text("of the run that is going")
        with pytest.raises(ValueError, match="another run or promotion"):
            run_pipeline(workspace, params)
    assert workspace.params.read_text() == "of the run that is going"
    assert not list(workspace.runs.iterdir())


def test_an_interrupted_run_leaves_none_of_kfps_temporary_folders(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(workspace: Workspace, folder: RunFolder, *_: object) -> int:
        (folder.path / "kfp" / "workspace").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("sluice.pipelines.runner._run_child", interrupted)
    workspace = Workspace(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(workspace, compose(Workspace(root), ["profile=tiny"]))
    assert [path.name for path in workspace.runs.glob("*/*")] == ["params.yaml"]


def test_a_run_reads_its_own_copy_of_the_settings(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, own = Workspace(tmp_path), tmp_path / "own.yaml"
    write_params(own, compose(Workspace(root), ["profile=tiny", "pretrain.steps=9"]))
    write_params(workspace.params, compose(Workspace(root), ["profile=tiny", "pretrain.steps=8"]))
    assert load_block(workspace, PretrainConfig).steps == 8
    monkeypatch.setenv("SLUICE_PARAMS", str(own))
    assert load_block(workspace, PretrainConfig).steps == 9


def test_plain_lines_tell_start_pace_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    view = LineView()
    view.show(event("pretrain", "start", 0.0))
    view.show(event("pretrain", "progress", 60.0, done=0, total=100, note="starting workers"))
    view.show(event("pretrain", "progress", 65.0, done=5, total=100, note="too soon for another line"))
    view.show(event("pretrain", "progress", 80.0, done=50, total=100, note="loss 2.5"))
    view.show(event("pretrain", "done", 100.0, cached=False))
    view.show(event("gate", "start", 100.0))
    view.show(event("gate", "done", 101.0, outcome="hold"))
    assert capsys.readouterr().out.splitlines() == [
        "pretrain   started",
        "pretrain   0/100 starting workers",
        "pretrain   50/100 loss 2.5, about 20 s left",
        "pretrain   done in 100.0 s",
        "gate       started",
        "gate       hold in 1.0 s",
    ]


def test_a_pace_of_the_first_steps_is_no_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    """The first step of training compiles: by it alone, 120 steps would seem to take half an hour."""
    view = LineView()
    view.show(event("pretrain", "start", 0.0))
    for now, done in ((11.0, 0), (29.0, 1), (40.0, 5), (51.0, 6)):
        view.show(event("pretrain", "progress", now, done=done, total=120, note="loss 2.5"))
    assert capsys.readouterr().out.splitlines()[2:] == [
        "pretrain   1/120 loss 2.5",
        "pretrain   5/120 loss 2.5",
        "pretrain   6/120 loss 2.5, about 760 s left",
    ]


@pytest.mark.parametrize("width", [60, 100])
def test_a_running_bar_is_told_from_a_finished_one_on_a_narrow_terminal(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    view = BarView(("ingest", "pretrain"), clock=lambda: 0.0, console=console)
    view.show(event("ingest", "start", 0.0))
    view.show(event("ingest", "done", 0.0))
    view.show(event("pretrain", "start", 0.0))
    note = "loss 2.345, 1,234 tokens/s, and more than fits"
    view.show(event("pretrain", "progress", 0.0, done=60, total=120, note=note))
    view.close()
    shown = Console(width=width, file=io.StringIO())
    shown.print(view._progress.get_renderable())
    done, running = shown.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert ("100%" in done, done.rstrip().endswith("done")) == (True, True)
    assert " 50% 0:00:00 " in running
    assert "loss 2" in running
    assert len(running) <= width


@pytest.mark.parametrize("step_s", [1.0, 40.0])
def test_a_bar_tells_the_time_left_by_the_pace_of_the_steps(step_s: float) -> None:
    """Starting workers, for 600 s, says nothing of how fast they work; nor is a slow step no step."""
    now = 0.0
    view = BarView(("train",), clock=lambda: now)
    try:
        view.show(event("train", "start", now))
        for done in range(22):
            now = 600.0 + step_s * done
            view.show(event("train", "progress", now, done=done, total=101, note=""))
        [task] = view._progress.tasks
        assert task.time_remaining == pytest.approx(80 * step_s)
    finally:
        view.close()


def test_clock() -> None:
    assert [clock(seconds) for seconds in (4.21, 185)] == ["4.2 s", "3 min 05 s"]


def test_the_last_run_is_the_last_one_though_the_clock_was_set_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for now, name in (
        ("20260102-000000", "20260102-000000"),
        *(("20260102-000000", f"20260102-000000-{number}") for number in range(1, 12)),
        ("20260101-120000", "20260102-000000-12"),
        ("20260103-000000", "20260103-000000"),
    ):
        assert name_run(workspace, now) == name
        (workspace.runs / name).mkdir(parents=True)
        assert latest_run(workspace) == RunFolder(workspace.runs / name)

"""A run's Ray head as its steps see it, and what is said and left when Ray dies or its start is interrupted."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_ray import FakeRay

from sluice.components.events import read_events
from sluice.components.workspace import Workspace
from sluice.core.local_ray import RayFailed
from sluice.pipelines.cli import main
from sluice.pipelines.commands import serve
from sluice.serving.config import ServeConfig
from sluice.serving.release import ReleaseState

RUN = """
import os, signal, sys
from pathlib import Path
import sluice.pipelines.lifecycle as graph
from sluice.components.events import emit
from sluice.components.ray_head import connect_to_head, request_head
from sluice.components.workspace import Workspace
from sluice.pipelines.local_child import run_lifecycle

fake, run = Path(sys.argv[1]), Path(sys.argv[2])

def lifecycle(workspace, settings):
    emit("pretrain", "start")
    request_head()
    connect_to_head()
    os.kill(int((fake / "started").read_text().split()[0]), signal.SIGKILL)
    emit("pretrain", "failed", message="pretrain: StageCmdFailedError: exited with 1")
    raise RuntimeError("the task failed")

graph.lifecycle = lambda: lifecycle
run_lifecycle(Workspace(fake), run)
"""


@pytest.mark.process
def test_a_step_that_loses_ray_says_so_and_that_the_run_goes_on_from_there(
    tmp_path: Path, default_params: Path
) -> None:
    fake = FakeRay(tmp_path)
    fake.plan("succeed")
    run = tmp_path / "run"
    run.mkdir()
    (run / "params.yaml").write_text(default_params.read_text())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TMPDIR": "/tmp"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path), str(run)], env=environment, timeout=600)
    assert done.returncode == 1
    last = read_events(run / "events.jsonl")[-1]
    assert (last["step"], last["kind"]) == ("pretrain", "failed")
    assert last["message"].startswith("pretrain: Ray died: its raylet was killed by SIGKILL")
    assert last["message"].endswith("; the same `sluice run` goes on from there")
    assert not fake.left()
    assert sorted(path.name for path in run.iterdir()) == ["events.jsonl", "params.yaml", "ray.json", "ray.wanted"]


SERVE = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
import sluice.pipelines.commands.serve as command
from sluice.components.workspace import Workspace
from sluice.components.ray_head import prepare_environment

prepare_environment()
from sluice.serving.config import ServeConfig
from sluice.serving.ray_serve.server import Server

state = Path(sys.argv[1]) / ".sluice"
state.mkdir()
releases = SimpleNamespace(state=lambda: SimpleNamespace(champion="1"))
command.find_workspace = lambda: Workspace(Path(sys.argv[1]))
command.override_block = lambda *arguments: ServeConfig()
command.open_releases = lambda workspace: releases
command.make_server = lambda workspace, config: Server(releases, None, config, state_folder=state, key="k" * 20)
import sluice.serving.ray_serve.server as server
server._check_port = lambda host, port: None
os.environ["PYTHONPATH"] = sys.argv[1]

from sluice.pipelines.cli import main
sys.exit(main(["serve"]))
"""


@pytest.mark.process
def test_a_server_that_is_starting_ends_at_a_signal_and_leaves_nothing(tmp_path: Path) -> None:
    fake = FakeRay(tmp_path)
    fake.plan("hang")
    environment = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "PYTHONPATH"}}
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        while not fake.started() and server.poll() is None:
            time.sleep(0.01)
        server.terminate()
        said, complained = server.communicate(timeout=600)
    assert (server.returncode, said) == (130, "starting Ray Serve ..\n"), complained
    assert complained == "sluice serve: interrupted while the server was starting\n"
    assert not fake.left()
    assert not (tmp_path / ".sluice" / "server.json").exists()


class Dying:
    """A server whose Ray dies once it serves."""

    url = "http://127.0.0.1:8000"
    client = SimpleNamespace(outage=lambda: None)

    def start(self) -> "Dying":
        return self

    def ready(self) -> None: ...

    def wait(self) -> None:
        print("the last lines of Ray's log")
        raise RayFailed("Ray died: its raylet was killed by SIGKILL")

    def kill(self) -> None:
        print("killed")

    def stop(self) -> None: ...


def test_a_server_whose_ray_dies_ends_with_the_reason_and_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    workspace = Workspace(tmp_path)
    workspace.state.mkdir()
    monkeypatch.setattr(serve.os, "_exit", leave)
    monkeypatch.setattr(serve, "find_workspace", lambda: workspace)
    monkeypatch.setattr(serve, "override_block", lambda *_: ServeConfig())
    monkeypatch.setattr(serve, "open_releases", lambda _: SimpleNamespace(state=lambda: ReleaseState(champion="1")))
    monkeypatch.setattr(serve, "make_server", lambda *_: Dying())
    with pytest.raises(SystemExit, match="1"):
        main(["serve"])
    shown = capsys.readouterr()
    assert shown.err == "sluice serve: Ray died: its raylet was killed by SIGKILL; `sluice serve` starts it again\n"
    assert shown.out.splitlines()[2:] == ["killed"]

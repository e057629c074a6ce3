"""How a command or step finds the server: on this machine, or by its service's address."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sluice.components import rollout
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed
from sluice.serving.client import SERVER_VARIABLE, find_server, server_elsewhere, server_file, wait_for_server
from sluice.serving.release import ReleaseState

KEY = "a-key-of-this-test-that-is-long"


class Gateway(BaseHTTPRequestHandler):
    """Answers whoever has the key."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers["authorization"] == f"Bearer {KEY}" else 401)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_API_KEY", KEY)
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    (tmp_path / ".sluice").mkdir()
    return tmp_path / ".sluice"


def publish(state: Path, url: str, host: str) -> None:
    record = {"id": "1", "host": host, "pid": os.getpid(), "url": url, "started": 1.0}
    server_file(state).write_text(json.dumps({**record, "state_folder": str(state.resolve())}))


def test_this_machines_server_is_found_by_its_record(state: Path, url: str) -> None:
    assert find_server(state) is None
    publish(state, url, socket.gethostname())
    found = find_server(state)
    assert found is not None and found.url == url
    assert find_server(state, "another key") is None
    assert server_elsewhere(state) is None


def test_a_record_of_another_pod_is_no_server_of_this_one(state: Path, url: str) -> None:
    """Its process has a number that another process may have here, and its address is a loopback one."""
    publish(state, url, "serving-7d9f")
    assert find_server(state) is None
    assert server_elsewhere(state) == "serving-7d9f"
    copied = state.parent / "copy"
    copied.mkdir()
    server_file(copied).write_text(server_file(state).read_text())
    assert server_elsewhere(copied) is None


def test_a_server_on_a_cluster_is_found_by_its_services_address(
    state: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(state, "http://127.0.0.1:1", "serving-7d9f")
    monkeypatch.setenv(SERVER_VARIABLE, url)
    assert wait_for_server(state, 5.0).url == url
    monkeypatch.setenv("SLUICE_API_KEY", "another key")
    with pytest.raises(TimeoutError, match=f"SLUICE_SERVER={url}: no server answered there within 0 s with this key"):
        wait_for_server(state, 0.0)


def test_a_rollout_uses_that_server_and_starts_none(state: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a second server would measure replayed prompts alone")

    monkeypatch.setattr(rollout, "make_server", never)
    workspace = Workspace(state.parent)
    monkeypatch.setenv(SERVER_VARIABLE, url)
    with rollout.a_server(workspace) as client:
        assert client.url == url
    monkeypatch.delenv(SERVER_VARIABLE)
    publish(state, url, "serving-7d9f")
    with (
        pytest.raises(StepFailed, match="runs on serving-7d9f: set SLUICE_SERVER to its address"),
        rollout.a_server(workspace),
    ):
        pass
    assert server_file(state).exists()


@pytest.mark.parametrize(
    ("version", "released", "outcome"),
    [
        ("", ReleaseState(champion="1"), "skipped"),
        ("2", ReleaseState(champion="1"), "dropped"),
        ("2", ReleaseState(champion="1", challenger="3", challenger_weight=10), "dropped"),
    ],
)
def test_a_repeated_rollout_says_what_became_of_its_own_version(
    state: Path, monkeypatch: pytest.MonkeyPatch, version: str, released: ReleaseState, outcome: str
) -> None:
    """KFP repeats a failed task: the second attempt must not call a dropped version skipped, nor roll another out."""

    class Releases:
        def state(self) -> ReleaseState:
            return released

    monkeypatch.setattr(rollout, "open_releases", lambda *_: Releases())
    assert rollout.rollout(Workspace(state.parent), version) == outcome


def test_an_empty_key_opens_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICE_API_KEY")
    workspace = Workspace(state.parent)
    (state / "api_key").write_text("\n")
    with pytest.raises(ValueError, match=r"api_key is empty, which would let everybody in: remove it"):
        workspace.api_key()
    assert find_server(state) is None
    (state / "api_key").unlink()
    assert len(workspace.api_key()) >= 32

"""Opening the workspace's stores: who acts, and whether the server could serve a rollback's target."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sluice.components.stores import server_ready, who
from sluice.components.workspace import Workspace
from sluice.serving.client import SERVER_VARIABLE, server_file


class Gateway(BaseHTTPRequestHandler):
    """A server that has loaded version 1, can load version 2, and no other."""

    def do_GET(self) -> None:
        self.answer(200, {"ready": ["1"]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        found = asked["version"] == "2" and self.path == "/admin/load"
        self.answer(200 if found else 409, {"state": {}} if found else {"error": {"message": "it needs 80 GB"}})

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SLUICE_API_KEY", "a key of this test")
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    workspace = Workspace(tmp_path)
    workspace.state.mkdir()
    return workspace


@pytest.fixture
def server(workspace: Workspace) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        record = {"host": socket.gethostname(), "pid": os.getpid(), "url": f"http://127.0.0.1:{server.server_port}"}
        server_file(workspace.state).write_text(json.dumps({**record, "state_folder": str(workspace.state.resolve())}))
        yield server
        server.shutdown()
        thread.join()


def test_the_server_loads_a_version_before_a_rollback_to_it(workspace: Workspace, server: HTTPServer) -> None:
    ready = server_ready(workspace)
    assert ready is not None and ready("1") and ready("2")
    with pytest.raises(ValueError, match=r"the server at http://.* did not load it: 409: it needs 80 GB"):
        ready("3")


def test_without_a_server_there_is_nothing_to_ask(workspace: Workspace) -> None:
    assert server_ready(workspace) is None


def test_an_actor_is_user_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop" + "y" * 300)
    monkeypatch.setattr("getpass.getuser", lambda: "ann\udce9")
    assert who().startswith("ann?@laptop") and len(who()) == 256
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid")))
    assert who().startswith(f"uid {os.getuid()}@laptop")

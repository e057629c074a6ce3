"""`sluice mlflow`: the registry's web page."""

import argparse
import os
import subprocess
import sys
import time
from contextlib import suppress
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from sluice.components.stores import open_registry
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.doctor import port_taken

_START_S = 120.0
_END_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000)


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    if port_taken("127.0.0.1", arguments.port):
        raise ValueError(f"port {arguments.port} is taken: choose another with --port")
    workspace.state.mkdir(exist_ok=True)
    address = f"http://127.0.0.1:{arguments.port}"
    print(f"starting MLflow at {address}; Ctrl-C ends it", flush=True)
    where = ["--host", "127.0.0.1", "--port", str(arguments.port), "--workers", "1"]
    stores = ["--backend-store-uri", workspace.database_url, "--artifacts-destination", workspace.registry_artifacts]
    with (workspace.state / "mlflow.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *stores],
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        try:
            if _answers(server, f"{address}/health"):
                # The front page is a welcome; versions, aliases and tags are here.
                print(f"registry at {address}/#/models/{open_registry(workspace).model_name}", flush=True)
            code = server.wait()
        finally:
            server.terminate()
            try:
                server.wait(_END_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    raise ValueError(f"the registry's server ended with status {code}: see {workspace.state / 'mlflow.log'}")


def _answers(server: subprocess.Popen[bytes], health: str) -> bool:
    """Wait until the server answers; False if it ended or said nothing within `_START_S`."""
    opener = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(URLError, OSError), opener.open(health, timeout=5):
            return True
        time.sleep(0.2)
    return False

"""`sluice mlflow`: the registry's web page."""

import argparse
import subprocess
import sys

from components.workspace import Workspace
from pipelines.doctor import port_taken


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    if port_taken("127.0.0.1", arguments.port):
        raise ValueError(f"port {arguments.port} is taken: choose another with --port")
    workspace.state.mkdir(exist_ok=True)
    print(f"registry at http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(arguments.port),
        "--workers",
        "1",
    ]
    stores = ["--backend-store-uri", workspace.database_url, "--artifacts-destination", workspace.registry_artifacts]
    with (
        (workspace.state / "mlflow.log").open("ab") as log,
        subprocess.Popen([*command, *stores], stdout=log, stderr=log) as server,
    ):
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            server.wait(10)
            return 0
    raise ValueError(f"the registry's server ended with status {code}: see {workspace.state / 'mlflow.log'}")

"""`sluice serve`: the server of this workspace, in the foreground."""

import argparse
import os
import signal
import threading

from sluice.components.stores import make_server, open_releases
from sluice.core.files import try_lock
from sluice.pipelines.compose import find_workspace, override_block
from sluice.pipelines.options import add_overrides
from sluice.pipelines.ray_head import prepare_environment
from sluice.serving.client import find_server
from sluice.serving.config import ServeConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, "serve.port=8001, serve.host=..., serve.max_batch=...")


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    config = override_block(workspace, ServeConfig, arguments.overrides)
    if (running := find_server(workspace.state)) is not None:
        raise ValueError(f"a server of this workspace already answers at {running.url}")
    if open_releases(workspace).state().champion is None:
        raise ValueError("there is no champion to serve: `sluice run` makes one")
    # One a workspace, from the first moment: two that start at once would share the port, as Ray Serve binds it.
    with (workspace.state / "serve.lock").open("w") as lock:
        if not try_lock(lock):
            raise ValueError("another `sluice serve` of this workspace is starting: wait for it or end it")
        prepare_environment()
        print("starting Ray Serve ..", flush=True)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        with make_server(workspace, config) as server:
            # Ray has replaced the handler by its own, which dumps the stack and aborts.
            signal.signal(signal.SIGTERM, on_sigterm)
            server.ready()
            key = "$SLUICE_API_KEY" if os.environ.get("SLUICE_API_KEY") else workspace.state / "api_key"
            print(f"serving at {server.url}  (page: {server.url}/  key: {key}  Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    return 0

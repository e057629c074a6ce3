"""`sluice serve`: the server of this workspace, in the foreground."""

import argparse
import os
import sys
import threading
from concurrent.futures import Future
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, NoReturn

from sluice.components.ray_head import prepare_environment
from sluice.components.stores import make_server, open_releases
from sluice.core.files import holding_lock, lock_holder
from sluice.core.local_ray import RayFailed
from sluice.pipelines.compose import find_workspace, override_block
from sluice.pipelines.options import add_overrides
from sluice.serving.client import find_server
from sluice.serving.config import ServeConfig

if TYPE_CHECKING:
    from sluice.serving.ray_serve.server import Server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, "serve.port=8001, serve.host=..., serve.max_batch=...")
    parser.add_argument(
        "--wait", action="store_true", help="start before anything is released, and serve the first version once it is"
    )


def run(arguments: argparse.Namespace) -> int:
    workspace = find_workspace()
    config = override_block(workspace, ServeConfig, arguments.overrides)
    if (running := find_server(workspace.state)) is not None:
        raise ValueError(f"a server of this workspace already answers at {running.url}")
    if open_releases(workspace).state().champion is None and not arguments.wait:
        raise ValueError("there is no champion to serve: `sluice run` makes one, and --wait waits for it")
    # One a workspace, from the first moment: two that start at once would share the port, as Ray Serve binds it.
    with holding_lock(workspace.serve_lock, str(os.getpid())) as held:
        if not held:
            raise ValueError(
                f"another `sluice serve` of this workspace (process {lock_holder(workspace.serve_lock)}) is starting "
                "or does not answer: wait for it or end it"
            )
        prepare_environment()
        print("starting Ray Serve ..", flush=True)
        server = make_server(workspace, config)
        _start(server)
        try:
            key = "$SLUICE_API_KEY" if os.environ.get("SLUICE_API_KEY") else workspace.state / "api_key"
            print(f"serving at {server.url}  (page: {server.url}/  key: {key}  Ctrl-C ends it)", flush=True)
            if outage := server.client.outage():
                print(f"no champion answers: {outage}", flush=True)
            # Ray prints the end of its log where it dies.
            with (workspace.state / "ray.log").open("a") as log, redirect_stdout(log):
                server.wait()
        except RayFailed as died:
            _end_now(server, f"{died}; `sluice serve` starts it again", status=1)
        finally:
            server.stop()
    return 0


def _start(server: "Server") -> None:
    """Start the server and wait until it is ready; a signal meanwhile ends this process within seconds."""
    ready: Future[None] = Future()

    def start() -> None:
        try:
            server.start().ready()
            ready.set_result(None)
        except BaseException as error:
            ready.set_exception(error)

    # In a thread, because this one sees no signal while Ray waits in C++; nor does Ray take the signals from there.
    threading.Thread(target=start, name="start", daemon=True).start()
    try:
        ready.result()
    except RayFailed as failed:
        _end_now(server, str(failed), status=1)
    except KeyboardInterrupt:
        _end_now(server, "interrupted while the server was starting", status=130)
    except BaseException:
        server.stop()
        raise


def _end_now(server: "Server", why: str, *, status: int) -> NoReturn:
    """End server and process, without Ray's exit handlers, which would wait for processes that are gone."""
    server.kill()
    print(f"sluice serve: {why}", file=sys.stderr, flush=True)
    os._exit(status)

"""The server on Ray Serve: one application per model version, the gateway in front, and the reconciler."""

import io
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus, LoggingConfig

from sluice.core.files import write_json
from sluice.core.local_ray import LocalRay, RayFailed, connect
from sluice.serving.auth import Key, workspace_key
from sluice.serving.client import Client, find_server, server_file
from sluice.serving.config import ServeConfig
from sluice.serving.lease import LeaseRow
from sluice.serving.ray_serve.reconciler import CPU_SHARE, GATEWAY, PUSH_TIMEOUT_S, Reconciler, ReleaseSource, deploy
from sluice.serving.ray_serve.replicas import VERSION_PREFIX, GatewayReplica

MAX_ONGOING_REQUESTS = 1000
_POLL_S = 0.2
HEARTBEAT_TIMEOUT_S = 10.0
"""A gateway that got no routes for this long belongs to a server that was killed."""


class Server:
    """Ray Serve with the gateway, and the reconciler that makes it follow the release.

    `model_folder` returns the local folder of a version (`sluice.serving.releases.Releases.model_folder`). While the
    server runs, `state_folder` holds `server.json`; traffic records go to `state_folder/traffic`. `key` may do
    everything; `stored_keys` returns the further keys in force, `read_lease` the lease of the rollout's controller,
    and `salt` is that of sessions. Connects to RAY_ADDRESS if it is set, otherwise starts a local Ray.
    """

    def __init__(
        self,
        releases: ReleaseSource,
        model_folder: Callable[[str], Path],
        config: ServeConfig,
        *,
        state_folder: Path,
        key: str,
        stored_keys: Callable[[], tuple[Key, ...]] = tuple,
        read_lease: Callable[[], LeaseRow | None] | None = None,
        salt: str = "",
    ) -> None:
        self._config, self._state_folder, self._key = config, state_folder.absolute(), key
        self._reconciler = Reconciler(
            releases,
            model_folder,
            config,
            self._announce,
            keys=lambda: (workspace_key(key), *stored_keys()),
            read_lease=read_lease,
            salt=salt,
        )
        self._own_ray: LocalRay | None = None
        self._id = secrets.token_hex(8)
        """Tells this server's record from that of another pod, whose process may have the same number."""

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._config.host, self._config.host)  # noqa: S104
        return f"http://[{host}]:{self._config.port}" if ":" in host else f"http://{host}:{self._config.port}"

    @property
    def client(self) -> Client:
        """A client with the server's key."""
        return Client(self.url, self._key)

    def start(self) -> "Server":
        """Start all processes and return before models are loaded (`ready` waits for them).

        Raises ValueError if a server of this workspace already runs, the port is taken, or the cluster serves other
        applications.
        """
        if (running := find_server(self._state_folder, self._key)) is not None:
            raise ValueError(f"a server of this workspace already answers at {running.url}: stop it first")
        if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
            ray.init(ignore_reinit_error=True, log_to_driver=False)
            _clear_leftovers()
        _check_port(self._config.host, self._config.port)
        self._state_folder.mkdir(parents=True, exist_ok=True)
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def ready(self, timeout_s: float = 180.0) -> "Server":
        """Wait until the gateway answers and every version of the release has been loaded or has failed to load.

        Raises TimeoutError naming what it waited for, and RayFailed if its own Ray dies meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        while not self._reconciler.settled.wait(_POLL_S):
            if self._own_ray is not None and (why := self._own_ray.why_ended(0)):
                raise RayFailed(why)
            if time.monotonic() > deadline:
                waiting_for = self._reconciler.waiting_for
                raise TimeoutError(f"the server was not ready within {timeout_s:.0f} s: waiting for {waiting_for}")
        return self

    def wait(self) -> None:
        """Wait for as long as the server runs. Raises RayFailed if its own Ray dies."""
        if self._own_ray is None:
            threading.Event().wait()
        else:
            raise RayFailed(str(self._own_ray.why_ended()))

    def stop(self) -> None:
        """Stop the server after finishing the requests in flight."""
        if self._own_ray is not None and self._own_ray.why_ended(0) is not None:
            # There is nothing left that could finish them, and asking it would hang.
            self.kill()
            return
        self._reconciler.stop()
        if self._published():
            server_file(self._state_folder).unlink(missing_ok=True)
        # Ray prints the end of its own controller as a failure.
        with redirect_stdout(io.StringIO()):
            # Without Ray, it would start one.
            if ray.is_initialized():
                serve.shutdown()
            if self._own_ray is not None:
                ray.shutdown()
                self._own_ray.stop()

    def kill(self) -> None:
        """End the server at once, from any thread and at any point of its start; requests in flight are lost.

        In a cluster that RAY_ADDRESS names, its applications stay until the next server there removes them.
        """
        if self._published():
            server_file(self._state_folder).unlink(missing_ok=True)
        if self._own_ray is not None:
            self._own_ray.stop()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.stop()

    def _launch(self) -> None:
        if not ray.is_initialized():
            self._own_ray = LocalRay(log=self._state_folder / "ray.log")
            self._own_ray.start()
            connect(self._own_ray.address)
        # Its notices and warnings, such as one of each replica that ended, would fill the terminal.
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(host=self._config.host, port=self._config.port),
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        traffic = str(self._state_folder / "traffic")
        gateway = serve.deployment(
            name=GATEWAY, max_ongoing_requests=MAX_ONGOING_REQUESTS, ray_actor_options={"num_cpus": CPU_SHARE}
        )(serve.ingress()(GatewayReplica))
        deploy(gateway.bind(self._config.model_dump(), (workspace_key(self._key),), traffic), GATEWAY, "/")
        self._reconciler.start()

    def _announce(self) -> bool:
        """Write server.json once the gateway answers over HTTP; return whether it is written."""
        if self._published():
            return True
        if not self.client.answers():
            return False
        place = str(self._state_folder.resolve())
        record = {"id": self._id, "host": socket.gethostname(), "pid": os.getpid(), "url": self.url}
        write_json(server_file(self._state_folder), {**record, "started": time.time(), "state_folder": place})
        return True

    def _published(self) -> bool:
        """Return whether server.json is this server's own."""
        try:
            return bool(json.loads(server_file(self._state_folder).read_text())["id"] == self._id)
        except (OSError, ValueError, KeyError):
            return False


def _clear_leftovers() -> None:
    """Remove the applications of a killed server; raise ValueError if others use this cluster's Ray Serve."""
    applications = serve.status().applications
    if others := sorted(name for name in applications if name != GATEWAY and not name.startswith(VERSION_PREFIX)):
        raise ValueError(
            f"Ray Serve of this cluster runs other applications ({', '.join(others)}): use another cluster"
        )
    gateway = applications.get(GATEWAY)
    if gateway is not None and gateway.status == ApplicationStatus.RUNNING:
        handle = serve.get_app_handle(GATEWAY)
        if handle.seconds_since_heartbeat.remote().result(timeout_s=PUSH_TIMEOUT_S) < HEARTBEAT_TIMEOUT_S:
            raise ValueError("another server runs in this Ray cluster: stop it first, or unset RAY_ADDRESS")
    if applications:
        serve.shutdown()


def _check_port(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ValueError(f"serve.host '{host}' is not an address of this machine: {error.strerror}") from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}:{port}: {error.strerror}; free the port or set serve.port to another"
            ) from None

"""The server on Ray Serve: one application a model version, the gateway in front, a loop that follows the release.

Versions come and go at run time. Which of them answers is not Ray's affair: the gateway gets a new route table, an
ordinary method call of a few milliseconds. (`serve.run` with another `user_config` is no such thing: called from Python
it gives the deployment a new code version, and that restarts the replica.) The loop pushes the table at every turn, so
a gateway that was restarted has it again half a second later.
"""

import asyncio
import io
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, LoggingConfig

from sluice.monitoring.traffic import TrafficWriter
from sluice.serving.auth import hash_key
from sluice.serving.client import Client, find_server, server_file
from sluice.serving.config import ServeConfig
from sluice.serving.engine.request import ERRORS, EngineStopped, GenerationError, GenerationRequest, TokenEvent
from sluice.serving.gateway import create_app
from sluice.serving.reconcile import Observed, plan
from sluice.serving.releases import ReleaseState
from sluice.serving.routing import Routes, RouteTable

GATEWAY, PREFIX = "gateway", "model-v"
"""Names of the applications: the gateway, and one for each version."""
POLL_S, STARTING_POLL_S = 0.5, 0.1
DRAIN_S = 2.0
"""A version is deleted when it was unneeded for this long: requests routed to it a moment ago are under way by then."""
RETRY_S = 30.0
"""A version that could not be loaded is tried again after this time."""
PUSH_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0
MAX_ONGOING_REQUESTS = 1000
CPU_SHARE, GPU_SHARE = 0.1, 0.1
"""What a replica reserves. Little: it has to fit in beside the steps of a run."""
CONNECT_TIMEOUT_S = 5.0
LEADERLESS_S = 10.0
"""A gateway that got no routes for this long belongs to a server that was killed."""
_BROKEN = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A GenerationError between processes: as a value, so that Ray neither wraps nor logs it."""

    kind: str
    message: str


class ReleaseSource(Protocol):
    """Who says what serves (sluice.serving.releases.Releases)."""

    def state(self) -> ReleaseState: ...


class ModelReplica:
    """One model version."""

    def __init__(self, folder: str, config: dict[str, Any]) -> None:
        from sluice.serving.engine.engine import Engine

        self._engine = Engine(Path(folder), ServeConfig.model_validate(config))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent | Failure, None]:
        """The engine's events; a request that fails ends with a Failure."""
        try:
            async for event in self._engine.generate(request):
                yield event
        except GenerationError as error:
            yield Failure(type(error).__name__, str(error))

    async def load(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        return self._engine.load

    def check_health(self) -> None:
        """Ray Serve replaces the replica when this raises."""
        if self._engine.failure:
            raise RuntimeError(f"the engine broke down: {self._engine.failure}")

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.stop()


class ServeBackends:
    """Model versions behind Ray Serve's handles."""

    def __init__(self) -> None:
        self._handles: dict[str, DeploymentHandle] = {}

    async def connect(self, versions: tuple[str, ...]) -> None:
        """Makes ready to ask exactly these versions."""
        for version in versions:
            if version not in self._handles:
                handle = await asyncio.to_thread(serve.get_app_handle, PREFIX + version)
                # The first call of a handle looks up its replicas: done here, no request waits for it.
                await asyncio.wait_for(handle.load.remote(), CONNECT_TIMEOUT_S)
                self._handles[version] = handle
        for version in self._handles.keys() - set(versions):
            del self._handles[version]

    async def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Events of the answer, from whichever process has the version."""
        if version not in self._handles:
            raise VersionNotLoaded(f"version {version} is not loaded")
        call = self._handles[version].options(stream=True).generate.remote(request)
        response = cast("DeploymentResponseGenerator[TokenEvent | Failure]", call)
        try:
            async for event in response:
                if isinstance(event, Failure):
                    raise ERRORS.get(event.kind, EngineStopped)(event.message)
                yield event
        finally:
            response.cancel()


class VersionNotLoaded(GenerationError):
    """The version could not be loaded; `/admin/state` says why."""

    status = 502


class GatewayReplica:
    """The gateway with Ray Serve's handles behind it."""

    def __init__(self, config: dict[str, Any], key_hashes: list[str], traffic_folder: str) -> None:
        self._config, self._key_hashes, self._traffic_folder = config, key_hashes, traffic_folder
        self._routes, self._backends = RouteTable(), ServeBackends()
        self._led = time.monotonic()

    def __serve_build_asgi_app__(self) -> FastAPI:
        config, traffic = ServeConfig.model_validate(self._config), TrafficWriter(Path(self._traffic_folder))
        return create_app(self._backends, config, self._key_hashes, traffic, self._routes, names_requests=False)

    async def set_routes(self, routes: Routes) -> None:
        """Puts a route table in force."""
        self._led = time.monotonic()
        await self._backends.connect(routes.ready)
        self._routes.current = routes

    async def leaderless_s(self) -> float:
        """Seconds since a reconciler last pushed routes."""
        return time.monotonic() - self._led


class Server:
    """A running server: Ray Serve, and the loop that makes it follow the release.

    `model_folder` gives the local folder of a version (sluice.serving.registry.Registry.model_folder). `state_folder`
    gets `server.json` while the server runs, and `traffic/`. Connects to RAY_ADDRESS where it is set, else starts Ray.
    """

    def __init__(
        self,
        releases: ReleaseSource,
        model_folder: Callable[[str], Path],
        config: ServeConfig,
        *,
        state_folder: Path,
        key: str,
    ) -> None:
        self._config, self._state_folder, self._key = config, state_folder.absolute(), key
        self._reconciler = Reconciler(releases, model_folder, config, self._announce)
        self._ray_folder: str | None = None

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._config.host, self._config.host)  # noqa: S104
        return f"http://[{host}]:{self._config.port}" if ":" in host else f"http://{host}:{self._config.port}"

    @property
    def client(self) -> Client:
        """A client with the server's key."""
        return Client(self.url, self._key)

    def start(self) -> "Server":
        """Starts everything and returns before models are loaded; `ready` waits for them.

        ValueError when a server of this workspace runs, the port is taken or the cluster serves something else.
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
        """Returns when the gateway answers and every version of the release is loaded, or has failed to load.

        TimeoutError says what was waited for.
        """
        if not self._reconciler.settled.wait(timeout_s):
            waiting_for = self._reconciler.waiting_for
            raise TimeoutError(f"the server was not ready within {timeout_s:.0f} s: waiting for {waiting_for}")
        return self

    def stop(self) -> None:
        """Ends the server; requests on their way are finished first."""
        self._reconciler.stop()
        server_file(self._state_folder).unlink(missing_ok=True)
        # Ray reports the end of its own controller as a failure, to the terminal of whoever stops a server.
        with redirect_stdout(io.StringIO()):
            serve.shutdown()
            if self._ray_folder is not None:
                ray.shutdown()
                shutil.rmtree(self._ray_folder, ignore_errors=True)

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.stop()

    def _launch(self) -> None:
        if not ray.is_initialized():
            # Short: the sockets below it may have no more than 107 characters.
            self._ray_folder = tempfile.mkdtemp(prefix="sluice-ray-")
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=self._ray_folder,
            )
        # Its notices of everyday events would land in the terminal of whoever serves.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(host=self._config.host, port=self._config.port),
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        traffic = str(self._state_folder / "traffic")
        gateway = serve.deployment(
            name=GATEWAY, max_ongoing_requests=MAX_ONGOING_REQUESTS, ray_actor_options={"num_cpus": CPU_SHARE}
        )(serve.ingress()(GatewayReplica))
        _deploy(gateway.bind(self._config.model_dump(), [hash_key(self._key)], traffic), GATEWAY, "/")
        self._reconciler.start()

    def _announce(self) -> bool:
        """Writes server.json once the gateway really answers; whether it is written."""
        path = server_file(self._state_folder)
        if path.exists() and json.loads(path.read_text())["pid"] == os.getpid():
            return True
        if not self.client.answers():
            return False
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": os.getpid(), "url": self.url, "started": time.time()}))
        partial.replace(path)
        return True


class Reconciler:
    """The thread that moves Ray Serve towards the release, a step every POLL_S."""

    def __init__(
        self,
        releases: ReleaseSource,
        model_folder: Callable[[str], Path],
        config: ServeConfig,
        announce: Callable[[], bool],
    ) -> None:
        self._releases, self._model_folder, self._config, self._announce = releases, model_folder, config, announce
        self.settled = threading.Event()
        """The gateway answers, and every version wanted was loaded or failed, at least once."""
        self.waiting_for = "the gateway"
        self._routes = Routes()
        self._failed: dict[str, tuple[str, float]] = {}
        """Why a version could not be loaded, and when (monotonic)."""
        self._unneeded: dict[str, float] = {}
        """Since when (monotonic) nothing needs a version."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        error = ""
        while not self._stopping.wait(POLL_S if self.settled.is_set() else STARTING_POLL_S):
            try:
                self._turn()
                error = ""
            except Exception as found:
                # The loop outlives whatever happens in a turn. The routes stay as they are, and the state says why.
                error = error or self._say(f"{type(found).__name__}: {found}")

    def _turn(self) -> None:
        statuses = serve.status().applications
        if statuses[GATEWAY].status != ApplicationStatus.RUNNING:
            self.waiting_for = f"the gateway ({statuses[GATEWAY].message or statuses[GATEWAY].status.value})"
        release = self._releases.state()
        observed = self._observe(statuses)
        step = plan(release, observed, self._routes)
        for version in step.deploy:
            self._load(version)
        self._delete(step.unneeded)
        if statuses[GATEWAY].status == ApplicationStatus.RUNNING:
            _push(step.routes)
            self._routes = step.routes
            self.waiting_for = ", ".join(f"version {version}" for version in step.waiting) or "an answer over HTTP"
            if not step.waiting and self._announce():
                self.settled.set()

    def _observe(self, statuses: dict[str, ApplicationStatusOverview]) -> Observed:
        now = time.monotonic()
        versions = {name.removeprefix(PREFIX): found for name, found in statuses.items() if name.startswith(PREFIX)}
        ready = {version for version, found in versions.items() if found.status == ApplicationStatus.RUNNING}
        broken = {version for version, found in versions.items() if found.status in _BROKEN}
        for version in ready:
            self._failed.pop(version, None)
        for version in broken - self._failed.keys():
            self._failed[version] = _reason(versions[version]), now
        return Observed(
            loading=versions.keys() - ready - broken,
            ready=ready,
            failed={version: reason for version, (reason, _) in self._failed.items()},
            retry={version for version, (_, at) in self._failed.items() if now - at > RETRY_S},
        )

    def _load(self, version: str) -> None:
        if version in self._failed:
            self._failed[version] = self._failed[version][0], time.monotonic()
        try:
            folder = self._model_folder(version)
        except ValueError as error:
            self._failed[version] = str(error), time.monotonic()
            return
        gpus = {"num_gpus": GPU_SHARE} if ray.cluster_resources().get("GPU") else {}
        model = serve.deployment(
            name="model",
            # The engine has a queue of its own, and says when it is full.
            max_ongoing_requests=2 * (self._config.max_batch + self._config.max_queued),
            graceful_shutdown_timeout_s=self._config.request_timeout_s,
            max_constructor_retry_count=2,
            health_check_period_s=5,
            ray_actor_options={"num_cpus": CPU_SHARE, **gpus},
        )(ModelReplica)
        _deploy(model.bind(str(folder), self._config.model_dump()), PREFIX + version, None)

    def _delete(self, unneeded: tuple[str, ...]) -> None:
        now = time.monotonic()
        self._unneeded = {version: self._unneeded.get(version, now) for version in unneeded}
        for version, since in self._unneeded.items():
            if now - since > DRAIN_S:
                self._failed.pop(version, None)
                serve.delete(PREFIX + version, _blocking=False)

    def _say(self, error: str) -> str:
        """Puts the error into the state, if the gateway can be told."""
        self.waiting_for = error
        try:
            _push(replace(self._routes, error=error))
        except Exception as found:
            log.warning("the gateway could not be told of %s: %s", error, found)
        return error


def _deploy(application: serve.Application, name: str, route_prefix: str | None) -> None:
    """Starts an application without waiting for it."""
    target = serve.RunTarget(application, name=name, route_prefix=route_prefix)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def _push(routes: Routes) -> None:
    handle = serve.get_app_handle(GATEWAY)
    handle.set_routes.remote(routes).result(timeout_s=PUSH_TIMEOUT_S)


def _reason(found: ApplicationStatusOverview) -> str:
    """The last line of what Ray Serve says of a failed application: its exception."""
    messages = [found.message, *(deployment.message for deployment in found.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if re.match(r"\w*(Error|Exception)\b", line)), " ".join(lines)[:500])


def _clear_leftovers() -> None:
    """Removes what a server that was killed left in the cluster; ValueError if the cluster serves something else."""
    applications = serve.status().applications
    if strangers := sorted(name for name in applications if name != GATEWAY and not name.startswith(PREFIX)):
        raise ValueError(f"Ray Serve of this cluster runs other applications ({', '.join(strangers)}): use another")
    gateway = applications.get(GATEWAY)
    if gateway is not None and gateway.status == ApplicationStatus.RUNNING:
        handle = serve.get_app_handle(GATEWAY)
        if handle.leaderless_s.remote().result(timeout_s=PUSH_TIMEOUT_S) < LEADERLESS_S:
            raise ValueError("another server runs in this Ray cluster: stop it first, or unset RAY_ADDRESS")
    if applications:
        serve.shutdown()


def _check_port(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ValueError(f"serve.host '{host}' is no address of this machine: {error.strerror}") from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}:{port}: {error.strerror}; free the port or set serve.port to another"
            ) from None

"""The thread that moves Ray Serve towards the release: loads versions, pushes routes, deletes what is unneeded.

Switching versions is an ordinary method call of a few milliseconds that replaces the gateway's route table.
(`serve.run` with another `user_config` would not be: called from Python it gives the deployment a new code version,
which restarts the replica.) The table is pushed at every turn, so a restarted gateway has it again within half a
second.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from sluice.serving.auth import Key
from sluice.serving.config import ServeConfig
from sluice.serving.control import Command, Commander, CommandResult, ReleaseControl, carry_out
from sluice.serving.lease import LeaseRow
from sluice.serving.page.view import ReleaseHistory, build_view
from sluice.serving.ray_serve.replicas import VERSION_PREFIX, ModelReplica
from sluice.serving.reconcile import ControllerWatch, ObservedVersions, plan_reconcile
from sluice.serving.release import ReleaseState
from sluice.serving.routing import Routes

GATEWAY = "gateway"
"""Name of the gateway's application."""
POLL_S, STARTING_POLL_S = 0.5, 0.1
DRAIN_S = 2.0
"""A version is deleted once it has been unneeded for this long, so that requests just routed to it have begun."""
RETRY_S = 30.0
"""A version that failed to load is tried again after this time."""
SLOW_LOAD_S = 120.0
"""A version that is not loaded by then is reported, with what Ray says of it, and goes on loading."""
PUSH_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 50.0
"""Longest wait of a command for a version to be loaded; less than that for the command's answer."""
KEEP_LOADED_S = 600.0
"""A version that was loaded on request, for a rollback to it, stays so long."""
ROUTER_TRIES = 5
CPU_SHARE, GPU_SHARE = 0.1, 0.1
"""CPUs and GPUs that a replica reserves: little, because it has to fit beside the steps of a run."""
_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)

log = logging.getLogger(__name__)


class ReleaseSource(ReleaseHistory, ReleaseControl, Protocol):
    """The release, to read and to change (implemented by `sluice.serving.releases.Releases`)."""


class Reconciler:
    """Thread that takes one step towards the release every POLL_S.

    `model_folder` returns the local folder of a version; `announce` publishes the server once it answers over HTTP and
    returns whether it did; `keys` returns those in force, and `read_lease` that of the rollout's controller, without
    which its challenger gets no live traffic (None: nobody has to measure it). Commands of the API and the page are
    carried out here, too.
    """

    def __init__(
        self,
        releases: ReleaseSource,
        model_folder: Callable[[str], Path],
        config: ServeConfig,
        announce: Callable[[], bool],
        *,
        keys: Callable[[], tuple[Key, ...]],
        read_lease: Callable[[], LeaseRow | None] | None,
        salt: str,
    ) -> None:
        self._releases, self._model_folder, self._config, self._announce = releases, model_folder, config, announce
        self._read_keys, self._read_lease, self._salt = keys, read_lease, salt
        self._lease: LeaseRow | None = None
        """The last lease of the rollout's controller that could be read: of one that cannot, the beat stands still."""
        self._watch = ControllerWatch()
        self._keys: tuple[Key, ...] = ()
        self.settled = threading.Event()
        """The gateway answers, and every wanted version has been loaded or has failed at least once."""
        self.waiting_for = "the gateway"
        self._release: ReleaseState | None = None
        """The last release that could be read."""
        self._routes = Routes()
        self._view: tuple[tuple[int, LeaseRow | None], dict[str, Any]] = (-1, None), {}
        """Number of the newest ledger entry and the rollout's progress, and what the page shows of them."""
        self._failed: dict[str, tuple[str, float]] = {}
        """Version that failed to load -> reason and time (monotonic)."""
        self._loading: dict[str, float] = {}
        """Version that is being loaded -> since when (monotonic)."""
        self._unneeded: dict[str, float] = {}
        """Version that nothing needs -> since when (monotonic)."""
        self._asked_for: dict[str, float] = {}
        """Version that somebody wants loaded beside the release -> until when (monotonic)."""
        # Hashing and fetching a model's files takes long; routes, keys and commands must not wait for it.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="start")
        self._starting: dict[str, Future[str]] = {}
        """Version whose files are being fetched and whose replica is being started -> why that failed, or empty."""
        self._commander = Commander(self._carry_out)
        self._turned = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        self._commander.stop()
        self._starter.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while not self._stopping.wait(
            POLL_S if self.settled.is_set() and not self._commander.is_busy else STARTING_POLL_S
        ):
            try:
                self._turn()
            except Exception as error:
                # The thread survives any error of a turn. Routes stay as they are.
                self._report(error)
            with self._turned:
                self._turned.notify_all()

    def _turn(self) -> None:
        """Observe, plan, act. If the release cannot be read, the last one that could stays in force."""
        self._collect_started()
        statuses = serve.status().applications
        gateway = statuses[GATEWAY]
        if gateway.status != ApplicationStatus.RUNNING:
            self.waiting_for = f"the gateway ({gateway.message or gateway.status.value})"
        failure: Exception | None = None
        try:
            self._release = self._releases.state()
            self._keys = self._read_keys()
            self._lease = self._read_lease() if self._read_lease else None
        except Exception as error:
            if self._release is None:
                raise
            failure = error
        now = time.monotonic()
        with self._turned:
            # A command's thread may ask for a version just now.
            self._asked_for = {version: until for version, until in self._asked_for.items() if now < until}
        step = plan_reconcile(self._release, self._observe(statuses), self._routes, self._asked_for.keys())
        for version in step.deploy:
            if version in self._failed:
                self._failed[version] = self._failed[version][0], now
            self._starting[version] = self._starter.submit(self._start_version, version)
        self._unneeded = {version: self._unneeded.get(version, now) for version in step.unneeded}
        for version, since in self._unneeded.items():
            if now - since > DRAIN_S:
                self._failed.pop(version, None)
                serve.delete(VERSION_PREFIX + version, _blocking=False)
        if gateway.status == ApplicationStatus.RUNNING:
            routes = step.routes if failure is None else _with_error(step.routes, failure)
            self._routes = replace(self._watched(routes), salt=self._salt, view=self._build_view())
            self._push(self._routes)
            self.waiting_for = ", ".join(f"version {version}" for version in step.waiting) or "an answer over HTTP"
            if not step.waiting and self._announce():
                self.settled.set()

    def _watched(self, routes: Routes) -> Routes:
        """Return the routes as the rollout's controller wants them; without it, nothing live goes to the challenger."""
        assert self._release is not None
        lease, challenger = self._lease, self._release.challenger
        is_lost = self._read_lease is not None and self._watch.is_lost(challenger, lease)
        wants_shadow = lease is not None and lease.version == routes.challenger and lease.shadow and not is_lost
        if is_lost and routes.challenger_weight:
            return replace(routes, challenger_weight=0, unwatched=True)
        return replace(routes, shadow=wants_shadow)

    def _push(self, routes: Routes) -> None:
        """Send the gateway routes, keys and results; begin the commands that it has."""
        keys = self._keys or self._read_keys()
        self._commander.begin(push_routes(routes, keys, self._commander.results()))

    def _carry_out(self, command: Command) -> CommandResult:
        """Return the result of one command; runs in the commander's threads."""
        if command.action != "load":
            return carry_out(self._releases, command, self._is_ready)
        assert command.version is not None
        fault = self._load(command.version)
        return CommandResult(command.id, f"version {command.version} cannot serve: {fault}" if fault else "")

    def _is_ready(self, version: str) -> bool:
        """Load a version; raises ValueError with the reason if it cannot serve."""
        if fault := self._load(version):
            raise ValueError(fault)
        return True

    def _load(self, version: str) -> str:
        """Load a version and wait until it is ready; return why it is not, or an empty string."""
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        with self._turned:
            self._asked_for = {**self._asked_for, version: time.monotonic() + KEEP_LOADED_S}
            # Copies: the reconciler's own thread may be reading them.
            self._failed = {name: found for name, found in dict(self._failed).items() if name != version}
            while version not in self._routes.ready:
                if version in self._failed:
                    self._asked_for = {name: at for name, at in self._asked_for.items() if name != version}
                    return self._failed[version][0]
                if not self._turned.wait(deadline - time.monotonic()):
                    return f"the server has not loaded it within {LOAD_TIMEOUT_S:.0f} s"
        return ""

    def _build_view(self) -> dict[str, Any]:
        """Return what the page shows of the release; read anew after an entry of the ledger or a new decision."""
        assert self._release is not None
        seen = self._release.sequence, replace(self._lease, beat=0) if self._lease else None
        if self._view[0] != seen:
            try:
                self._view = seen, build_view(self._releases, self._lease)
            except Exception as error:
                # The page says so. It must not keep versions from being served.
                return {**self._view[1], "error": f"{type(error).__name__}: {error}"}
        return self._view[1]

    def _observe(self, statuses: dict[str, ApplicationStatusOverview]) -> ObservedVersions:
        now, size = time.monotonic(), len(VERSION_PREFIX)
        versions = {name[size:]: status for name, status in statuses.items() if name.startswith(VERSION_PREFIX)}
        ready = {version for version, found in versions.items() if found.status == ApplicationStatus.RUNNING}
        failed = {version for version, found in versions.items() if found.status in _FAILED}
        for version in ready:
            self._failed.pop(version, None)
        for version in failed - self._failed.keys():
            self._failed[version] = _failure_reason(versions[version]), now
        loading = (versions.keys() | self._starting.keys()) - ready - failed
        self._loading = {version: self._loading.get(version, now) for version in loading}
        return ObservedVersions(
            loading=self._loading.keys(),
            slow={
                version: f"not loaded within {SLOW_LOAD_S:.0f} s: "
                + (_failure_reason(versions[version]) if version in versions else "its files are being read")
                for version, since in self._loading.items()
                if now - since > SLOW_LOAD_S
            },
            ready=ready,
            failed={version: reason for version, (reason, _) in self._failed.items()},
            retry={version for version, (_, at) in self._failed.items() if now - at > RETRY_S},
        )

    def _collect_started(self) -> None:
        """Note which versions could not be started."""
        for version in [version for version, started in self._starting.items() if started.done()]:
            if fault := self._starting.pop(version).result():
                self._failed[version] = fault, time.monotonic()

    def _start_version(self, version: str) -> str:
        """Fetch a version's files and start its replica; return why that failed, or an empty string."""
        try:
            folder = self._model_folder(version)
            past_router_race(lambda: self._deploy(version, folder))
        except Exception as error:
            # Whatever is wrong with one version, its store included, must not keep the others from being served.
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            return f"{kind}{error}"
        return ""

    def _deploy(self, version: str, folder: Path) -> None:
        gpus = {"num_gpus": GPU_SHARE} if ray.cluster_resources().get("GPU") else {}
        model = serve.deployment(
            name="model",
            # Above what the engine admits, so that its own queue limit applies and answers 503.
            max_ongoing_requests=2 * (self._config.max_batch + self._config.max_queued),
            graceful_shutdown_timeout_s=self._config.request_timeout_s,
            max_constructor_retry_count=2,
            # Three in a row that fail: a replica that hangs is replaced after half a minute, not one and a half.
            health_check_period_s=5,
            health_check_timeout_s=5,
            ray_actor_options={"num_cpus": CPU_SHARE, **gpus},
        )(ModelReplica)
        deploy(model.bind(str(folder), self._config.model_dump()), VERSION_PREFIX + version, None)

    def _report(self, error: Exception) -> None:
        """Put the error into the gateway's state, if the gateway can be reached."""
        routes = _with_error(self._routes, error)
        is_new, self.waiting_for = routes.error != self.waiting_for, routes.error
        try:
            self._push(routes)
        except Exception as found:
            if is_new:
                log.warning("could not send the gateway the error %s: %s", routes.error, found)


def _with_error(routes: Routes, error: Exception) -> Routes:
    kind = type(error).__name__
    return replace(routes, error=f"{kind}: {error}", error_kind=kind)


def past_router_race(action: Callable[[], None]) -> None:
    """Call `action` again, at most `ROUTER_TRIES` times in all, if Ray Serve collided with itself in two threads.

    For each deployment's settings Ray Serve registers its router's module for pickling by value and takes it off again,
    without a lock, also in its handles' own threads. The second to take it off fails, before anything is deployed.
    """
    for tries_left in reversed(range(ROUTER_TRIES)):
        try:
            action()
            return
        except ValueError as error:
            if not tries_left or "is not registered for pickle by value" not in str(error):
                raise


def deploy(application: serve.Application, name: str, route_prefix: str | None) -> None:
    """Start an application without waiting for it."""
    target = serve.RunTarget(application, name=name, route_prefix=route_prefix)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def push_routes(routes: Routes, keys: tuple[Key, ...], results: list[CommandResult]) -> list[Command]:
    """Put routes and keys in force in the gateway; return the commands that wait for their results."""
    call = serve.get_app_handle(GATEWAY).set_routes.remote(routes, keys, results)
    return cast("list[Command]", call.result(timeout_s=PUSH_TIMEOUT_S))


def _failure_reason(found: ApplicationStatusOverview) -> str:
    """Return the exception line of Ray Serve's messages about an application, or all of them."""
    messages = [found.message, *(deployment.message for deployment in found.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if re.match(r"\w*(Error|Exception)\b", line)), " ".join(lines)[:500])

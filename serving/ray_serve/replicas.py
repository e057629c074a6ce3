"""Ray Serve deployments: one replica for each model version, and the gateway in front of them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from sluice.monitoring.traffic.writer import TrafficWriter
from sluice.serving.auth import Key, KeyRing
from sluice.serving.config import ServeConfig
from sluice.serving.control import Command, CommandQueue, CommandResult
from sluice.serving.engine.request import ERRORS, EngineStopped, GenerationError, GenerationRequest, TokenEvent
from sluice.serving.gateway import create_app
from sluice.serving.routing import Routes, RouteTable

VERSION_PREFIX = "model-v"
"""Start of the name of a version's application; the version follows."""
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RemoteError:
    """A GenerationError sent between processes as a value, so that Ray neither wraps nor logs it."""

    kind: str
    message: str


class VersionNotLoaded(GenerationError):
    """The version could not be loaded; `/admin/state` gives the reason."""

    status = 502


class ReplicaFailed(GenerationError):
    """The replica that had the request stopped answering, and is being replaced."""

    status = 502


class ModelReplica:
    """Replica of one model version."""

    def __init__(self, folder: str, config: dict[str, Any]) -> None:
        from sluice.serving.engine.engine import LLMEngine

        self._engine = LLMEngine(Path(folder), ServeConfig.model_validate(config))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent | RemoteError, None]:
        """Yield the engine's events; a request that fails ends with a RemoteError."""
        try:
            async for event in self._engine.generate(request):
                yield event
        except GenerationError as error:
            yield RemoteError(type(error).__name__, str(error))

    async def load(self) -> tuple[int, int]:
        """Return the numbers of running and of waiting requests."""
        return self._engine.load

    def check_health(self) -> None:
        """Raise if the engine has failed: Ray Serve then replaces the replica."""
        if self._engine.failure:
            raise RuntimeError(f"the engine failed: {self._engine.failure}")

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.stop()


class RayBackends:
    """Model versions behind Ray Serve's handles (implements `sluice.serving.fallback.Backends`)."""

    def __init__(self) -> None:
        self._handles: dict[str, DeploymentHandle] = {}
        self._failures: dict[str, asyncio.Future[None]] = {}
        """Done once the version's replica has failed: Ray would let its requests wait until they time out."""

    async def connect(self, versions: tuple[str, ...]) -> None:
        """Hold a handle for exactly these versions.

        A version that does not answer in time is connected at its first request, so that it holds up no other's routes.
        """
        new = [version for version in versions if version not in self._handles]
        for version in new:
            self._handles[version] = await asyncio.to_thread(serve.get_app_handle, VERSION_PREFIX + version)
        # The first call of a handle looks up its replicas. Made here, so that no request waits for it.
        calls = [asyncio.wait_for(self._handles[version].load.remote(), CONNECT_TIMEOUT_S) for version in new]
        await asyncio.gather(*calls, return_exceptions=True)
        for version in self._handles.keys() - set(versions):
            del self._handles[version]

    def fail(self, versions: Collection[str]) -> None:
        """End the requests of versions whose replica failed."""
        for version in self._failures.keys() & versions:
            self._failures.pop(version).set_result(None)

    async def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Yield the answer's events from the replica of `version`."""
        if version not in self._handles:
            raise VersionNotLoaded(f"version {version} is not loaded")
        failure = self._failures.setdefault(version, asyncio.get_running_loop().create_future())
        call = self._handles[version].options(stream=True).generate.remote(request)
        response = cast("DeploymentResponseGenerator[TokenEvent | RemoteError]", call)
        try:
            while True:
                following = asyncio.ensure_future(anext(response, None))
                try:
                    either: set[asyncio.Future[Any]] = {following, failure}
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                    if not following.done():
                        raise ReplicaFailed(f"version {version} stopped answering, and is being replaced: try again")
                    event = following.result()
                finally:
                    following.cancel()
                if event is None:
                    return
                if isinstance(event, RemoteError):
                    raise ERRORS.get(event.kind, EngineStopped)(event.message)
                yield event
        finally:
            response.cancel()


class GatewayReplica:
    """Replica of the gateway, with Ray Serve's handles behind it."""

    def __init__(self, config: dict[str, Any], keys: tuple[Key, ...], traffic_folder: str) -> None:
        self._config, self._keys, self._traffic_folder = config, KeyRing(keys), traffic_folder
        self._routes, self._backends, self._commands = RouteTable(), RayBackends(), CommandQueue()
        self._last_heartbeat = time.monotonic()

    def __serve_build_asgi_app__(self) -> FastAPI:
        config, traffic = ServeConfig.model_validate(self._config), TrafficWriter(Path(self._traffic_folder))
        return create_app(
            self._backends,
            config,
            self._keys,
            traffic,
            self._routes,
            commands=self._commands,
            # Ray Serve sets the header x-request-id itself.
            sets_request_id=False,
            feedback_folder=Path(self._traffic_folder),
        )

    async def set_routes(self, routes: Routes, keys: tuple[Key, ...], results: list[CommandResult]) -> list[Command]:
        """Put routes and keys in force, and return the commands that wait for their results.

        Every call is a heartbeat of the reconciler.
        """
        self._last_heartbeat = time.monotonic()
        self._keys.current = keys
        self._commands.finish(results)
        await self._backends.connect(routes.ready)
        self._routes.current = routes
        self._backends.fail(routes.deploy_errors.keys())
        return self._commands.pending()

    async def seconds_since_heartbeat(self) -> float:
        """Seconds since a reconciler last pushed routes."""
        return time.monotonic() - self._last_heartbeat

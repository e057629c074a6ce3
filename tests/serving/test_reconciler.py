"""The reconciler with a real gateway replica; only Ray Serve's list of applications is a stand-in."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ApplicationStatus

from sluice.serving.auth import Key, workspace_key
from sluice.serving.config import ServeConfig
from sluice.serving.control import Command
from sluice.serving.lease import LeaseRow
from sluice.serving.ray_serve import reconciler, replicas
from sluice.serving.ray_serve.reconciler import GATEWAY, Reconciler
from sluice.serving.ray_serve.replicas import VERSION_PREFIX, GatewayReplica
from sluice.serving.reconcile import ControllerWatch
from sluice.serving.release import ReleaseState

WAIT_S = 60.0
OWN, ANNA = workspace_key("k" * 32), Key("anna", "watch", "a" * 64)


class Release:
    """Stands for `Releases`: the state is kept here, and every change is noted with its actor."""

    def __init__(self, state: ReleaseState) -> None:
        self.now, self.done = state, list[tuple[str, str, str]]()
        self.actor = ""

    def state(self) -> ReleaseState:
        return self.now

    def newest(self, count: int) -> list[Any]:
        return []

    def verdict(self, version: str) -> Any:
        raise ValueError("there is no verdict")

    def acting_as(self, actor: str) -> "Release":
        self.actor = actor
        return self

    def _change(self, action: str, reason: str, **fields: Any) -> ReleaseState:
        self.done.append((action, reason, self.actor))
        self.now = replace(self.now, sequence=self.now.sequence + 1, **fields)
        return self.now

    def pause(self, reason: str, *, version: str | None = None) -> ReleaseState:
        return self._change("pause", reason, paused=True)

    def drop(self, reason: str, *, version: str | None = None) -> ReleaseState:
        return self._change("drop", reason, challenger=None, challenger_weight=0, paused=False)

    def rollback(
        self, reason: str, *, version: str | None = None, to: str | None = None, ready: Callable[[str], bool]
    ) -> ReleaseState:
        assert to is not None and ready(to)
        return self._change("rollback", reason, champion=to)


class World:
    """A gateway replica, the reconciler in front of it, and the applications that Ray Serve has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: ReleaseState) -> None:
        self.release, self.keys, self.lease = Release(state), [OWN], None
        self.applications: dict[str, Any] = {}
        self.broken: dict[str, str] = {}
        self.now = 0.0
        self._add(GATEWAY)
        self.gateway = GatewayReplica(ServeConfig().model_dump(), (OWN,), "unused")
        monkeypatch.setattr(reconciler, "serve", self)
        monkeypatch.setattr(replicas, "serve", self)
        monkeypatch.setattr(Reconciler, "_deploy", lambda _, version, folder: self._add(VERSION_PREFIX + version))
        self.reconciler = Reconciler(
            self.release,  # type: ignore[arg-type]
            self._folder,
            ServeConfig(),
            lambda: True,
            keys=lambda: tuple(self.keys),
            read_lease=lambda: self.lease,
            salt="of this test",
        )
        self.reconciler._watch = ControllerWatch(lambda: self.now)

    def _add(self, name: str) -> None:
        found = SimpleNamespace(status=ApplicationStatus.RUNNING, message="", deployments={})
        self.applications = {**self.applications, name: found}

    def _folder(self, version: str) -> Path:
        if version in self.broken:
            raise ValueError(self.broken[version])
        return Path("a folder")

    def status(self) -> Any:
        return self

    def delete(self, name: str, _blocking: bool) -> None:
        self.applications = {each: found for each, found in self.applications.items() if each != name}

    def get_app_handle(self, name: str) -> Any:
        async def done() -> tuple[int, int]:
            return 0, 0

        if name != GATEWAY:
            return SimpleNamespace(load=SimpleNamespace(remote=done))
        return SimpleNamespace(set_routes=SimpleNamespace(remote=self._set_routes))

    def _set_routes(self, *arguments: Any) -> Any:
        call = asyncio.run_coroutine_threadsafe(self.gateway.set_routes(*arguments), self.loop)
        return SimpleNamespace(result=lambda timeout_s: call.result(timeout_s))

    @property
    def routes(self) -> Any:
        return self.gateway._routes.current

    async def until(self, what: Callable[[], bool]) -> None:
        """Take turns until `what` holds."""
        while not what():
            await asyncio.to_thread(self.reconciler._turn)
            with self.reconciler._turned:
                self.reconciler._turned.notify_all()

    async def command(self, action: Any, **fields: str) -> Any:
        result = asyncio.ensure_future(
            self.gateway._commands.result(Command(action=action, actor="key:anna", **fields))
        )
        await self.until(result.done)
        return result.result()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await asyncio.wait_for(work, WAIT_S)

        try:
            asyncio.run(main())
        finally:
            self.reconciler.stop()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, ReleaseState(champion="2", challenger="3", challenger_weight=25, previous_champion="1"))


def test_keys_and_salt_come_with_the_routes_and_a_revoked_key_goes_with_the_next_turn(world: World) -> None:
    async def work() -> None:
        world.keys = [OWN, ANNA]
        await world.until(lambda: world.routes.challenger_weight == 25)
        assert (world.routes.champion, world.routes.ready, world.routes.salt) == ("2", ("1", "2", "3"), "of this test")
        assert world.gateway._keys.current == (OWN, ANNA)
        world.keys = [OWN]
        await asyncio.to_thread(world.reconciler._turn)
        assert world.gateway._keys.current == (OWN,)

    world.run(work())


def test_commands_come_back_with_their_results(world: World) -> None:
    async def work() -> None:
        await world.until(lambda: world.routes.challenger == "3")
        assert (await world.command("pause", reason="look")).state["paused"]
        assert (await world.command("abort", reason="bad")).state["challenger"] is None
        assert world.release.done == [("pause", "look", "key:anna"), ("drop", "bad", "key:anna")]
        await world.until(lambda: world.routes.challenger is None)
        await world.until(lambda: not world.reconciler._commander.is_busy)

    world.run(work())


def test_an_earlier_version_is_loaded_before_the_release_goes_back_to_it(world: World) -> None:
    async def work() -> None:
        await world.until(lambda: world.routes.champion == "2")
        world.broken["9"] = "model.safetensors is gone"
        refused = await world.command("load", version="9")
        assert refused.error == "version 9 cannot serve: model.safetensors is gone"
        refused = await world.command("rollback", reason="worse", to="9")
        assert refused.error == "model.safetensors is gone" and world.release.now.champion == "2"
        del world.broken["9"]
        assert (await world.command("load", version="9")).error == ""
        assert "9" in world.routes.ready and world.routes.champion == "2"
        assert (await world.command("rollback", reason="worse", to="9")).state["champion"] == "9"
        await world.until(lambda: world.routes.champion == "9")

    world.run(work())


def test_a_version_that_is_asked_for_in_the_middle_of_a_turn_is_loaded(world: World) -> None:
    faults: list[str] = []
    command = threading.Thread(target=lambda: faults.append(world.reconciler._load("9")))

    class Asking(dict[str, float]):
        """A command asks for version 9 while the turn reads what was asked for, unless that has to wait."""

        def items(self) -> Any:
            found = super().items()
            command.start()
            command.join(0.3)
            return found

    async def work() -> None:
        await world.until(lambda: world.routes.champion == "2")
        world.reconciler._asked_for = Asking()
        await world.until(lambda: bool(faults))
        assert faults == [""] and "9" in world.routes.ready
        command.join()

    world.run(work())


def test_a_challenger_without_its_controller_gets_no_live_traffic_until_the_next_one(world: World) -> None:
    async def work() -> None:
        world.lease = LeaseRow("process 1 on here", "a", 1, "3", shadow=True, progress={"step": 1})
        await world.until(lambda: world.routes.challenger_weight == 25)
        assert world.routes.shadow and not world.routes.unwatched
        assert world.routes.view["rollout"]["step"] == 1
        world.now += 8.5
        await asyncio.to_thread(world.reconciler._turn)
        assert (world.routes.challenger, world.routes.challenger_weight) == ("3", 0)
        assert world.routes.unwatched and not world.routes.shadow
        assert world.routes.release["challenger_weight"] == 25
        world.lease = LeaseRow("process 2 on here", "b", 1, "3")
        await asyncio.to_thread(world.reconciler._turn)
        assert world.routes.challenger_weight == 25 and not world.routes.unwatched

    world.run(work())


def test_a_version_whose_files_take_long_holds_up_neither_routes_nor_keys(world: World) -> None:
    read, slow = threading.Event(), world.reconciler._model_folder

    def folder(version: str) -> Path:
        if version == "3":
            assert read.wait(WAIT_S)
        return slow(version)

    world.reconciler._model_folder = folder

    async def work() -> None:
        await world.until(lambda: world.routes.champion == "2")
        world.keys = [OWN, ANNA]
        await asyncio.to_thread(world.reconciler._turn)
        assert world.gateway._keys.current == (OWN, ANNA) and world.routes.challenger is None
        read.set()
        await world.until(lambda: world.routes.challenger == "3")

    world.run(work())


def test_a_collision_inside_ray_serve_is_tried_again_and_another_error_is_not() -> None:
    collision = ValueError("<module 'ray.serve._private.request_router'> is not registered for pickle by value")
    calls: list[int] = []

    def failing(error: ValueError, times: int) -> Callable[[], None]:
        calls.clear()

        def action() -> None:
            calls.append(1)
            if len(calls) <= times:
                raise error

        return action

    reconciler.past_router_race(failing(collision, 2))
    assert len(calls) == 3
    with pytest.raises(ValueError, match="by value"):
        reconciler.past_router_race(failing(collision, 100))
    assert len(calls) == reconciler.ROUTER_TRIES
    with pytest.raises(ValueError, match="no such file"):
        reconciler.past_router_race(failing(ValueError("no such file"), 1))
    assert len(calls) == 1

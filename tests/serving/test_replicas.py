"""The gateway's handles of the served versions."""

import asyncio

import pytest

from sluice.serving.ray_serve import replicas


class Call:
    def __init__(self, wait: asyncio.Event) -> None:
        self._wait = wait

    def __await__(self):
        return self._wait.wait().__await__()


class Handle:
    """Stands for Ray Serve's handle: its first call ends when `answers` is set."""

    def __init__(self, answers: asyncio.Event) -> None:
        self.load = self
        self._answers = answers

    def remote(self) -> Call:
        return Call(self._answers)


def test_a_version_that_does_not_answer_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect() -> tuple[replicas.RayBackends, list[str]]:
        never, at_once = asyncio.Event(), asyncio.Event()
        at_once.set()
        looked_up = []

        def handle_of(name: str) -> Handle:
            looked_up.append(name)
            return Handle(never if name == "model-v1" else at_once)

        monkeypatch.setattr(replicas.serve, "get_app_handle", handle_of)
        monkeypatch.setattr(replicas, "CONNECT_TIMEOUT_S", 0.01)
        backends = replicas.RayBackends()
        await backends.connect(("1", "2"))
        await backends.connect(("2", "1"))
        return backends, looked_up

    backends, looked_up = asyncio.run(connect())
    assert looked_up == ["model-v1", "model-v2"]
    assert sorted(backends._handles) == ["1", "2"]

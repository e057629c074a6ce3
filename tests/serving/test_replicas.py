"""The gateway's handles of the served versions."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from sluice.serving.engine.request import GenerationRequest, TokenEvent
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


class Response:
    """Stands for Ray Serve's response: two events, and then silence."""

    def __init__(self) -> None:
        self.cancelled, self._events = False, self._stream()

    async def _stream(self) -> AsyncGenerator[TokenEvent, None]:
        yield TokenEvent("a", 1)
        yield TokenEvent("b", 1)
        await asyncio.Event().wait()

    async def __anext__(self) -> TokenEvent:
        return await anext(self._events)

    def cancel(self) -> None:
        self.cancelled = True


def test_requests_of_a_replica_that_failed_end_at_once_and_others_go_on() -> None:
    async def requests() -> None:
        backends, responses = replicas.RayBackends(), {"1": Response(), "2": Response()}

        class Streaming:
            def __init__(self, version: str) -> None:
                self.generate, self._version = self, version

            def options(self, *, stream: bool) -> "Streaming":
                return self

            def remote(self, request: object) -> Response:
                return responses[self._version]

        backends._handles = {version: Streaming(version) for version in responses}  # type: ignore[misc]
        events = {version: backends.generate(version, REQUEST) for version in responses}
        for stream in events.values():
            assert [(await anext(stream)).text for _ in range(2)] == ["a", "b"]
        waiting = {version: asyncio.ensure_future(anext(stream)) for version, stream in events.items()}
        await asyncio.sleep(0)
        backends.fail({"1", "3"})
        with pytest.raises(replicas.ReplicaFailed, match="version 1 stopped answering, and is being replaced"):
            await waiting["1"]
        assert responses["1"].cancelled
        assert not waiting["2"].done() and not responses["2"].cancelled
        waiting["2"].cancel()
        await asyncio.wait({waiting["2"]})
        assert responses["2"].cancelled, "as where the client leaves"

    asyncio.run(requests())


REQUEST = GenerationRequest(request_id="id", prompt="The", max_tokens=4, seed=1)

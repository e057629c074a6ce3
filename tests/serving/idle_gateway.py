"""Parts of a gateway that is asked for no answers."""

from collections.abc import AsyncGenerator

from sluice.serving.engine.request import GenerationRequest, TokenEvent


class NoBackends:
    """There are no models."""

    async def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        raise AssertionError("nothing is generated here")
        yield


class NoTraffic:
    """Keeps nothing."""

    lost = 0

    def write(self, record: object) -> None:
        pass

    def close(self) -> None:
        pass

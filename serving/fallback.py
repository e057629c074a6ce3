"""One request on its way through the versions that may answer it.

A challenger that fails is answered for by the champion, also in the middle of a stream: the champion goes on behind the
text that is out already. What the user does not see is recorded all the same: every attempt is one traffic record.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Protocol

from sluice.monitoring.traffic.record import COLUMNS, TrafficRecord
from sluice.serving.engine.request import Finish, GenerationError, GenerationRequest, TokenEvent
from sluice.serving.routing import Target, TrafficSource

CHALLENGER_SHARE = 0.5
"""Share of a request's time that the challenger may use; the rest is the champion's, should it have to step in."""
CLIENT_GONE = 499
"""Status of a request whose client left (nginx's code; it is never sent)."""
MEASURED_BY_ENGINE = tuple(
    column.name for column in fields(Finish) if column.name in COLUMNS.keys() - {"completion_tokens", "total_ms"}
)
"""Fields of `Finish` that the traffic record takes under the same names. Tokens and total time are an attempt's own."""


class Backends(Protocol):
    """The model versions behind the gateway."""

    def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Events of the answer; the last has `finish`. Raises GenerationError, or whatever the transport raises."""


class BackendFailed(GenerationError):
    """The answer ended without an end."""

    status = 502


@dataclass
class Attempt:
    """One version's try at a request."""

    leg: Target
    started: float
    """Seconds of a monotonic clock."""
    total_ms: float = 0.0
    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    status: int = CLIENT_GONE
    """Until something else is known, the client left."""
    error: str = "ClientGone"


class FallbackCall:
    """Asks `legs` in order, within `timeout_s`, and hands every attempt to `record` when it is over."""

    def __init__(
        self,
        backends: Backends,
        request: GenerationRequest,
        legs: Sequence[Target],
        *,
        source: TrafficSource,
        timeout_s: float,
        record: Callable[[TrafficRecord], None],
    ) -> None:
        assert legs, "a request that nobody may answer is refused before"
        self._backends, self._request, self._legs, self._source = backends, request, tuple(legs), source
        self._record = record
        self._arrived = time.time()
        self._deadline = time.monotonic() + timeout_s
        self._attempts: list[Attempt] = []

    @property
    def request_id(self) -> str:
        return self._request.request_id

    @property
    def leg(self) -> Target:
        """Who answers now."""
        return self._attempts[-1].leg if self._attempts else self._legs[0]

    @property
    def fell_back(self) -> bool:
        """Whether a version failed and the next one was asked."""
        return len(self._attempts) > 1

    async def events(self) -> AsyncGenerator[TokenEvent, None]:
        """The answer, as if one version gave it all. Raises what the last version raised."""
        try:
            for leg in self._legs:
                attempt = Attempt(leg, time.monotonic())
                self._attempts.append(attempt)
                try:
                    async with aclosing(self._attempt(attempt)) as events:
                        async for event in events:
                            yield event
                    return
                except Exception as error:
                    attempt.status, attempt.error = _status(error), type(error).__name__
                    if leg is self._legs[-1]:
                        raise
                finally:
                    attempt.total_ms = attempt.total_ms or 1e3 * (time.monotonic() - attempt.started)
        finally:
            self._write_records()

    async def _attempt(self, attempt: Attempt) -> AsyncGenerator[TokenEvent, None]:
        text, tokens = self._given_out()
        request = replace(self._request, prefix=text, max_tokens=max(1, self._request.max_tokens - tokens))
        limit = self._deadline
        if attempt.leg is not self._legs[-1]:
            limit -= (1 - CHALLENGER_SHARE) * (self._deadline - attempt.started)
        async with aclosing(self._backends.generate(attempt.leg.version, request)) as events:
            while attempt.finish is None:
                try:
                    async with asyncio.timeout(limit - time.monotonic()):
                        event = await anext(events)
                except StopAsyncIteration:
                    raise BackendFailed("the answer broke off") from None
                attempt.text += event.text
                attempt.tokens += event.tokens
                if event.finish is not None:
                    attempt.finish, attempt.status, attempt.error = event.finish, 200, ""
                    attempt.total_ms = 1e3 * (time.monotonic() - attempt.started)
                    event = replace(event, finish=replace(event.finish, completion_tokens=tokens + attempt.tokens))
                yield event

    def _given_out(self) -> tuple[str, int]:
        """Text and number of tokens that the client has from attempts that failed."""
        return "".join(attempt.text for attempt in self._attempts), sum(attempt.tokens for attempt in self._attempts)

    def _write_records(self) -> None:
        answered = self._attempts and self._attempts[-1].status not in range(400, 500)
        for attempt in self._attempts:
            status = attempt.status
            if answered and status in range(400, 499):
                # What one version refuses as the user's mistake and the next one answers was the version's mistake.
                status = 500
            self._record(self._traffic_record(attempt, status))

    def _traffic_record(self, attempt: Attempt, status: int) -> TrafficRecord:
        measured = {name: getattr(attempt.finish, name) for name in MEASURED_BY_ENGINE} if attempt.finish else {}
        return TrafficRecord(
            **measured,
            request_id=self._request.request_id,
            time=self._arrived,
            version=attempt.leg.version,
            arm=attempt.leg.arm,
            total_ms=attempt.total_ms,
            completion_tokens=attempt.tokens,
            status=status,
            error=attempt.error,
            prompt_text=_prompt_text(self._request),
            completion_text=attempt.text,
            source=self._source,
        )


def _status(error: Exception) -> int:
    if isinstance(error, TimeoutError):
        return 504
    return error.status if isinstance(error, GenerationError) else 502


def _prompt_text(request: GenerationRequest) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n".join(message.content for message in request.prompt)

"""One request with fallback: if the challenger fails, or is silent for too long, the champion answers.

This also works in the middle of a stream: the champion continues the text that was already sent. Users do not see the
failure, but every attempt is recorded as one traffic record.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from sluice.monitoring.traffic.classify import CLIENT_GONE, AttemptClass
from sluice.monitoring.traffic.record import COLUMNS, TrafficRecord
from sluice.serving.config import CHALLENGER_SHARE
from sluice.serving.engine.request import SIGN_OF_LIFE_S, Finish, GenerationError, GenerationRequest, TokenEvent
from sluice.serving.routing import Target, TrafficSource
from sluice.serving.slots import Slots

MEASURED_BY_ENGINE = tuple(
    column.name for column in fields(Finish) if column.name in COLUMNS.keys() - {"completion_tokens", "total_ms"}
)
"""Fields of `Finish` that the traffic record takes under the same names. Tokens and total time are an attempt's own."""


class Backends(Protocol):
    """The model versions behind the gateway."""

    def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Yield the answer's events: the first comes with the first token, the last has `finish`.

        An answer that does not stream gives an empty event at least every SIGN_OF_LIFE_S. Raises GenerationError, or
        any error of the transport.
        """


class BackendFailed(GenerationError):
    """The answer ended without its final event."""

    status = 502


@dataclass
class Attempt:
    """One attempt of one version to answer a request."""

    target: Target
    started: float
    """Seconds of a monotonic clock."""
    total_ms: float = 0.0
    first_token_ms: float | None = None
    wait_ms: float = 0.0
    """Longest time without news so far."""
    queue_ms: float = 0.0
    """Time in the queue, as the gateway counts it."""
    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    status: int = CLIENT_GONE
    """499 until the attempt succeeds or fails: nothing else ends it early but a client that disconnects."""
    error: str = "ClientGone"


class FallbackCall:
    """Calls `targets` in order until one answers; passes every attempt to `record` at the end.

    All of them together have `timeout_s`; each but the last may be silent for `max_wait_ms`. `session` is written into
    the records; `begun` is called when an answer has begun.
    """

    def __init__(
        self,
        backends: Backends,
        request: GenerationRequest,
        targets: Sequence[Target],
        *,
        source: TrafficSource,
        session: str,
        timeout_s: float,
        max_wait_ms: float,
        slots: Slots,
        record: Callable[[TrafficRecord], AttemptClass],
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        assert targets, "a request without a target is refused earlier"
        self._backends, self._request, self._targets, self._source = backends, request, tuple(targets), source
        self._session, self._begun = session, begun
        self._record, self._slots, self._max_wait_s = record, slots, max_wait_ms / 1e3
        self._arrived = time.time()
        self._deadline = time.monotonic() + timeout_s
        self._attempts: list[Attempt] = []
        self.attempt_classes: list[AttemptClass] = []
        """Class of each attempt, once the request has ended."""

    @property
    def source(self) -> TrafficSource:
        return self._source

    @property
    def request_id(self) -> str:
        return self._request.request_id

    @property
    def target(self) -> Target:
        """Version that answers now."""
        return self._attempts[-1].target if self._attempts else self._targets[0]

    @property
    def fell_back(self) -> bool:
        """Return whether a version failed and the next one was called."""
        return len(self._attempts) > 1

    async def events(self) -> AsyncGenerator[TokenEvent, None]:
        """Yield the answer's events as if from one version. Raises the error of the last version."""
        try:
            for target in self._targets:
                attempt = Attempt(target, time.monotonic())
                place = self._slots.enter(target.version, attempt.started)
                self._attempts.append(attempt)
                try:
                    async with aclosing(self._attempt(attempt)) as events:
                        async for event in events:
                            yield event
                    return
                except Exception as error:
                    own = error.status if isinstance(error, GenerationError) else 502
                    attempt.status = 504 if isinstance(error, TimeoutError) else own
                    attempt.error = type(error).__name__
                    if target is self._targets[-1]:
                        raise
                finally:
                    ended = time.monotonic()
                    self._slots.leave(place, ended)
                    attempt.queue_ms = self._slots.queue_ms(place, ended)
                    attempt.total_ms = attempt.total_ms or 1e3 * (ended - attempt.started)
        finally:
            self._write_records()

    async def _attempt(self, attempt: Attempt) -> AsyncGenerator[TokenEvent, None]:
        # Text and tokens that the client already has, from attempts that failed.
        text = "".join(earlier.text for earlier in self._attempts)
        tokens = sum(earlier.tokens for earlier in self._attempts)
        request = replace(self._request, prefix=text, max_tokens=max(1, self._request.max_tokens - tokens))
        has_fallback = attempt.target is not self._targets[-1]
        limit = self._deadline
        if has_fallback:
            limit -= (1 - CHALLENGER_SHARE) * (self._deadline - attempt.started)
        async with aclosing(self._backends.generate(attempt.target.version, request)) as events:
            while attempt.finish is None:
                asked = time.monotonic()
                is_between_signs = not request.stream and attempt.first_token_ms is not None
                expected_s = SIGN_OF_LIFE_S if is_between_signs else 0.0
                until = min(limit, asked + expected_s + self._max_wait_s) if has_fallback else limit
                try:
                    async with asyncio.timeout(until - asked):
                        event = await anext(events)
                except StopAsyncIteration:
                    raise BackendFailed("the answer ended early") from None
                finally:
                    attempt.wait_ms = max(attempt.wait_ms, 1e3 * (time.monotonic() - asked - expected_s))
                self._slots.note_event(attempt.target.version, time.monotonic())
                if attempt.first_token_ms is None:
                    attempt.first_token_ms = attempt.wait_ms
                    self._begun()
                attempt.text += event.text
                attempt.tokens += event.tokens
                if event.finish is not None:
                    attempt.finish, attempt.status, attempt.error = event.finish, 200, ""
                    attempt.total_ms = 1e3 * (time.monotonic() - attempt.started)
                    event = replace(event, finish=replace(event.finish, completion_tokens=tokens + attempt.tokens))
                yield event

    def _write_records(self) -> None:
        answered = self._attempts and self._attempts[-1].status < 400
        for attempt in self._attempts:
            status = attempt.status
            if answered and status in range(400, 499):
                # A request that one version refused and the next one answered was not the user's mistake.
                status = 500
            self.attempt_classes.append(self._record(self._traffic_record(attempt, status)))

    def _traffic_record(self, attempt: Attempt, status: int) -> TrafficRecord:
        measured: dict[str, Any] = {"first_token_ms": attempt.first_token_ms, "queue_ms": attempt.queue_ms}
        if attempt.finish:
            measured = {name: getattr(attempt.finish, name) for name in MEASURED_BY_ENGINE}
        prompt = self._request.prompt
        return TrafficRecord(
            **measured,
            wait_ms=attempt.wait_ms,
            request_id=self._request.request_id,
            time=self._arrived,
            version=attempt.target.version,
            arm=attempt.target.arm,
            total_ms=attempt.total_ms,
            completion_tokens=attempt.tokens,
            status=status,
            error=attempt.error,
            prompt_text=prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt),
            completion_text=attempt.text,
            source=self._source,
            session=self._session,
        )
